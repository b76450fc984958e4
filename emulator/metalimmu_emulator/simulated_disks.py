"""What a simulated agent does with its one disk beside writing it: in memory, and so quick that only its traces matter."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from metalimmu.wire.messages import Assignment

CAN = ("erase", "salvage", "burn-in")  # with one disk there is nothing to keep, and nothing to mirror
LOG = "var/log/messages"


class Platter(Protocol):
    """A simulated_agent.Platter, as far as it matters here."""

    chunks: dict[int, str]
    complete: str


def prepare(
    task: Assignment, disk: Platter, phase: Callable[[str], None], put: Callable[[str, bytes], None]
) -> dict[str, Any]:
    """Fields of the report."""
    found: dict[str, Any] = {}
    if task.burn_in:
        phase("burn-in")
        found["burn_in"] = {"cpu": 1e9, "cpu_errors": 0.0, "memory_errors": 0.0}
    if task.salvage and not task.begun:
        phase("salvage")
        if disk.complete:  # a system has run from it
            put("/v1/salvage/vda2", _archive(f"the last words of {disk.complete}\n".encode()))
        found["salvaged"] = ("/dev/vda2 (simulated): 1 files",) if disk.complete else ("/dev/vda: no file system",)
    if any(rule.disk is None for rule in task.erase):
        phase("erase")
        disk.chunks.clear()
        found["erased"] = ("/dev/vda: zeros",)
    return found


def _archive(content: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo(LOG)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return zstandard.ZstdCompressor().compress(raw.getvalue())
