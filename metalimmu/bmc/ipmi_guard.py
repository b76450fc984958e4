"""pyghmi's session with a gate: what leaves it is on the list of read commands, or it does not leave.

Only `ipmi_worker` imports this, in a process of its own: pyghmi keeps its sockets, its sessions and its thread in
module variables, its `select` cannot have descriptors above 1023, and its waits have no end of their own when that
thread dies. A process can be ended.
"""

from __future__ import annotations

import select
import time
from typing import Any

from pyghmi.ipmi.private import session
from pyghmi.ipmi.private.constants import payload_types

# Network function and command (IPMI 2.0, appendix G). All of them are for the User privilege level, and the session asks
# for no more than that, so the BMC itself refuses anything that changes a machine.
SESSION = {
    (0x06, 0x38): "Get Channel Authentication Capabilities",
    (0x06, 0x3B): "Set Session Privilege Level",
    (0x06, 0x3C): "Close Session",
}
READS = {
    (0x00, 0x01): "Get Chassis Status",
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
ALLOWED = frozenset(SESSION | READS)
PAYLOADS = frozenset(payload_types[name] for name in ("ipmi", "rmcpplusopenreq", "rakp1", "rakp3"))
USER = 2


class NotAllowed(Exception):
    """Not sent."""


def check(netfn: int | None, command: int | None, bridge: object = None) -> None:
    """Raises NotAllowed. Nothing is bridged either: another controller has other commands."""
    if (netfn, command) not in ALLOWED or bridge:
        name = "?" if netfn is None or command is None else f"{netfn:#04x} {command:#04x}"
        raise NotAllowed(f"IPMI command {name}{' by a bridge' if bridge else ''} is not on the list of read commands")


class OutOfTime(Exception):
    """The deadline of the whole reading has passed."""


class Session(session.Session):  # type: ignore[misc]
    """Log in with `Session.open`. `sha1`: begin with SHA-1 instead of SHA-256."""

    deadline = float("inf")
    first_hash = 256

    @classmethod
    def open(cls, address: str, port: int, username: str, password: str, deadline: float) -> Session:
        """Raises pyghmi's IpmiException."""
        cls.deadline = deadline
        return cls(bmc=address, userid=username, password=password, port=port, privlevel=USER, keepalive=False)

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
        check(netfn, command, bridge_request)
        if time.monotonic() > self.deadline:
            raise OutOfTime
        super()._send_ipmi_net_payload(netfn, command, data, code, bridge_request, **more)

    def send_payload(self, payload: Any = (), payload_type: int | None = None, *args: Any, **more: Any) -> None:
        """And every packet by here: no serial console, no OEM payload."""
        kind = self.last_payload_type if payload_type is None else payload_type
        if kind not in PAYLOADS:
            raise NotAllowed(f"IPMI payload type {kind} is not one of a session that reads")
        super().send_payload(payload, payload_type, *args, **more)

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
