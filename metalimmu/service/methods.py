"""Which boot method a host gets: what its BMC says and what the site serves, as `plan.method` wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalimmu.boot.dnsmasq import boot_files
from metalimmu.boot.listeners import boot_url
from metalimmu.boot.loaders import http_path
from metalimmu.plan.identity import is_serial, is_uuid
from metalimmu.plan.method import NETWORK, PXE, UEFI_HTTP, Can, Choice, choose

if TYPE_CHECKING:
    from metalimmu.desired.netboot import Netboot
    from metalimmu.desired.types import HostSpec, Site
    from metalimmu.plan.types import ImageFacts
    from metalimmu.service.looking import Look


def loader_url(site: Site) -> str:
    """Where firmware fetches a boot loader by HTTP; empty: we serve nothing in the clear."""
    base = boot_url(site.urls)
    return f"{base}{http_path(site.netboot)}" if base else ""


def chosen(site: Site, spec: HostSpec, facts: ImageFacts, seen: Look, *, netboots: bool = True) -> Choice:
    """`netboots`: can the ramdisk be booted over the network? Raises BmcUnsupported, UsageError."""
    identity = seen.seen.identity
    named = is_serial(spec.serial or identity.serial) or is_uuid(identity.uuid)
    can = Can(
        no_media=seen.no_media,
        targets=seen.seen.boot.targets,
        takes_uri=seen.seen.boot.takes_uri and bool(loader_url(site)) and site.netboot.loader != "shim",
        firmware=spec.firmware,
        unserved=unserved(site.netboot, spec.firmware),
        no_network=_no_network(site, spec, facts, netboots=netboots),
        unknown=unknown(site.netboot, nics=bool(spec.nics), named=named),
    )
    return choose(spec.methods, can)


def unserved(netboot: Netboot, firmware: str) -> dict[str, str]:
    """Network method -> why our DHCP does not bring such a machine to a boot loader."""
    if netboot.mode == "off":
        return dict.fromkeys(NETWORK, "nobody here answers DHCP: `netboot: mode:` is off in site.yaml")
    served, found = boot_files(netboot, ""), {}
    if "http" not in served and netboot.loader == "shim":
        found[UEFI_HTTP] = "`netboot: loader: shim` is served by TFTP alone, the signed GRUB has no HTTP"
    elif "http" not in served:
        found[UEFI_HTTP] = f"UEFI HTTP clients are not answered by us: `netboot: mode:` is {netboot.mode} in site.yaml"
    if firmware not in served:
        found[PXE] = f"the machine boots by {firmware}, and `netboot: loader: {netboot.loader}` has nothing for that"
    return found


def unknown(netboot: Netboot, *, nics: bool, named: bool) -> dict[str, str]:
    """Network method -> why who asks could not be told. `nics`, `named`: its MACs are known, its serial number or UUID."""
    if not nics and not named:
        why = "the host document has no serial and no `nics:`, and the BMC names no UUID: who asks could not be told"
        return dict.fromkeys(NETWORK, why)
    if not nics and netboot.mode != "off" and netboot.loader == "shim":
        why = "`netboot: loader: shim` tells machines apart by MAC alone, and the host document has no `nics:`"
        return {PXE: why}
    return {}


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
