"""Processes known by number *and* start time, so that a number used again never costs a stranger its life."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessId:
    pid: int
    started: int  # field 22 of /proc/PID/stat, clock ticks since boot (proc(5))


def identify(pid: int) -> ProcessId | None:
    """None when there is no such process, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123  # one read of /proc
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else ProcessId(pid, int(fields[19]))


def alive(process: ProcessId | None) -> bool:
    return process is not None and identify(process.pid) == process


def end(process: ProcessId, *, grace: float) -> None:
    """SIGTERM, after `grace` seconds SIGKILL; returns when it is gone (or 10 s after SIGKILL)."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if not alive(process):  # looked at after the pidfd was opened: it cannot change its owner any more
            return
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
            try:
                signal.pidfd_send_signal(fd, number)
            except ProcessLookupError:
                return
            if _gone(fd, patience):
                return
    finally:
        os.close(fd)


def _gone(fd: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return True
    return False
