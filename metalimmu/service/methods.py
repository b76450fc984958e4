"""Which boot method a host gets: what its BMC says and what the site serves, as `plan.method` wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalimmu.boot.listeners import boot_url
from metalimmu.boot.loaders import http_loader
from metalimmu.plan.identity import is_serial, is_uuid
from metalimmu.plan.method import Can, Choice, choose

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec, Site
    from metalimmu.plan.types import ImageFacts
    from metalimmu.service.looking import Look


def loader_url(site: Site) -> str:
    """Where firmware fetches a boot loader by HTTP; empty: we serve nothing in the clear."""
    base = boot_url(site.urls)
    return f"{base}/boot/efi/{http_loader(site.netboot)}" if base else ""


def chosen(site: Site, spec: HostSpec, facts: ImageFacts, seen: Look, *, netboots: bool = True) -> Choice:
    """`netboots`: can the ramdisk be booted over the network? Raises BmcUnsupported, UsageError."""
    identity = seen.seen.identity
    can = Can(
        no_media=seen.no_media,
        targets=seen.seen.boot.targets,
        takes_uri=seen.seen.boot.takes_uri and bool(loader_url(site)),
        firmware=spec.firmware,
        answers=site.netboot.mode != "off",
        no_network=_no_network(site, spec, facts, netboots=netboots),
        known=bool(spec.nics) or is_serial(spec.serial or identity.serial) or is_uuid(identity.uuid),
    )
    return choose(spec.methods, can)


def _no_network(site: Site, spec: HostSpec, facts: ImageFacts, *, netboots: bool) -> str:
    if facts.kind == "iso":
        return f"{facts.ref} is a whole ISO"
    if facts.from_media:
        return f"{facts.ref} goes on reading the media it was booted from"
    if facts.kind == "disk" and not netboots:
        return f"the ramdisk {spec.ramdisk} was built by an older metalimmu: `metalimmu ramdisk build`"
    if boot_url(site.urls) is None:
        return "boot loaders fetch plain HTTP only, and `urls.boot` is not set"
    return ""
