"""pyghmi's IPMI server with what it leaves out: refusals instead of silence, rights, ends of sessions, repeated requests."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from pyghmi.ipmi import bmc as pyghmi_bmc
from pyghmi.ipmi.private import constants, session
from pyghmi.ipmi.private.serversession import ServerSession

from metalimmu_emulator.ipmi_loop import Loop

LOG = logging.getLogger(__name__)
USER, OPERATOR = 2, 3
IDLE_SECONDS = 60.0
MOST_SESSIONS = 4
PONG = bytes.fromhex("0600ff06 000011be 40 00 00 10 000011be 00000000 81 00 000000000000")
"""RMCP/ASF presence: IPMI is supported (13.2.4); the tag, byte 9, is the asker's."""


class LabSession(ServerSession):  # type: ignore[misc]  # pyghmi has no types
    def __init__(self, server: Server, peer: Any, request: bytes) -> None:
        self.clientpriv = USER  # what a new session has, whatever it asked for (6.12.9)
        self.up = False
        self.heard_at = time.monotonic()
        self.last_payload_type = None
        self.sol_handler: Callable[[Any], None] | None = None
        self._key: tuple[Any, ...] = ()
        self._answer: tuple[int, list[int]] | None = None
        super().__init__(server.authdata, server.kg, peer, server.serversocket, request, server.uuid, bmc=server)

    def process_pktqueue(self) -> None:
        if self.bmc.away():
            self.pktqueue.clear()
            return
        self.heard_at = time.monotonic()
        super().process_pktqueue()

    def _got_rakp1(self, data: Any) -> None:
        """pyghmi says nothing to an unknown user: a BMC says "unauthorized name" (13.20)."""
        self.bmc.logins += 1
        name = bytes(data[28 : 28 + data[27]])
        if data[27] and self.authdata.get(name.decode("utf-8", "replace")) is None:
            refusal = bytearray((data[0], 0x0D, 0, 0)) + self.clientsessionid
            self.send_payload(refusal, constants.payload_types["rakp2"], retry=False)
            return
        super()._got_rakp1(data)

    def _send_rakp4(self, tag: int, status: int) -> None:
        super()._send_rakp4(tag, status)
        self.up = True
        self.bmc.sessions.append(self)

    def handle_client_request(self, request: dict[str, Any]) -> None:
        """The same request with the same number was not heard to be answered: it is answered again, not done again."""
        key = (self.seqlun, request["netfn"], request["command"], bytes(request["data"]))
        if key == self._key:
            if self._answer is not None:
                self._reply(*self._answer)
            return
        self._key, self._answer = key, None
        super().handle_client_request(request)

    def send_ipmi_response(self, data: Any = (), code: int = 0) -> None:
        self._send_ipmi_net_payload(code=code, data=data)

    def _send_ipmi_net_payload(self, *args: Any, **more: Any) -> None:
        self._answer = (more.get("code", 0), list(more.get("data", ())))
        super()._send_ipmi_net_payload(*args, **more)

    def _reply(self, code: int, data: list[int]) -> None:
        super()._send_ipmi_net_payload(code=code, data=data)

    def later(self) -> Callable[[int], None]:
        """To answer this request from the loop, after it: when the client has given it up, nobody is told."""
        key = self._key
        asked = (self.seqlun, self.rqlun, self.clientaddr, self.clientnetfn, self.clientcommand)

        def answer(code: int) -> None:
            if self._key == key and self.up:
                self.seqlun, self.rqlun, self.clientaddr, self.clientnetfn, self.clientcommand = asked
                self.send_ipmi_response(code=code)

        return answer

    def close_server_session(self) -> None:
        self.up = False
        if self in self.bmc.sessions:
            self.bmc.sessions.remove(self)
        handlers = session.Session.bmc_handlers.get(self.sockaddr, {})
        if handlers.get(self.bmc.port) is self:
            del handlers[self.bmc.port]
            if not handlers:
                session.Session.bmc_handlers.pop(self.sockaddr, None)
        self.bmc.session_ended(self)


class Server(pyghmi_bmc.Bmc):  # type: ignore[misc]
    """One UDP port. `commands` of a subclass: (netfn, command) -> (least rights, method)."""

    def __init__(self, loop: Loop, user: str, password: str, guid: Any, port: int = 0) -> None:
        """Raises OSError where the port is taken."""
        self.loop = loop
        self.sessions: list[LabSession] = []
        self.logins = 0
        super().__init__({user: password}, port=port, bmcuuid=guid, address="127.0.0.1")
        self.port = self.serversocket.getsockname()[1]
        loop.each_tick(self.tick)

    def close(self) -> None:
        """In the loop."""
        self.loop.no_tick(self.tick)
        self.drop_sessions()
        self.loop.forget(self.serversocket)

    def tick(self) -> None:
        for one in [s for s in self.sessions if time.monotonic() - s.heard_at > IDLE_SECONDS]:
            one.close_server_session()

    def drop_sessions(self) -> None:
        for one in list(self.sessions):
            one.close_server_session()

    def sessionless_data(self, data: Any, sockaddr: Any) -> None:
        data = bytearray(data)
        if self.away():
            return
        if len(data) >= 12 and data[3] == 0x06 and data[8] == 0x80:
            pong = bytearray(PONG)
            pong[9] = data[9]
            session._io_sendto(self.serversocket, pong, sockaddr)  # noqa: SLF001
        elif len(data) >= 48 and data[3] == 0x07 and data[4] == 6 and data[5] == 16:
            self._open(data[16:], sockaddr)
        else:
            super().sessionless_data(data, sockaddr)

    def _open(self, request: bytearray, peer: Any) -> None:
        if len(self.sessions) < MOST_SESSIONS:
            LabSession(self, peer, bytes(request))
            return
        answer = bytes((request[0], 0x01, 0, 0)) + bytes(request[4:8])  # insufficient resources
        head = bytes.fromhex("0600ff07 06 11 00000000 00000000") + struct.pack("<H", len(answer))
        session._io_sendto(self.serversocket, bytearray(head + answer), peer)  # noqa: SLF001

    # what a subclass says

    def away(self) -> bool:
        return False

    def session_ended(self, session: LabSession) -> None: ...


