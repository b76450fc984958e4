"""Run a site's program: no shell, a clean environment, a time limit that ends all that it started, output without end.

It has a session and process group of its own. What it leaves running there when it ends is ended too, as systemd does
with the processes of a unit; a daemon that is meant to stay makes a session of its own (setsid), and closes its output.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias, cast

from metalimmu.errors import HookFailed
from metalimmu.service.said import Said

FLOOD = 256 << 20  # bytes of output: more than any program has to say

_LOOK = 0.1  # seconds between looks at the process
_CHECK = 0.5  # seconds between calls of `check`
_GRACE = 2.0  # seconds from SIGTERM to SIGKILL
_LINGER = 0.5  # seconds for the rest of the output when the program has ended and others hold its pipe
_PIECE = 1 << 16

Pipe: TypeAlias = IO[bytes]


@dataclass(frozen=True)
class Ran:
    status: int | None  # exit status, negative for a signal; None: we have ended it
    ended: str  # why we have: a sentence, else empty
    output: Said
    seconds: float
    left: bool  # something was still running in its process group


def run(
    argv: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    text: bytes,
    limit: float,
    check: Callable[[], None],
) -> Ran:
    """Within `limit` seconds and 2 x `_GRACE`. Raises HookFailed when it cannot be started, and what `check` raises."""
    began = time.monotonic()
    process = _start(argv, folder, env)
    with contextlib.ExitStack() as stack:
        stack.callback(_close, process)
        stack.callback(_end_group, process)
        said = Said()
        ended = _until_end(process, said, text, limit, check)
        status = None if ended else _exit_status(process)
        left = _end_group(process)
    return Ran(status, ended, said, time.monotonic() - began, left)


def _start(argv: Sequence[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    program = str(folder / argv[0]) if "/" in argv[0] else argv[0]
    try:
        return subprocess.Popen(
            [program, *argv[1:]],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        hint = "is it in the site's folder (./NAME) or in PATH, and is the interpreter of its first line there?"
        raise HookFailed(f"{argv[0]} cannot be run: no such program", hint=hint) from exc
    except PermissionError as exc:
        raise HookFailed(f"{argv[0]} may not be executed", hint=f"chmod +x {argv[0]}") from exc
    except OSError as exc:
        hint = "a script begins with #!/bin/sh, or the like"
        raise HookFailed(f"{argv[0]} cannot be run: {exc.strerror}", hint=hint) from exc
    except ValueError as exc:
        raise HookFailed(f"{argv[0]} cannot be run: {exc}", hint="its arguments must be text without NUL") from exc


def _until_end(
    process: subprocess.Popen[bytes], said: Said, text: bytes, limit: float, check: Callable[[], None]
) -> str:
    """Feed and read until the program has ended by itself (empty), or is to be ended (why)."""
    stdin, stdout = cast("Pipe", process.stdin), cast("Pipe", process.stdout)
    to_write = memoryview(text)
    exited: float | None = None
    checked = time.monotonic()
    deadline = checked + limit
    with selectors.DefaultSelector() as selector:
        for pipe, way in ((stdin, selectors.EVENT_WRITE), (stdout, selectors.EVENT_READ)):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, way)
        reading = True
        while True:
            for key, _ in selector.select(_LOOK):
                if key.fileobj is stdin:
                    to_write = _feed(stdin, selector, to_write)
                elif not _read(stdout, said):
                    selector.unregister(stdout)
                    reading = False
            now = time.monotonic()
            if exited is None and _has_exited(process):
                exited = now
            if exited is not None and (not reading or now - exited > _LINGER):
                return ""
            if now > deadline and exited is None:
                return f"was ended after {limit:g} s, its time limit"
            if said.size > FLOOD:
                return f"was ended after {said.size >> 20} MiB of output"
            if now - checked > _CHECK:
                check()
                checked = now


def _feed(pipe: Pipe, selector: selectors.BaseSelector, left: memoryview) -> memoryview:
    """A program that does not read, or closes its input, does not hold us up."""
    try:
        left = left[os.write(pipe.fileno(), left[:_PIECE]) :]
    except BlockingIOError:
        return left
    except OSError:  # EPIPE: it does not want it
        left = left[:0]
    if not left:
        selector.unregister(pipe)
        pipe.close()
    return left


def _read(pipe: Pipe, said: Said) -> bool:
    """False at its end."""
    try:
        data = os.read(pipe.fileno(), _PIECE)
    except BlockingIOError:
        return True
    said.add(data)
    return bool(data)


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Without taking its exit status: as long as nobody has, its number and its group are no one else's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _exit_status(process: subprocess.Popen[bytes]) -> int:
    found = cast("os.waitid_result", os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT))
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _end_group(process: subprocess.Popen[bytes]) -> bool:
    """SIGTERM, then SIGKILL, to the whole group. Was anything left beside the program? A second call finds nothing."""
    if process.returncode is not None:
        return False
    group = process.pid
    deadline = time.monotonic() + _GRACE
    if not _has_exited(process):
        _signal(group, signal.SIGTERM)
        while not _has_exited(process) and time.monotonic() < deadline:
            time.sleep(0.02)
        _signal(group, signal.SIGKILL)
    process.wait()
    if not _signal(group, 0) or not _running(group):
        return False
    _signal(group, signal.SIGTERM)
    while _running(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(group, signal.SIGKILL)
    return True


def _signal(group: int, number: int) -> bool:
    """Is, or was, somebody there? Zombies count."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _running(group: int) -> bool:
    """Is there a process in the group that is no zombie? In a container nobody may collect those."""
    for pid in _processes():
        try:
            state, _, group_of = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # gone
            continue
        if int(group_of) == group and state not in "ZX":
            return True
    return False


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def end_by_variable(name: str, value: str) -> int:
    """End every process of ours whose environment has name=value: what a call of before a crash has left behind, wherever
    it went. How many they were.
    """
    wanted = f"{name}={value}".encode()
    found = [pid for pid in _processes() if pid != os.getpid() and wanted in _environment(pid)]
    for sent, pause in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if wanted in _environment(pid):
                    os.kill(pid, sent)
        deadline = time.monotonic() + pause
        while any(wanted in _environment(pid) for pid in found) and time.monotonic() < deadline:
            time.sleep(0.02)
    return len(found)


def _processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    """Empty for processes of others, and for those that are gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
