"""pyghmi's session with a gate: what leaves it is on the list, or it does not leave.

Only the processes of `ipmi_worker` and `ipmi_sol` import this: pyghmi keeps its sockets, its sessions and its thread in
module variables, its `select` cannot have descriptors above 1023, and its waits have no end of their own when that
thread dies. A process can be ended.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyghmi.exceptions import IpmiException
from pyghmi.ipmi.private import session
from pyghmi.ipmi.private.constants import payload_types

# Network function and command (IPMI 2.0, appendix G).
SESSION = {
    (0x06, 0x38): "Get Channel Authentication Capabilities",
    (0x06, 0x3B): "Set Session Privilege Level",
    (0x06, 0x3C): "Close Session",
}
# All of these but one are for the User privilege level, and a reading session asks for no more than that, so the BMC itself
# refuses what changes a machine. The boot options are for Operators, even to look at.
READS = {
    (0x00, 0x01): "Get Chassis Status",
    (0x00, 0x09): "Get System Boot Options",
    (0x04, 0x23): "Get Sensor Reading Factors",
    (0x04, 0x2D): "Get Sensor Reading",
    (0x06, 0x01): "Get Device ID",
    (0x06, 0x37): "Get System GUID",
    (0x06, 0x59): "Get System Info Parameters",
    (0x0A, 0x10): "Get FRU Inventory Area Info",
    (0x0A, 0x11): "Read FRU Data",
    (0x0A, 0x20): "Get SDR Repository Info",
    (0x0A, 0x22): "Reserve SDR Repository",
    (0x0A, 0x23): "Get SDR",
    (0x0A, 0x40): "Get SEL Info",
    (0x0A, 0x43): "Get SEL Entry",
    (0x0A, 0x48): "Get SEL Time",
}
WRITES = {
    (0x00, 0x02): "Chassis Control",
    (0x00, 0x04): "Chassis Identify",
    (0x00, 0x08): "Set System Boot Options",
}
BOOT_PARAMETERS = frozenset({3, 5})  # when the flags are forgotten, and the flags (28.13); no boot initiator's mailbox
CONSOLE = {
    (0x06, 0x48): "Activate Payload",
    (0x06, 0x49): "Deactivate Payload",
    (0x06, 0x4B): "Get Payload Instance Info",
}
_OPENING = frozenset(payload_types[name] for name in ("ipmi", "rmcpplusopenreq", "rakp1", "rakp3"))
SOL = payload_types["sol"]
USER, OPERATOR, ADMINISTRATOR = 2, 3, 4


class NotAllowed(Exception):
    """Not sent."""


class OutOfTime(Exception):
    """The deadline of the whole job has passed."""


class Unanswered(Exception):
    """A command that went out was not answered: nobody knows whether it was carried out."""


@dataclass(frozen=True)
class Gate:
    """What one kind of session may send."""

    what: str
    commands: frozenset[tuple[int, int]]
    console: bool = False  # the serial console's packets
    typing: bool = False  # ... also those that carry characters or a break

    def command(self, netfn: int | None, command: int | None, data: Sequence[int] = (), bridge: object = None) -> None:
        """Raises NotAllowed. Nothing is bridged either: another controller has other commands."""
        if (netfn, command) not in self.commands or bridge:
            name = "?" if netfn is None or command is None else f"{netfn:#04x} {command:#04x}"
            raise NotAllowed(f"IPMI command {name}{' by a bridge' if bridge else ''} is not on the list of {self.what}")
        if (netfn, command) == (0x00, 0x08) and (not data or data[0] not in BOOT_PARAMETERS):
            raise NotAllowed(f"system boot option {[*data[:1]]} is not on the list of {self.what}")

    def payload(self, kind: int | None, payload: Sequence[int]) -> None:
        """Raises NotAllowed. No OEM payloads; of the serial console's packets an acknowledgement has no sequence number
        and no flags (15.9).
        """
        if kind in _OPENING:
            return
        if kind != SOL or not self.console:
            raise NotAllowed(f"IPMI payload type {kind} is not on the list of {self.what}")
        if payload and not self.typing and (len(payload) > 4 or payload[0] or payload[3]):
            raise NotAllowed(f"characters for a serial console are not on the list of {self.what}")


READING = Gate("read commands", frozenset(SESSION | READS))
WRITING = Gate("read and write commands", frozenset(SESSION | READS | WRITES))
VIEWING = Gate("a console that is looked at", frozenset(SESSION | CONSOLE), console=True)
TYPING = Gate("a console", frozenset(SESSION | CONSOLE), console=True, typing=True)


class Session(session.Session):  # type: ignore[misc]
    """Log in with `Session.open`, log out with `close`."""

    gate = READING
    deadline = float("inf")
    once_seconds = 10.0
    first_hash = 256

    def __init__(self, *args: Any, **more: Any) -> None:
        self.once = False  # the command that goes out now must not go out again
        self.established = False
        super().__init__(*args, **more)

    @classmethod
    def open(
        cls, address: str, port: int, username: str, password: str, *, gate: Gate, rights: int, deadline: float
    ) -> Session:
        """Raises pyghmi's IpmiException."""
        cls.gate, cls.deadline = gate, deadline
        cls.initting_sessions.clear()  # pyghmi finds a closed one there again: it is kept by text and removed by bytes
        found = cls(bmc=address, userid=username, password=password, port=port, privlevel=rights, keepalive=False)
        found.established = True
        return found

    def alive(self) -> bool:
        """Does the BMC still know this session? One that was reset does not, and pyghmi takes 20 seconds to see it."""
        return self._heard(0x00, 0x01)

    def close(self) -> None:
        """Log out, and see to it that the BMC has heard it: an open session takes one of its few places for a minute."""
        if self.logged and not self.broken:
            self.sol_handler = None  # whoever had a console has ended it
            self._heard(0x06, 0x3C, struct.pack("<I", self.sessionid))
        self.abandon()

    def abandon(self) -> None:
        """A session that the BMC has forgotten."""
        self.logged = 0
        self.logout(sessionok=False)

    def _heard(self, netfn: int, command: int, data: bytes = b"") -> bool:
        for _ in range(3):
            self.lastresponse, self.lastpayload, self.incommand = None, None, False
            self.raw_command(netfn=netfn, command=command, data=data, retry=False)
            until = time.monotonic() + 0.5
            while self.lastresponse is None and time.monotonic() < until:
                session.Session.wait_for_rsp(0.1)
            if self.lastresponse is not None:
                return True
        return False

    def _initsession(self) -> None:
        super()._initsession()
        self.attemptedhash = self.first_hash

    def _send_ipmi_net_payload(
        self,
        netfn: int | None = None,
        command: int | None = None,
        data: Any = (),
        code: int = 0,
        bridge_request: Any = None,
        **more: Any,
    ) -> None:
        """Every IPMI command comes by here, the session's own too."""
        self.gate.command(netfn, command, data, bridge_request)
        if time.monotonic() > self.deadline and (netfn, command) != (0x06, 0x3C):
            raise OutOfTime
        super()._send_ipmi_net_payload(netfn, command, data, code, bridge_request, **more)

    def send_payload(self, payload: Any = (), payload_type: int | None = None, *args: Any, **more: Any) -> None:
        """And every packet by here."""
        self.gate.payload(self.last_payload_type if payload_type is None else payload_type, payload)
        super().send_payload(payload, payload_type, *args, **more)

    def _timedout(self) -> None:
        """Pyghmi sends again what was not answered, after a new login if need be. A reset that was carried out twice would
        use up a one-time boot override: what is marked `once` is waited for, and not sent again.
        """
        if self.once and self.lastpayload:
            waited = session.Session.waiting_sessions
            if time.monotonic() < self.once_until:
                self.expiration = time.monotonic() + 0.5
                waited[self] = {"ipmisession": self, "timeout": self.expiration}
                return
            self.lastpayload, self.incommand = None, False
            raise Unanswered
        super()._timedout()
        if self.broken and self.established:
            raise Unanswered  # pyghmi would look for the command in an answer that is none

    def command_once(self, netfn: int, command: int, data: Sequence[int]) -> dict[str, Any]:
        """Raises Unanswered, IpmiException."""
        self.once, self.once_until = True, time.monotonic() + self.once_seconds
        try:
            found: dict[str, Any] | None = self.raw_command(netfn=netfn, command=command, data=data)
        finally:
            self.once = False
        if found is None:
            raise IpmiException("Session no longer connected")
        return found

    def onlogon(self, parameter: dict[str, Any]) -> None:
        """A session that was opened and does not get its rights is closed, not left to the BMC's time limit."""
        if "error" in parameter and self.sessioncontext == "ESTABLISHED" and self.sessionid:
            self._send_ipmi_net_payload(0x06, 0x3C, struct.pack("<I", self.sessionid), retry=False)
        super().onlogon(parameter)

    def _got_channel_auth_cap(self, response: dict[str, Any]) -> None:
        data = response.get("data") or b""
        if not response.get("code") and len(data) > 3 and not (data[1] & 0x80 and data[3] & 0x02):
            # pyghmi's code for IPMI 1.5 joins bytes and text, which Python 3 does not do.
            self.onlogon({"error": IPMI_15})
            return
        super()._got_channel_auth_cap(response)

    def _got_rmcp_response(self, data: bytes) -> Any:
        """Pyghmi takes it for granted that SHA-256 was accepted. A BMC made with pyghmi's own server (virtualbmc) answers
        with SHA-1 instead of refusing, and both sides then fail in unpacking: look, and propose SHA-1.
        """
        agreed = len(data) > 16 and data[1] == 0 and data[16] & 0x3F
        if agreed == 1 and self.attemptedhash == 256 and data[0] == self.rmcptag:
            self.attemptedhash = 1
            self._open_rmcpplus_request()
            return None
        return super()._got_rmcp_response(data)


IPMI_15 = "speaks IPMI 1.5 only"


def single_threaded() -> None:
    """Wait in the thread that asks. pyghmi's own thread loses answers that come before somebody waits for them: each
    then takes the half second until a repetition (a whole minute for the sensors of a Dell R630 next door).
    """

    def io_wait(timeout: float, _address: object = None, _queue: object = None) -> None:
        select.select(session.iosockets, (), (), max(timeout, 0))
        session._io_graball(session.iosockets, {})  # noqa: SLF001

    session.iothread = object()  # there is one: none is started
    session.iothreadready = True
    session._io_wait = io_wait  # noqa: SLF001
