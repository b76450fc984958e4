"""A fake BMC with a machine's semantics: for tests, for trying things out, for a thousand hosts on a laptop.

`fake://NAME` lives in this process; `fake:///PATH/state.json` lives in a file and outlives a killed controller.
The document, its faults and how two sides share the file are described in `metalimmu.observed.machine`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from msgspec.structs import replace

from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.fake_machines import Change, store
from metalimmu.bmc.ledger import PROCESS, LoginLedger
from metalimmu.bmc.unknown import unknown
from metalimmu.desired.types import Mode
from metalimmu.errors import (
    BmcBroken,
    BmcError,
    BmcLoginRefused,
    BmcReadOnly,
    BmcRefused,
    BmcUnsupported,
    by_code,
)
from metalimmu.observed.machine import Fault, Machine
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootOverride,
    BootTarget,
    Inventory,
    MediaSlot,
    PowerAction,
    PowerState,
    Reason,
    SystemIdentity,
    Unknown,
    WriteRequest,
)

SYSTEM = "/redfish/v1/Systems/1"
MEDIA = "/redfish/v1/Managers/1/VirtualMedia"

T = TypeVar("T")


class FakeBmc:
    """`ports.Bmc` on a MachineStore."""

    driver = "fake"

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None = None,
        mode: Mode = "read-write",
        before_write: Callable[[], None] | None = None,
        ledger: LoginLedger | None = None,
    ) -> None:
        self._address = address
        self._store = store(address)
        self._credentials = credentials
        self._mode = mode
        self._before_write = before_write
        self._ledger = ledger or PROCESS
        self._logged_in = False
        self._sent: list[WriteRequest] = []
        self._rehearsal: list[WriteRequest] | None = None

    # power

    def power_state(self) -> PowerState:
        return PowerState(self._read("power_state").power)

    def power_actions(self) -> frozenset[PowerAction]:
        self._read("power_actions")
        return frozenset(PowerAction)

    def set_power(self, action: PowerAction) -> None:
        request = WriteRequest("POST", f"{SYSTEM}/Actions/ComputerSystem.Reset", {"ResetType": action.value})
        self._write("set_power", request, lambda m: m.powered(action))

    # boot override

    def boot_override(self) -> BootOverride:
        machine = self._read("boot_override")
        boot = machine.boot
        uri = BootTarget.uefi_http in machine.targets
        return BootOverride(boot.enabled, boot.target, boot.mode, targets=machine.targets, takes_uri=uri)

    def set_boot_override(
        self, target: BootTarget, enabled: BootEnabled, mode: BootMode | None, *, uri: str = ""
    ) -> None:
        body: dict[str, object] = {"BootSourceOverrideTarget": target.value, "BootSourceOverrideEnabled": enabled.value}
        if mode:
            body["BootSourceOverrideMode"] = mode.value
        if uri:
            body["HttpBootUri"] = uri
        request = WriteRequest("PATCH", SYSTEM, {"Boot": body})
        self._write("set_boot_override", request, lambda m: m.overridden(target, enabled, mode))

    # virtual media

    def media(self) -> tuple[MediaSlot, ...]:
        drives = self._read("media").media
        return tuple(
            MediaSlot(name, f"{MEDIA}/{name}", d.media_types, d.inserted, d.image, by_action=True, can_eject=True)
            for name, d in drives.items()
        )

    def insert_media(self, slot: MediaSlot, url: str) -> None:
        def change(machine: Machine) -> Machine:
            self._must_have(machine, slot)
            if machine.media[slot.id].inserted:
                raise BmcRefused(f"slot {slot.id} has {machine.media[slot.id].image} already", hint="eject it first")
            return machine.with_media(slot.id, url)

        path = f"{MEDIA}/{slot.id}/Actions/VirtualMedia.InsertMedia"
        self._write("insert_media", WriteRequest("POST", path, {"Image": url}), change)

    def eject_media(self, slot: MediaSlot) -> None:
        def change(machine: Machine) -> Machine:
            self._must_have(machine, slot)
            return machine.with_media(slot.id, None)

        self._write("eject_media", WriteRequest("POST", f"{MEDIA}/{slot.id}/Actions/VirtualMedia.EjectMedia"), change)

    @staticmethod
    def _must_have(machine: Machine, slot: MediaSlot) -> None:
        if slot.id not in machine.media:
            raise BmcUnsupported(f"there is no media slot {slot.id}; there are {', '.join(machine.media) or 'none'}")

    # inventory

    def identity(self) -> SystemIdentity:
        found = self._read("identity")
        return SystemIdentity(
            system_id="1",
            uri=SYSTEM,
            manufacturer=found.manufacturer,
            model=found.model,
            serial=found.serial,
            uuid=found.uuid,
            nics=tuple(mac.lower() for mac in found.nics),
        )

    def inventory(self) -> Inventory:
        nothing = Unknown(Reason.not_modelled, "a fake machine has no parts", SYSTEM)
        return Inventory(
            driver=self.driver,
            identity=self._try(self.identity),
            power=self._try(self.power_state),
            boot=self._try(self.boot_override),
            media=self._try(self.media),
            processors=nothing,
            memory=nothing,
            disks=nothing,
            nics=nothing,
            firmware=nothing,
            bios=nothing,
            power_supplies=nothing,
            bmc={"model": "fake"},
            systems=("1",),
        )

    @staticmethod
    def _try(read: Callable[[], T]) -> T | Unknown:
        try:
            return read()
        except BmcError as exc:
            return unknown(exc, SYSTEM)

    # the driver itself

    def rehearse(self, act: Callable[[], None]) -> list[WriteRequest]:
        self._rehearsal = []
        try:
            act()
            return self._rehearsal
        finally:
            self._rehearsal = None

    def sent(self) -> list[WriteRequest]:
        return list(self._sent)

    def close(self) -> None:
        if self._logged_in:
            self._logged_in = False
            try:
                self._store.update(lambda m: _with_sessions(m, -1))
            except BmcError:
                return  # the BMC went away: its session went with it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _read(self, method: str) -> Machine:
        self._login()
        return self._apply(method, lambda machine: machine)

    def _write(self, method: str, request: WriteRequest, change: Change) -> None:
        if self._rehearsal is not None:
            self._rehearsal.append(request)
            return
        if self._mode == "read-only":
            raise BmcReadOnly(f"{request.method} {request.path} was not sent: the mode is read-only")
        self._login()
        if self._before_write:
            self._before_write()
        self._sent.append(request)
        self._apply(method, change)

    def _apply(self, method: str, change: Change) -> Machine:
        hit: Fault | None = None

        def step(machine: Machine) -> Machine:
            nonlocal hit
            machine, hit = machine.fault(method)
            if hit is None or hit.effect.startswith("then:"):
                return change(machine)
            return machine

        machine = self._store.update(step)
        if hit is not None and hit.effect != "ignore":
            raise _error(hit, method)
        return machine

    def _login(self) -> None:
        if self._logged_in:
            return
        version = self._credentials.version if self._credentials else "anonymous"
        when = self._ledger.refused(self._address, version)
        if when is not None:
            raise BmcLoginRefused(f"{self._address} refused this login ({when}); it is not tried again")
        good = False

        def knock(machine: Machine) -> Machine:
            nonlocal good
            given = (self._credentials.username, self._credentials.password) if self._credentials else ("", "")
            good = not machine.password or given == (machine.username, machine.password)
            return _with_sessions(machine, 1) if good else _refused(machine)

        self._store.update(knock)
        if not good:
            self._ledger.record_refusal(self._address, version, time.time())
            raise BmcLoginRefused(f"{self._address} refused the user name or password")
        self._logged_in = True


def _with_sessions(machine: Machine, more: int) -> Machine:
    return replace(machine, sessions=max(0, machine.sessions + more))


def _refused(machine: Machine) -> Machine:
    return replace(machine, refused_logins=machine.refused_logins + 1)


def _error(fault: Fault, method: str) -> BmcError:
    kind = by_code(fault.effect.removeprefix("then:"))
    if not issubclass(kind, BmcError):
        raise BmcBroken(f"fault {fault.effect!r} on {method} is neither an error of a BMC nor an effect")
    return kind(fault.detail or f"fault injected on {method}")
