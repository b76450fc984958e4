"""The process behind an IPMI driver, seen from the driver: jobs go in as lines of JSON, answers come out as lines of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from metalimmu import log
from metalimmu.bmc.answers import clean
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import LoginLedger
from metalimmu.errors import (
    BmcBroken,
    BmcBusy,
    BmcError,
    BmcLoginNotTried,
    BmcLoginRefused,
    BmcNotPermitted,
    BmcUnreachable,
    BmcUnsupported,
)

LOG = log.get("bmc.ipmi")
LONGEST_LINE = 4 << 20
GOODBYE = 5.0
"""Seconds for the log-out at `close`; one that the BMC does not answer takes less than two."""

Line = dict[str, Any]


class IpmiProcess:
    """Started by the first job. `who`: the first line, see the module that is run. Not for several threads."""

    def __init__(self, module: str, who: dict[str, Any]) -> None:
        self._module = module
        self._who = who
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def ask(self, job: dict[str, Any], seconds: float) -> tuple[dict[str, Line], str]:
        """Answers by part, and why there are not all of them: empty, or how it ended."""
        process = self._running()
        lines: dict[str, Line] = {}
        if not _put(process, job):
            return lines, self._ended()
        try:
            for line in self._lines(process, time.monotonic() + seconds):
                if line["part"] == "end":
                    return lines, ""
                lines[line["part"]] = line
        except TimeoutError:
            self._kill()
            return lines, f"within {seconds:.0f} s"
        except BaseException:  # interrupted: what still comes is no answer to the next job
            self.close()
            raise
        return lines, self._ended()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._ended()
        if self._process is None:
            self._process, self._buffer = start(self._module), b""
            _put(self._process, self._who)  # the password goes by standard input
        return self._process

    def _lines(self, process: subprocess.Popen[bytes], deadline: float) -> Iterator[Line]:
        """Until the output ends. Raises TimeoutError. What is no line of ours is passed over: pyghmi prints in places."""
        out = _pipe(process.stdout)
        poll = select.poll()
        poll.register(out, select.POLLIN)
        while True:
            text, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if found := _line(text):
                    yield found
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError
            more = os.read(out.fileno(), 65536)
            if not more:
                return
            self._buffer = (self._buffer + more)[-LONGEST_LINE:]

    def _ended(self) -> str:
        process = self._process
        if process is None:
            return ""
        self.close()
        return f"(its process ended with {process.returncode})"

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self.close()

    def close(self) -> None:
        """The end of its input is its order to log out and go. Never raises."""
        process, self._process = self._process, None
        if process is None:
            return
        pipe = _pipe(process.stdin)
        try:
            pipe.close()
        except OSError:
            LOG.debug("the IPMI process had ended before")
        try:
            process.wait(GOODBYE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()
        with _pipe(process.stderr) as words:
            if said := words.read():
                LOG.debug("the IPMI process said: %s", said[-2000:].decode(errors="replace"))


def start(module: str) -> subprocess.Popen[bytes]:
    # -P: nothing is imported from the folder in which somebody happens to stand. Own group: Ctrl-C is for us, and we end it.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        process_group=0,
    )


def _put(process: subprocess.Popen[bytes], message: dict[str, Any]) -> bool:
    """False: it has ended."""
    try:
        _pipe(process.stdin).write(json.dumps(message).encode() + b"\n")
    except OSError:
        return False
    return True


def _pipe(file: IO[bytes] | None) -> IO[bytes]:
    assert file is not None  # noqa: S101  all three are pipes
    return file


def _line(text: bytes) -> Line | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("part"), str) else None


# logging in


def who(address: tuple[str, int], credentials: Credentials) -> dict[str, Any]:
    """The first line that all these processes take."""
    host, port = address
    return {"address": host, "port": port, "username": credentials.username, "password": credentials.password}


def allowed(base: str, credentials: Credentials | None, ledger: LoginLedger) -> Credentials:
    """Raises BmcLoginNotTried where there is nothing to log in with, or where this was refused before."""
    if credentials is None:
        raise BmcLoginNotTried(
            f"{base} wants a login, and this host has no credentials",
            hint="set `credentials` of the host, or a `match` rule in site.yaml",
        )
    when = ledger.refused(base, credentials.version)
    if when is not None:
        raise BmcLoginNotTried(
            f"{base} refused user {credentials.username!r} with this password before ({when}); "
            "it is not tried again until they change"
        )
    return credentials


def logged_in(base: str, line: Line, credentials: Credentials, ledger: LoginLedger) -> None:
    """Raises the error that the answer `login` is; a refusal is remembered."""
    reason, why = line.get("reason"), clean(str(line.get("error")), 200)
    if reason:
        raise _failure(base, str(reason), why, credentials, ledger)


def _failure(base: str, reason: str, why: str, credentials: Credentials, ledger: LoginLedger) -> BmcError:
    if reason == "refused":
        ledger.record_refusal(base, credentials.version, time.time())
        return BmcLoginRefused(f"{base} refused user {credentials.username!r}: {why}")
    if reason == "no rights":
        return BmcNotPermitted(
            f"{base} gives user {credentials.username!r} no Operator rights: {why}",
            hint="set the user's channel privilege limit to Operator; `metalimmu bmc roles ipmi` says how",
        )
    if reason == "unsupported":
        return BmcUnsupported(f"{base}: {why}", hint="IPMI 2.0 (lanplus) with cipher suite 3 or 17 is needed")
    if reason == "busy":
        return BmcBusy(f"{base}: {why}", hint="close other IPMI sessions, or wait until they end by themselves")
    if reason == "unreachable":
        return BmcUnreachable(
            f"{base}: no answer on its UDP port",
            hint="is IPMI over LAN switched on in the BMC? Is UDP let through? Is the address right?",
        )
    return BmcBroken(f"{base}: {why}")
