"""What can be asked of a BMC, in small ports. Everything blocks; the engine's workers give concurrency.

Reads raise BmcError; `inventory` alone never raises but says Unknown. Writes return when the BMC has accepted
(and, where it answered with a task, finished) them. Whether they had an effect is for the reader to observe:
BMCs answer 204 and do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from metalimmu.desired.types import Mode, Tls
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootOverride,
    BootTarget,
    Inventory,
    MediaSlot,
    PowerAction,
    PowerState,
    SystemIdentity,
    WriteRequest,
)


class Power(Protocol):
    def power_state(self) -> PowerState: ...

    def power_actions(self) -> frozenset[PowerAction]:
        """What this BMC allows, from inline values or ActionInfo; all when it does not say."""
        ...

    def set_power(self, action: PowerAction) -> None: ...


class Override(Protocol):
    def boot_override(self) -> BootOverride: ...

    def set_boot_override(
        self, target: BootTarget, enabled: BootEnabled, mode: BootMode | None, *, uri: str = ""
    ) -> None:
        """`mode` None leaves it as it is; `uri`: from where UefiHttp boots, for a BMC that takes it (`takes_uri`), else DHCP says."""
        ...


class VirtualMedia(Protocol):
    def media(self) -> tuple[MediaSlot, ...]:
        """All slots, the system's and the manager's, each once."""
        ...

    def insert_media(self, slot: MediaSlot, url: str) -> None: ...

    def eject_media(self, slot: MediaSlot) -> None: ...


class InventoryReader(Protocol):
    def identity(self) -> SystemIdentity: ...

    def inventory(self) -> Inventory:
        """Never raises: a part that cannot be read is Unknown with its reason."""
        ...


class Bmc(Power, Override, VirtualMedia, InventoryReader, Protocol):
    """A connected driver. A driver without a capability raises BmcUnsupported from its methods."""

    driver: str

    def rehearse(self, act: Callable[[], None]) -> list[WriteRequest]:
        """Run `act`, sending no write, and return what it would have sent. So a plan lists what will run, by the code that runs it."""
        ...

    def sent(self) -> list[WriteRequest]:
        """Writes sent since connect, in order; those that the BMC refused (4xx) changed nothing and are left out."""
        ...

    def close(self) -> None:
        """Log out, always; never raises."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


def rack(target: Target) -> str | None:
    """The rack whose budget this BMC shares; a target without labels stands in none."""
    labels = getattr(target, "labels", None) or {}
    return labels.get("rack") or None


class Target(Protocol):
    """What is needed to reach one BMC; desired.HostSpec and `connect.Address` fit."""

    @property
    def name(self) -> str: ...
    @property
    def bmc(self) -> str: ...
    @property
    def system(self) -> str | None: ...
    @property
    def credentials(self) -> str | None:
        """Reference; None logs in nowhere."""
        ...

    @property
    def tls(self) -> Tls: ...
    @property
    def proxy(self) -> str | None: ...
    @property
    def connect_timeout(self) -> float: ...
    @property
    def read_timeout(self) -> float: ...
    @property
    def mode(self) -> Mode: ...
