"""Boots for Debian's signed GRUB, which has no HTTP: what is offered lies where TFTP finds it, for as long as it is offered.

Only a MAC says who asks, by the name of the config. The files of a deployment are below its secret, which TFTP cannot list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from metalimmu import log
from metalimmu.boot import scripts
from metalimmu.boot.scripts import Job
from metalimmu.errors import MetalimmuError

if TYPE_CHECKING:
    from metalimmu.boot.dnsmasq import Dnsmasq
    from metalimmu.boot.ports import Deployment, MediaFile, Netboot
    from metalimmu.service.site import OpenSite
    from metalimmu.store.netboot_records import OfferRecord

_BLOCK = 1 << 20

logger = log.get("netboot")


class Content(Protocol):
    def netboot(self, deployment: Deployment) -> Netboot: ...

    def netboot_file(self, deployment: Deployment, name: str) -> MediaFile: ...

    def files_path(self, deployment: str) -> str:
        """/m/SECRET"""
        ...


@dataclass(frozen=True)
class _Laid:
    key: tuple[str, int, float]
    names: tuple[str, ...]


class TftpBoots:
    """Used from one thread."""

    def __init__(self, site: OpenSite, content: Content, child: Dnsmasq) -> None:
        self._site = site
        self._content = content
        self._child = child
        self._laid: dict[str, _Laid] = {}

    def update(self, offers: Iterable[OfferRecord]) -> None:
        """Lay what is new, take away what is offered no more."""
        wanted = {o.deployment: o for o in offers}
        for name, laid in list(self._laid.items()):
            offer = wanted.get(name)
            if offer is None or laid.key != _key(offer):
                for file in laid.names:
                    self._child.remove(file)
                del self._laid[name]
        for name, offer in wanted.items():
            if name not in self._laid:
                try:
                    self._lay(offer)
                except (MetalimmuError, OSError) as exc:
                    logger.warning("%s cannot boot by TFTP: %s", offer.host, exc)

    def _lay(self, offer: OfferRecord) -> None:
        """The configs last: who finds one finds all."""
        deployment = self._site.store.deployment(offer.deployment)
        netboot = self._content.netboot(deployment)
        path = self._content.files_path(offer.deployment)
        configs = tuple(f"grub/{mac.lower()}.cfg" for mac in offer.nics)
        self._laid[offer.deployment] = _Laid(_key(offer), (*configs, path.lstrip("/")))
        for name in (netboot.kernel, *netboot.initrds):
            self._child.put(f"{path.lstrip('/')}/{name}", _blocks(self._content.netboot_file(deployment, name)))
        text = scripts.boot("grub", "", Job(offer.host, offer.image, offer.deployment, path, netboot), device="(tftp)")
        for config in configs:
            self._child.put(config, [text.encode()])


def _key(offer: OfferRecord) -> tuple[str, int, float]:
    return offer.deployment, offer.fence, offer.offered


def _blocks(file: MediaFile) -> Iterator[bytes]:
    try:
        for offset in range(0, file.size, _BLOCK):
            yield file.pread(offset, min(_BLOCK, file.size - offset))
    finally:
        file.close()
