"""The IPMI BMC of a lab server: the same machine as behind its Redfish BMC, the same override, the same faults.

What it cannot do at once (power) is accepted and done after the answer, in order, as BMCs do it. Every command is written to
ipmi.jsonl of the server's folder (at, netfn, command, data, code, rights), so that a test can hold what was sent against
what was planned.
"""

from __future__ import annotations

import json
import logging
import struct
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError
from metalimmu_emulator import ipmi_records
from metalimmu_emulator.faults import Faults
from metalimmu_emulator.ipmi_console import IpmiConsole
from metalimmu_emulator.ipmi_loop import Loop
from metalimmu_emulator.ipmi_session import OPERATOR, USER, LabSession, Server
from metalimmu_emulator.machine import ORDERS
from metalimmu_emulator.qemu import Override, Vm

LOG = logging.getLogger(__name__)
RECORD = "ipmi.jsonl"
FLAGS_SECONDS = 60.0
"""Boot flags are forgotten when no chassis control follows within this time, unless parameter 3 forbids it (28.13)."""

# completion codes (5.2)
OK, NO_SUCH_PARAMETER, NO_SUCH_COMMAND, BAD_LENGTH, NO_RECORD, BAD_FIELD = 0, 0x80, 0xC1, 0xC7, 0xCB, 0xCC
NO_RIGHTS, WRONG_STATE, FAILED = 0xD4, 0xD5, 0xFF

CONTROLS = ("ForceOff", "On", "PowerCycle", "ForceRestart", "Nmi", "GracefulShutdown")
DEVICES = {0: "None", 1: "Pxe", 2: "Hdd", 5: "Cd"}
VALID, PERSISTENT, EFI = 0x80, 0x40, 0x20
NEEDS_POWER = ("PowerCycle", "ForceRestart", "Nmi")

Answer = tuple[int, Any] | Callable[[], int]
"""Completion code and data; or what is to be done outside of the loop, which gives the code."""


class IpmiBmc(Server):
    """`shut` from any thread but the loop's."""

    def __init__(self, loop: Loop, vm: Vm, faults: Faults, user: str, password: str, port: int = 0) -> None:
        """Raises OSError where the port is taken."""
        self.vm = vm
        self.faults = faults
        self.light = False
        self._acts = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{vm.spec.name}-ipmi")
        self._keep = 0  # parameter 3 of the boot options
        self._forget_at = 0.0
        self._rebooted = self._reboot_id()
        self._port = IpmiConsole(self)
        self._table: dict[tuple[int, int], tuple[int, Callable[[bytes, LabSession], Answer]]] = {
            (0x00, 0x01): (USER, self._status),
            (0x00, 0x02): (OPERATOR, self._control),
            (0x00, 0x04): (OPERATOR, self._identify),
            (0x00, 0x08): (OPERATOR, self._set_boot),
            (0x00, 0x09): (OPERATOR, self._get_boot),
            (0x06, 0x01): (USER, self._device),
            (0x06, 0x37): (USER, self._guid),
            (0x06, 0x48): (OPERATOR, self._port.activate),
            (0x06, 0x49): (OPERATOR, self._port.deactivate),
            (0x06, 0x4B): (USER, self._port.instance),
            (0x0A, 0x10): (USER, self._fru_size),
            (0x0A, 0x11): (USER, self._fru_read),
            (0x0A, 0x20): (USER, lambda *_: (OK, (0x51, 1, 0, 0, 0, *bytes(8), 0x02))),  # one record
            (0x0A, 0x22): (USER, lambda *_: (OK, (1, 0))),
            (0x0A, 0x23): (USER, self._sdr),
            (0x0A, 0x40): (USER, lambda *_: (OK, (0x51, 0, 0, 0xFF, 0xFF, *bytes(8), 0))),  # no events
            (0x0A, 0x43): (USER, lambda *_: (NO_RECORD, ())),
            (0x0A, 0x48): (USER, lambda *_: (OK, struct.pack("<I", int(time.time())))),
        }
        super().__init__(loop, user, password, uuid.UUID(vm.spec.uuid), port)

    def shut(self) -> None:
        """End it, and leave the machine as it is."""
        done: Future[None] = Future()

        def end() -> None:
            try:
                self.close()
            finally:
                done.set_result(None)

        self.loop.call(end)
        done.result(10)
        self._acts.shutdown(wait=True, cancel_futures=True)

    # the frame

    def handle_raw_request(self, request: dict[str, Any], session: LabSession) -> None:
        data = bytes(request["data"])
        rights, method = self._table.get((request["netfn"], request["command"]), (USER, _unknown))
        try:
            answer = method(data, session) if session.clientpriv >= rights else (NO_RIGHTS, ())
        except (IndexError, struct.error):
            answer = (BAD_LENGTH, ())
        record = partial(self._record, request, data, session.clientpriv)
        if not callable(answer):
            code, out = answer
            record(code)
            session.send_ipmi_response(data=list(out), code=code)
            return
        reply = session.later()

        def done(outcome: Future[int]) -> None:
            code = FAILED if outcome.exception() else outcome.result()
            record(code)
            self.loop.call(partial(reply, code))

        self._acts.submit(answer).add_done_callback(done)

    def _record(self, request: dict[str, Any], data: bytes, rights: int, code: int) -> None:
        line = {
            "at": round(time.time(), 3),
            "netfn": request["netfn"],
            "command": request["command"],
            "data": data.hex(),
            "code": code,
            "rights": rights,
        }
        with (self.vm.folder / RECORD).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def aside(self, do: Callable[[], None]) -> None:
        """After what was asked for before it, and not in the loop."""

        def safely() -> None:
            try:
                do()
            except LabError as exc:
                LOG.warning("%s: %s", self.vm.spec.name, exc.message)

        self._acts.submit(safely)

    def away(self) -> bool:
        return "reboot" in self.faults.active()

    def tick(self) -> None:
        super().tick()
        if self._reboot_id() != self._rebooted:
            self._rebooted = self._reboot_id()
            self.drop_sessions()
        if self._forget_at and time.monotonic() > self._forget_at:
            self._forget_at = 0.0
            self.aside(self._forget)
        self._port.tick()

    def _reboot_id(self) -> str:
        reboot = self.faults.last_reboot()
        return str(reboot["id"]) if reboot else ""

    def session_ended(self, session: LabSession) -> None:
        self._port.session_ended(session)

    # chassis

    def _status(self, _data: bytes, _session: LabSession) -> Answer:
        return OK, (self.vm.state.power == "On", 0, 0x40 | (0x20 if self.light else 0))  # identify is known; and is on

    def _control(self, data: bytes, _session: LabSession) -> Answer:
        if data[0] & 0x0F >= len(CONTROLS):
            return BAD_FIELD, ()
        action = CONTROLS[data[0] & 0x0F]
        if action in NEEDS_POWER and self.vm.state.power != "On":
            return WRONG_STATE, ()
        self._forget_at = 0.0
        if not self.faults.strike("no-power-effect", action=action):
            self.aside(partial(self.vm.power, action))
        return OK, ()

    def _identify(self, data: bytes, _session: LabSession) -> Answer:
        self.light = bool(data[:1] != b"\0" or data[1:2] == b"\x01")
        return OK, ()

    # boot options (28.12, 28.13)

    def _get_boot(self, data: bytes, _session: LabSession) -> Answer:
        override = self.vm.state.override
        devices = {name: number for number, name in DEVICES.items()}
        first = EFI if override.mode == "UEFI" else 0
        if override.enabled != "Disabled":
            first |= VALID | (PERSISTENT if override.enabled == "Continuous" else 0)
        values: dict[int, tuple[int, ...]] = {
            0: (0,),
            3: (self._keep,),
            4: (0, 0),
            5: (first, devices.get(override.target, 0) << 2, 0, 0, 0),
        }
        parameter = data[0] & 0x7F
        return (OK, (1, parameter, *values[parameter])) if parameter in values else (NO_SUCH_PARAMETER, ())

    def _set_boot(self, data: bytes, _session: LabSession) -> Answer:
        parameter = data[0] & 0x7F
        if parameter == 3:
            self._keep = data[1]
        if parameter in (0, 3, 4):
            return OK, ()
        if parameter != 5:
            return NO_SUCH_PARAMETER, ()
        target = DEVICES.get(data[2] >> 2 & 0x0F, "")
        if target not in ORDERS:
            return BAD_FIELD, ()
        on = bool(data[1] & VALID) and target != "None"
        enabled = "Disabled" if not on else "Continuous" if data[1] & PERSISTENT else "Once"
        ignored = self.faults.active().get("override-ignored")
        if ignored and not ignored["visible"]:
            return OK, ()
        mode = "UEFI" if data[1] & EFI else "Legacy"
        wanted = Override(enabled, target if on else "None", mode, honoured=not ignored)
        self._forget_at = time.monotonic() + FLAGS_SECONDS if on and not self._keep & 0x08 else 0.0
        return partial(self._override, wanted)

    def _override(self, wanted: Override) -> int:
        self.vm.set_override(wanted)
        return OK

    def _forget(self) -> None:
        self.vm.set_override(Override(mode=self.vm.state.override.mode))

    # identity and repositories

    def _device(self, _data: bytes, _session: LabSession) -> Answer:
        supports = 0x80 | 0x08 | 0x04 | 0x02  # chassis, FRU, event log, sensor records
        return OK, struct.pack("<BBBBBB3sHI", 0x20, 1, 1, 0x00, 0x02, supports, b"\0\0\0", 1, 0)

    def _guid(self, _data: bytes, _session: LabSession) -> Answer:
        wrong = self.faults.active().get("wrong-serial", {})
        return OK, uuid.UUID(wrong.get("uuid") or self.vm.spec.uuid).bytes_le

    def _fru(self) -> bytes:
        wrong = self.faults.active().get("wrong-serial", {})
        return ipmi_records.fru(self.vm.spec, str(wrong.get("serial") or self.vm.spec.serial))

    def _fru_size(self, data: bytes, _session: LabSession) -> Answer:
        return (OK, (*struct.pack("<H", len(self._fru())), 0)) if data[0] == 0 else (NO_RECORD, ())

    def _fru_read(self, data: bytes, _session: LabSession) -> Answer:
        number, offset, count = struct.unpack("<BHB", data)
        piece = self._fru()[offset : offset + min(count, 64)]
        return (OK, (len(piece), *piece)) if number == 0 and piece else (NO_RECORD, ())

    def _sdr(self, data: bytes, _session: LabSession) -> Answer:
        record, offset, count = struct.unpack("<HBB", data[2:6])
        found = ipmi_records.sdr(self.vm.spec.name)[offset:]
        return (OK, (0xFF, 0xFF, *found[:count])) if record in (0, 1) else (NO_RECORD, ())


class Rack:
    """The IPMI BMCs of one process, on UDP ports of 127.0.0.1."""

    def __init__(self, user: str, password: str) -> None:
        self._login = (user, password)
        self._loop = Loop()
        self._started = False
        self.bmcs: list[IpmiBmc] = []

    def add(self, vm: Vm, faults: Faults, port: int = 0) -> IpmiBmc:
        """Before `start`. Another program may have the port by now: then any other."""
        try:
            bmc = IpmiBmc(self._loop, vm, faults, *self._login, port)
        except OSError:
            bmc = IpmiBmc(self._loop, vm, faults, *self._login)
        self.bmcs.append(bmc)
        return bmc

    def start(self) -> None:
        self._started = True
        self._loop.start()

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(bmc.port for bmc in self.bmcs)

    def close(self) -> None:
        if self._started:
            for bmc in self.bmcs:
                bmc.shut()
        self._loop.close()


def _unknown(_data: bytes, _session: LabSession) -> Answer:
    return NO_SUCH_COMMAND, ()


def commands(folder: Path) -> list[dict[str, Any]]:
    """All commands that a server's BMC has been given over IPMI, oldest first. Raises LabError."""
    try:
        return [json.loads(line) for line in (folder / RECORD).read_text().splitlines()]
    except FileNotFoundError:
        return []
    except ValueError as exc:
        raise LabError(f"{folder / RECORD}: {exc}") from exc
