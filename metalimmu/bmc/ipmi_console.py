"""A machine's serial console over IPMI (serial over LAN), for whoever has a terminal: bytes out, bytes in."""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from metalimmu.bmc import credentials as secrets
from metalimmu.bmc.answers import clean
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ipmi import parse, reachable
from metalimmu.bmc.ipmi_process import GOODBYE, allowed, logged_in, start, who
from metalimmu.bmc.ledger import PROCESS, LoginLedger
from metalimmu.bmc.ports import Target
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.errors import BmcBroken, BmcBusy, BmcError, BmcNotPermitted, BmcUnreachable, BmcUnsupported

OPEN_SECONDS = 75.0
"""For up to three logins, each with its own time limit in the process."""
LARGEST_FRAME = 1024


class IpmiConsole:
    """Open, and somebody's until `close`. Not for several threads."""

    def __init__(self, process: subprocess.Popen[bytes], base: str, *, view: bool) -> None:
        self._process = process
        self._base = base
        self._words = _Lines(process)
        self.view = view
        self.ended = ""
        """Why there will be no more output."""

    @classmethod
    def open(cls, target: Target, *, view: bool, folder: Path | None = None, ledger: LoginLedger | None = None) -> Self:
        """Waits until the BMC has given the console. `view`: never to send a character, which the process sees to.
        Raises BmcError, SecretError, UsageError.
        """
        address = parse(target.bmc)
        reachable(target)
        base, ledger = target.bmc.rstrip("/"), ledger or PROCESS
        login = secrets.read(target.credentials, folder=folder) if target.credentials else None
        login = allowed(base, login, ledger)
        found = cls(start("metalimmu.bmc.ipmi_sol"), base, view=view)
        try:
            found._put(json.dumps(who(address, login) | {"view": view}).encode() + b"\n")
            found._opened(login, ledger)
        except BaseException:
            found.close()
            raise
        return found

    def _opened(self, login: Credentials, ledger: LoginLedger) -> None:
        line = self._words.next(time.monotonic() + OPEN_SECONDS)
        if line["part"] == "login":
            logged_in(self._base, line, login, ledger)
        if line["part"] != "sol" or line.get("reason"):
            raise _refused(self._base, line)

    def fileno(self) -> int:
        """Readable when `read` has something."""
        assert self._process.stdout  # noqa: S101  a pipe
        return self._process.stdout.fileno()

    def read(self) -> bytes:
        """Blocks if there is nothing. Empty: it has ended, see `ended`."""
        data = os.read(self.fileno(), 65536)
        if not data:
            self.ended = self._why()
        return data

    def write(self, data: bytes) -> None:
        for begin in range(0, len(data), LARGEST_FRAME):
            self._frame(b"d", data[begin : begin + LARGEST_FRAME])

    def send_break(self) -> None:
        """As the key of that name does: SysRq on a Linux console."""
        self._frame(b"b", b"")

    def _frame(self, kind: bytes, data: bytes) -> None:
        if self.view:
            raise BmcUnsupported("this console is looked at only", hint="open it without --read-only")
        self._put(kind + struct.pack(">H", len(data)) + data)

    def _put(self, data: bytes) -> None:
        assert self._process.stdin  # noqa: S101  a pipe
        with contextlib.suppress(OSError):  # it has ended: `read` says why
            self._process.stdin.write(data)

    def _why(self) -> str:
        try:
            while True:
                line = self._words.next(time.monotonic() + 1)
                if line["part"] == "end":
                    return clean(str(line.get("data")), 200)
        except BmcError:
            return "its process has ended"

    def close(self) -> None:
        """Gives the console back and logs out. Never raises."""
        process = self._process
        for pipe in (process.stdin, process.stdout):  # what it still has to say nobody hears
            with contextlib.suppress(OSError):
                assert pipe  # noqa: S101
                pipe.close()
        try:
            process.wait(GOODBYE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr  # noqa: S101
        process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Lines:
    """Lines of JSON on standard error."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr  # noqa: S101  a pipe
        self._file: IO[bytes] = process.stderr
        self._data = b""

    def next(self, deadline: float) -> dict[str, Any]:
        """Raises BmcTimeout, BmcBroken when there are no more."""
        while True:
            text, newline, rest = self._data.partition(b"\n")
            if newline:
                self._data = rest
                with contextlib.suppress(ValueError):
                    found = json.loads(text)
                    if isinstance(found, dict) and "part" in found:
                        return found
                continue
            poll = select.poll()
            poll.register(self._file, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise BmcTimeout("the console was not opened in time")
            more = os.read(self._file.fileno(), 65536)
            if not more:
                raise BmcBroken(f"the console's process has ended: {self._data[-300:].decode(errors='replace')}")
            self._data = (self._data + more)[-65536:]


def _refused(base: str, line: dict[str, Any]) -> BmcError:
    reason, text = line.get("reason"), f"{base}: {clean(str(line.get('error', '')), 200)}"
    if reason == "busy":
        return BmcBusy(text, hint="a console is for one at a time: end the other, or `ipmitool sol deactivate`")
    if reason == "unsupported":
        return BmcUnsupported(text, hint="switch serial over LAN on in the BMC, and console redirection in the BIOS")
    if reason == "not permitted":
        return BmcNotPermitted(text, hint="give the account the rights that the BMC's serial over LAN wants")
    if reason == "unreachable":
        return BmcUnreachable(text)
    return BmcBroken(text)
