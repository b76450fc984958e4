"""Serial over LAN with one BMC: a process between two pipes, with pyghmi's console.

Standard input: one line of JSON (address, port, username, password, view: look without typing), then frames: ``d`` or ``b``
(characters, or a break), two bytes of length, characters. Standard output: what the console says, byte for byte. Standard
error: lines of JSON as `ipmi_worker` has them: ``login``, ``sol`` (it is active, or why not), ``note``, ``end``.
The console is given back, and the session closed, when the input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import struct
import sys
import threading
import time
from typing import Any

from pyghmi.exceptions import IpmiException
from pyghmi.ipmi.console import Console
from pyghmi.ipmi.private import session as pyghmi_session
from pyghmi.ipmi.private.util import get_ipmi_error

from metalimmu.bmc.ipmi_guard import (
    ADMINISTRATOR,
    OPERATOR,
    TYPING,
    USER,
    VIEWING,
    Session,
    Unanswered,
    single_threaded,
)
from metalimmu.bmc.ipmi_worker import login_failure

SOL, FIRST = 1, 1  # payload type and instance
AUTHENTICATED_ENCRYPTED = 0xC0
STANDARD_PORT = 623
LOGIN_SECONDS = 20.0
MOST = 200
"""Characters in a packet, though a BMC may allow more: some count their own header, some do not."""
_CODES = {
    0x80: ("busy", "another session has the console"),
    0x81: ("unsupported", "serial over LAN is switched off in the BMC"),
    0x82: ("busy", "the BMC has no room for one more console"),
    0x83: ("unsupported", "the BMC has no encrypted console"),
    0x84: ("unsupported", "the BMC wants an unencrypted console"),
    0xC1: ("unsupported", "the BMC has no serial over LAN"),
}
_TOO_LITTLE = frozenset({0xD4, 0x85})  # insufficient privilege level


class NoConsole(Exception):
    def __init__(self, code: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.code, self.reason = code, reason


class Sol(Console):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's flow of characters and receipts, over a session with our gate."""

    def __init__(self, session: Session, port: int, out: int) -> None:
        """Pyghmi's own would log in, as Administrator."""
        self.outputlock = threading.RLock()
        self.keepaliveid: Any = None
        self.connected = self.broken = self.activated = self.awaitingack = False
        self.remseq = self.lastsize = self.retriedpayload = 0
        self.myseq = secrets.randbelow(
            15
        )  # ipmi_sim takes a first packet with the last number of before for a repetition
        self.pendingoutput: list[Any] = []
        self.force_session = False
        self.port = port
        self.ipmi_session = session
        self.out_handler = self._said
        self.ended = ""
        self._out = out

    def activate(self) -> None:
        """Activate Payload (24.1). Raises NoConsole, IpmiException."""
        session = self.ipmi_session
        asked = (SOL, FIRST, AUTHENTICATED_ENCRYPTED, 0, 0, 0)
        answer = session.raw_command(netfn=0x06, command=0x48, data=asked)
        code = answer["code"]
        if code:
            reason, text = _CODES.get(code, ("broken", get_ipmi_error(answer) or f"completion code {code:#x}"))
            raise NoConsole(code, "not permitted" if code in _TOO_LITTLE else reason, text)
        data = bytes(answer["data"])
        if len(data) < 10:
            raise NoConsole(0, "broken", f"the BMC's answer is {data.hex()}")
        # Some have the port the wrong way round; behind a port forwarding it is another than ours.
        little, big = struct.unpack("<H", data[8:10])[0], struct.unpack(">H", data[8:10])[0]
        if not {little, big} & {self.port, STANDARD_PORT}:
            raise NoConsole(0, "unsupported", f"the console is on UDP port {little}, not on that of the session")
        self.maxoutcount = max(1, min(MOST, struct.unpack("<H", data[4:6])[0] - 4))
        self.activated = self.connected = True
        session.sol_handler = self._got_sol_payload
        instance = {"netfn": 0x06, "command": 0x4B, "data": (SOL, FIRST)}
        self.keepaliveid = session.register_keepalive(cmd=instance, callback=self._got_payload_instance_info)

    def _got_payload_instance_info(self, response: dict[str, Any]) -> None:
        """Asked each half minute. That a BMC does not know the command does not mean that the console is gone."""
        if response.get("code") in (0xC1, 0xCC, 0xD4):
            return
        super()._got_payload_instance_info(response)

    def _said(self, data: Any) -> None:
        if isinstance(data, dict):
            if "error" in data:
                self.ended = str(data["error"])
            else:
                say("note", data=str(data.get("info", data)))
            return
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]

    @property
    def ready(self) -> bool:
        """All that was typed has its receipt. pyghmi sends what waits from inside a receipt, deeper with each packet."""
        return self.connected and not self.awaitingack and not self.pendingoutput


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # pyghmi prints in places
    job = json.loads(_line())
    single_threaded()
    console = None
    try:
        console = _open(job, out)
        if console is not None:
            say("sol", data={})
            _serve(console)
            say("end", data=console.ended)
    except BrokenPipeError:
        pass  # whoever listened has gone
    except Unanswered:
        say("end", data="the BMC does not answer any more")
    finally:
        if console is not None:
            with contextlib.suppress(Exception):
                _close(console)


def _open(job: dict[str, Any], out: int) -> Sol | None:
    """With the least rights that this BMC wants for its console, which is a setting of it: User, Operator, Administrator."""
    ladder = (USER, OPERATOR, ADMINISTRATOR) if job["view"] else (OPERATOR, ADMINISTRATOR)
    for rights in ladder:
        try:
            session = Session.open(
                job["address"],
                job["port"],
                job["username"],
                job["password"],
                gate=VIEWING if job["view"] else TYPING,
                rights=rights,
                deadline=time.monotonic() + LOGIN_SECONDS,
            )
        except Exception as exc:  # noqa: BLE001  whatever breaks in a login must be told
            say("login", error=str(exc), reason=login_failure(exc, rights))
            return None
        Session.deadline = float("inf")
        console = Sol(session, job["port"], out)
        try:
            console.activate()
        except (NoConsole, IpmiException, Unanswered) as exc:
            session.close()
            known = exc if isinstance(exc, NoConsole) else NoConsole(0, "unreachable", "no answer")
            if known.reason == "not permitted" and rights < ADMINISTRATOR:
                continue
            say("sol", error=str(known), reason=known.reason)
            return None
        return console
    return None


def _serve(console: Sol) -> None:
    typed = Typed()
    while not console.broken and not console.ended and not typed.ended:
        sockets = list(pyghmi_session.iosockets)
        wanted = [*sockets, 0] if console.ready else sockets
        ready = select.select(wanted, (), (), 0.5)[0]
        pyghmi_session.Session.wait_for_rsp(0)  # also keep-alives
        if 0 in ready:
            for kind, data in typed.read():
                if kind == b"b":
                    console.send_break()
                for start in range(0, len(data), console.maxoutcount):
                    console.send_data(data[start : start + console.maxoutcount])


def _close(console: Sol) -> None:
    session = console.ipmi_session
    if session is None:  # pyghmi lets go of one that is broken
        return
    console.close()
    session.close()


class Typed:
    """Frames from standard input."""

    def __init__(self) -> None:
        self._data = b""
        self.ended = False

    def read(self) -> list[tuple[bytes, bytes]]:
        more = os.read(0, 4096)
        self.ended = not more
        self._data += more
        found = []
        while len(self._data) >= 3:
            size = struct.unpack(">H", self._data[1:3])[0]
            if len(self._data) < 3 + size:
                break
            found.append((self._data[:1], self._data[3 : 3 + size]))
            self._data = self._data[3 + size :]
        return found


def _line() -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, 1)  # not one byte of what is typed
        if not more:
            break
        data += more
    return data


def say(part: str, *, data: Any = None, error: str = "", reason: str = "") -> None:
    line = {"part": part, "error": error, "reason": reason} if reason else {"part": part, "data": data}
    print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201  the protocol


if __name__ == "__main__":
    main()
