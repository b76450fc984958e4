"""A lab server's console over IPMI: activation, who has it, and the bridge between its packets and the serial port."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any

from metalimmu_emulator.ipmi_session import LabSession
from metalimmu_emulator.ipmi_sol import SOL_PAYLOAD, Serial, Sol

if TYPE_CHECKING:
    from metalimmu_emulator.ipmi import IpmiBmc

PACKET = 256
ACTIVE_ALREADY = 0x80  # of Activate Payload (24.1), and of Deactivate Payload: not active


class IpmiConsole:
    """One at a time, as BMCs have it. All in the loop."""

    def __init__(self, bmc: IpmiBmc) -> None:
        self._bmc = bmc
        self._serial = Serial(bmc.vm.folder / "serial.sock", bmc.vm.folder / "console.log")
        self._session: LabSession | None = None
        self._sol: Sol | None = None

    def activate(self, data: bytes, session: LabSession) -> tuple[int, Any]:
        if data[0] & 0x3F != SOL_PAYLOAD:
            return 0xCC, ()
        if self._session is not None:
            return ACTIVE_ALREADY, ()
        send = partial(session.send_payload, payload_type=SOL_PAYLOAD, retry=False)
        self._session, self._sol = (
            session,
            Sol(send, self._serial.write, lambda: self._bmc.aside(self._bmc.vm.send_break)),
        )
        session.sol_handler = self._sol.got
        self._serial.listen()
        self._connect()
        return 0, struct.pack("<IHHHH", 0, PACKET, PACKET, self._bmc.port, 0xFFFF)

    def deactivate(self, _data: bytes, _session: LabSession) -> tuple[int, Any]:
        if self._session is None:
            return ACTIVE_ALREADY, ()
        self._end()
        return 0, ()

    def instance(self, _data: bytes, _session: LabSession) -> tuple[int, Any]:
        """Get Payload Instance Info (24.5): whose it is, by session id; 0: nobody's."""
        owner = self._session.localsid if self._session else 0
        return 0, struct.pack("<I8x", owner)

    def session_ended(self, session: LabSession) -> None:
        if session is self._session:
            self._end()

    def tick(self) -> None:
        if self._sol is None:
            return
        self._connect()
        self._hear(self._sol)
        self._sol.tick()
        if self._sol.lost:
            self._end()

    def _connect(self) -> None:
        """The machine may have been off, or may be another process since."""
        fd = self._serial.connect()
        if fd is not None:
            self._bmc.loop.watch(fd, self._readable)

    def _readable(self) -> None:
        if self._serial.gone():
            self._disconnect()
        if self._sol:
            self._hear(self._sol)

    def _hear(self, sol: Sol) -> None:
        if data := self._serial.said():
            sol.say(data)

    def _disconnect(self) -> None:
        fd = self._serial.close()
        if fd is not None:
            self._bmc.loop.unwatch(fd)

    def _end(self) -> None:
        session, self._session, self._sol = self._session, None, None
        if session is not None:
            session.sol_handler = None
        self._disconnect()
