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
from metalimmu_emulator.ipmi_loop import Loop
from metalimmu_emulator.ipmi_session import OPERATOR, USER, LabSession, Server
from metalimmu_emulator.ipmi_sol import SOL_PAYLOAD, Serial, Sol
from metalimmu_emulator.machine import ORDERS
from metalimmu_emulator.qemu import Override, Vm

LOG = logging.getLogger(__name__)
RECORD = "ipmi.jsonl"
FLAGS_SECONDS = 60.0
"""Boot flags are forgotten when no chassis control follows within this time, unless parameter 3 forbids it (28.13)."""

# completion codes (5.2)
OK, NO_SUCH_COMMAND, NO_SUCH_PARAMETER, BAD_FIELD, NO_RECORD, NO_RIGHTS, WRONG_STATE = 0, 0xC1, 0x80, 0xCC, 0xCB, 0xD4, 0xD5
ACTIVE_ALREADY, NO_CONSOLE = 0x80, 0x81

CONTROLS = ("ForceOff", "On", "PowerCycle", "ForceRestart", "Nmi", "GracefulShutdown")
DEVICES = {0: "None", 1: "Pxe", 2: "Hdd", 5: "Cd"}
VALID, PERSISTENT, EFI = 0x80, 0x40, 0x20
NEEDS_POWER = ("PowerCycle", "ForceRestart", "Nmi")

Answer = tuple[int, Any]  # completion code, data


class IpmiBmc(Server):
    """`close` from any thread but the loop's."""

    def __init__(self, loop: Loop, vm: Vm, faults: Faults, user: str, password: str, port: int = 0) -> None:
        """Raises OSError where the port is taken."""
        self.vm = vm
        self.faults = faults
        self.light = False
        self._acts = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{vm.spec.name}-ipmi")
        self._keep = 0  # parameter 3 of the boot options
        self._forget_at = 0.0
        reboot = faults.last_reboot()
        self._rebooted = reboot["id"] if reboot else ""
        self._serial = Serial(vm.folder / "serial.sock")
        self._console: tuple[LabSession, Sol] | None = None
        self._table: dict[tuple[int, int], tuple[int, Callable[..., Answer | None]]] = {
            (0x00, 0x01): (USER, self._status),
            (0x00, 0x02): (OPERATOR, self._control),
            (0x00, 0x04): (OPERATOR, self._identify),
            (0x00, 0x08): (OPERATOR, self._set_boot),
            (0x00, 0x09): (OPERATOR, self._get_boot),
            (0x06, 0x01): (USER, self._device),
            (0x06, 0x37): (USER, self._guid),
            (0x06, 0x48): (OPERATOR, self._activate),
            (0x06, 0x49): (OPERATOR, self._deactivate),
            (0x06, 0x4B): (USER, self._instance),
            (0x0A, 0x10): (USER, self._fru_size),
            (0x0A, 0x11): (USER, self._fru_read),
            (0x0A, 0x20): (USER, self._sdr_info),
            (0x0A, 0x22): (USER, lambda _: (OK, (1, 0))),
            (0x0A, 0x23): (USER, self._sdr),
            (0x0A, 0x40): (USER, lambda _: (OK, (0x51, 0, 0, 0xFF, 0xFF, *bytes(8), 0))),
            (0x0A, 0x43): (USER, lambda _: (NO_RECORD, ())),
            (0x0A, 0x48): (USER, lambda _: (OK, struct.pack("<I", int(time.time())))),
        }
        super().__init__(loop, user, password, uuid.UUID(vm.spec.uuid), port)

    def shut(self) -> None:
        """End it. The machine is somebody else's."""
        done = Future[None]()

        def end() -> None:
            try:
                self._hang_up()
                self.close()
            finally:
                done.set_result(None)

        self.loop.call(end)
        done.result(10)
        self._acts.shutdown(wait=True, cancel_futures=True)

    # the frame

    def handle_raw_request(self, request: dict[str, Any], session: LabSession) -> None:
        data = bytes(request["data"])
        rights, method = self._table.get((request["netfn"], request["command"]), (USER, None))
        if method is None:
            answer: Answer | None = (NO_SUCH_COMMAND, ())
        elif session.clientpriv < rights:
            answer = (NO_RIGHTS, ())
        else:
            try:
                answer = method(data, session) if method in (self._activate, self._deactivate) else method(data)
                if answer is None:  # later
                    self._after(session, data, request)
                    return
            except (IndexError, struct.error):
                answer = (0xC7, ())  # request data length invalid
        code, out = answer
        self._record(request, data, code, session)
        session.send_ipmi_response(data=list(out), code=code)
