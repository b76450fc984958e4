"""pyghmi's IPMI server with what it leaves out: refusals instead of silence, rights, ends of sessions, repeated requests."""

from __future__ import annotations

import logging
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
ADMINISTRATOR = 4
IDLE_SECONDS = 60.0
MOST_SESSIONS = 4
SHA1 = 1  # RAKP-HMAC-SHA1 (13.28)
NO_ROOM, NO_SUCH_ALGORITHM, NO_SUCH_RIGHTS, NO_SUCH_NAME = 0x01, 0x04, 0x0A, 0x0D  # RMCP+ status codes (13.24)
PONG = bytes.fromhex("0600ff06 000011be 40 00 00 10 000011be 00000000 81 00 000000000000")
"""RMCP/ASF presence: IPMI is supported (13.2.4); the tag, byte 9, is the asker's."""


_OF_A_REQUEST = ("seqlun", "rqlun", "clientaddr", "clientnetfn", "clientcommand")


class LabSession(ServerSession):  # type: ignore[misc]  # pyghmi has no types
    seqlun: int  # these five say which request an answer is for
    rqlun: int
    clientaddr: int
    clientnetfn: int
    clientcommand: int

    def __init__(self, *args: Any) -> None:
        """As pyghmi's."""
        self.clientpriv = USER  # what a new session has, whatever it asked for (6.12.9)
        self.up = False
        self.heard_at = time.monotonic()
        self.last_payload_type = None
        self.sol_handler: Callable[[Any], None] | None = None
        self._key: tuple[Any, ...] = ()
        self._answer: tuple[int, list[int]] | None = None
        super().__init__(*args)

    def process_pktqueue(self) -> None:
        if self.bmc.away():
            self.pktqueue.clear()
            return
        self.heard_at = time.monotonic()
        super().process_pktqueue()

    def _got_rakp1(self, data: Any) -> None:
        """Pyghmi says nothing to an unknown user, and gives everybody all rights."""
        self.bmc.logins += 1
        name = bytes(data[28 : 28 + data[27]])
        if self.authdata.get(name.decode("utf-8", "replace")) is None:
            self._refuse(data[0], NO_SUCH_NAME)
        elif data[24] & 0x0F > self.bmc.limit:
            self._refuse(data[0], self.bmc.over_limit)
        else:
            super()._got_rakp1(data)

    def _refuse(self, tag: int, status: int) -> None:
        refusal = bytearray((tag, status, 0, 0)) + self.clientsessionid
        self.send_payload(refusal, constants.payload_types["rakp2"], retry=False)

    def _send_rakp4(self, tag: int, status: int) -> None:
        super()._send_rakp4(tag, status)
        self.up = True

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
        asked = {name: getattr(self, name) for name in _OF_A_REQUEST}  # pyghmi's, which are untyped

        def answer(code: int) -> None:
            if self._key == key and self.up:
                for name, value in asked.items():
                    setattr(self, name, value)
                self.send_ipmi_response(code=code)

        return answer

    def close_server_session(self) -> None:
        self.up = False
        if self in self.bmc.clients:
            self.bmc.clients.remove(self)
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
        self.clients: list[LabSession] = []  # also those that have not finished their login
        self.logins = 0
        self.limit = ADMINISTRATOR  # the user's
        self.over_limit = NO_SUCH_RIGHTS
        super().__init__({user: password}, port=port, bmcuuid=guid, address="127.0.0.1")
        self.port = self.serversocket.getsockname()[1]
        loop.each_tick(self.tick)

    def close(self) -> None:
        """In the loop."""
        self.loop.no_tick(self.tick)
        self.drop_sessions()
        self.loop.forget(self.serversocket)

    def tick(self) -> None:
        self._drop(lambda client: time.monotonic() - client.heard_at > IDLE_SECONDS)

    def drop_sessions(self) -> None:
        self._drop(lambda _: True)

    def _drop(self, which: Callable[[LabSession], bool]) -> None:
        for client in [c for c in self.clients if which(c)]:
            client.close_server_session()

    @property
    def sessions(self) -> list[LabSession]:
        return [c for c in self.clients if c.up]

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
        """Pyghmi answers with SHA-1 whatever was proposed, and a client that takes its proposal for accepted (pyghmi's own)
        fails: refused, it proposes SHA-1.
        """
        self._drop(lambda client: client.sockaddr == peer)  # it begins anew
        if request[12] & 0x3F != SHA1:
            self._refuse(request, NO_SUCH_ALGORITHM, peer)
        elif len(self.sessions) >= MOST_SESSIONS:
            self._refuse(request, NO_ROOM, peer)
        else:
            login = (self.authdata, self.kg, peer, self.serversocket, bytes(request), self.uuid, self)
            self.clients.append(LabSession(*login))

    def _refuse(self, request: bytearray, status: int, peer: Any) -> None:
        answer = bytes((request[0], status, 0, 0)) + bytes(request[4:8])
        head = bytes.fromhex("0600ff07 06 11 00000000 00000000") + struct.pack("<H", len(answer))
        session._io_sendto(self.serversocket, bytearray(head + answer), peer)  # noqa: SLF001

    # what a subclass says

    def away(self) -> bool:
        return False

    def session_ended(self, session: LabSession) -> None: ...
