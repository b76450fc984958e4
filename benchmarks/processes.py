"""Programs run to their end, with the CPU that they and their children used."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ran:
    cpu: float  # user + system seconds, of the process and of those of its children that it waited for
    wall: float
    output: bytes


def run(argv: Sequence[str], *, ok: int = 0) -> Ran:
    """Raises RuntimeError when it ends with another status than `ok`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != ok:
            raise RuntimeError(
                f"{argv[0]} ended with {process.returncode}: {err.read().decode(errors='replace')[-2000:]}"
            )
        return Ran(usage.ru_utime + usage.ru_stime, wall, out.read())


def alternate(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    """A B A B …: the values of each side, round by round. One round before them warms caches and does not count."""
    values: list[list[float]] = [[] for _ in sides]
    for number in range(-1, rounds):
        for side, kept in zip(sides, values, strict=True):
            value = side()
            if number >= 0:
                kept.append(value)
    return values


def metalimmu() -> str:
    """The installed command, as a user calls it."""
    return str(Path(sys.executable).with_name("metalimmu"))
