"""Boots from the network, as the store keeps them. Times are seconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from metalimmu.store.records import Record


class OfferRecord(Record, frozen=True, kw_only=True):
    """A deployment whose machine may boot from the network now."""

    deployment: str
    host: str
    fence: int
    image: str
    nics: tuple[str, ...]
    uuid: str
    serial: str
    asked: int
    offered: float


class DiscoveredRecord(Record, frozen=True, kw_only=True):
    """A machine that asked what to boot, and had no deployment; `mac` is the NIC it asked from."""

    mac: str
    uuid: str = ""
    serial: str = ""
    vendor: str = ""
    product: str = ""
    firmware: str = ""  # uefi | bios
    architecture: str = ""  # as its loader names it
    via: str = ""  # ipxe | grub
    address: str = ""  # from which it asked
    why: str = ""  # it was told to boot its disk
    first_seen: float = 0.0
    last_seen: float = 0.0
    times: int = 0


class Sighting(Protocol):
    """A machine since the last time; DiscoveredRecord fits, and boot's own."""

    @property
    def mac(self) -> str: ...
    @property
    def uuid(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def vendor(self) -> str: ...
    @property
    def product(self) -> str: ...
    @property
    def firmware(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def via(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def last_seen(self) -> float: ...
    @property
    def times(self) -> int:
        """To be added."""
        ...


class Asked(Protocol):
    """A machine of a deployment asked what to boot; boot's own fits."""

    @property
    def deployment(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def at(self) -> float: ...
    @property
    def line(self) -> str: ...


class NetbootStore(Protocol):
    """The part of the store that is about boots from the network."""

    def offers(self) -> list[OfferRecord]:
        """Deployments whose machines may boot from the network now."""
        ...

    def asked(self, questions: Iterable[Asked]) -> None:
        """Count them, and keep an event of kind `netboot` of each, in one transaction."""
        ...

    def sighted(self, sightings: Iterable[Sighting]) -> None:
        """Machines that asked and have no deployment, in one transaction. Above KEPT the oldest are forgotten."""
        ...

    def discovered(self, *, limit: int = 1000) -> list[DiscoveredRecord]:
        """The newest first."""
        ...

    def forget_discovered(self, mac: str) -> None: ...
