"""The sushy driver: `ports.Bmc` over Redfish (DSP0266, DSP0268).

What changes something goes through sushy's models, which know how it must be said to real BMCs; what is read is read
by ourselves, because sushy's models raise on answers of real machines (see `document` and `tree`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from metalimmu.bmc import redfish_boot, redfish_inventory, redfish_media
from metalimmu.bmc.address import base_url
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.budget import Budget
from metalimmu.bmc.connector import Connector, Timing
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import LoginLedger
from metalimmu.bmc.ports import Target, rack
from metalimmu.bmc.redfish_service import Connected, Service
from metalimmu.bmc.transport import Transport
from metalimmu.bmc.tree import Tree
from metalimmu.desired.types import Mode
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

T = TypeVar("T")


class RedfishBmc:
    """Connects and logs in with the first call. Use it as a context manager, or close it."""

    driver = "redfish"
    transport: ClassVar[type[Transport]] = Transport

    def __init__(self, connector: Connector, *, system: str | None = None) -> None:
        self.connector = connector
        self._service = Connected(connector, system)

    @classmethod
    def open(
        cls,
        target: Target,
        *,
        credentials: Credentials | None,
        mode: Mode,
        before_write: Callable[[], None] | None = None,
        ledger: LoginLedger | None = None,
        patience: float = 20.0,
        timing: Timing | None = None,
        budget: Budget | None = None,
    ) -> Self:
        """Raises UsageError for an address or a CA file that cannot be used."""
        transport = cls.transport(
            base_url(target.bmc),
            tls=target.tls,
            proxy=target.proxy,
            connect_timeout=target.connect_timeout,
            read_timeout=target.read_timeout,
        )
        connector = Connector(
            transport,
            credentials,
            ledger=ledger,
            mode=mode,
            before_write=before_write,
            patience=patience,
            timing=timing,
            account=budget.account(transport.base, rack(target)) if budget else None,
        )
        return cls(connector, system=target.system)

    def power_state(self) -> PowerState:
        service = self._service
        return redfish_boot.power_state(service.run(service.system(service.tree())))

    def power_actions(self) -> frozenset[PowerAction]:
        service, tree = self._service, self._service.tree()
        system = service.run(service.system(tree))
        return redfish_boot.power_actions(service.run(redfish_boot.reset_types(tree, system)))

    def set_power(self, action: PowerAction) -> None:
        redfish_boot.set_power(self._service, action)

    def boot_override(self) -> BootOverride:
        service, tree = self._service, self._service.tree()
        system = service.run(service.system(tree))
        return redfish_boot.boot_override(system, service.run(service.quirks(tree)))

    def set_boot_override(
        self, target: BootTarget, enabled: BootEnabled, mode: BootMode | None, *, uri: str = ""
    ) -> None:
        redfish_boot.set_boot_override(self._service, target, enabled, mode, uri=uri)

    def media(self) -> tuple[MediaSlot, ...]:
        return self._service.run(redfish_media.media(self._service, self._service.tree()))

    def insert_media(self, slot: MediaSlot, url: str) -> None:
        redfish_media.insert(self._service, slot, url)

    def eject_media(self, slot: MediaSlot) -> None:
        redfish_media.eject(self._service, slot)

    def identity(self) -> SystemIdentity:
        return self._service.run(self._service.identity(self._service.tree()))

    def inventory(self) -> Inventory:
        return redfish_inventory.inventory(self._service, self.driver)

    def run(self, reader: Callable[[Service, Tree], Asking[T]]) -> T:
        """What a reader finds out here. Raises what it raises."""
        return self._service.run(reader(self._service, self._service.tree()))

    def rehearse(self, act: Callable[[], None]) -> list[WriteRequest]:
        return self.connector.rehearse(act)

    def sent(self) -> list[WriteRequest]:
        return self.connector.sent()

    def close(self) -> None:
        self.connector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
