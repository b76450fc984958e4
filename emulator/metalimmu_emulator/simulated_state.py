"""The file that a fake BMC and its simulated machine share, as metalimmu.observed.machine describes it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from metalimmu.observed.machine import Machine


class State(Protocol):
    """Where a machine's state is; bmc.fake_machines' stores fit."""

    def read(self) -> Machine: ...

    def update(self, change: Callable[[Machine], Machine]) -> Machine: ...


class FileState:
    """One JSON file, replaced as a whole under a lock; parsed again only when it was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], Machine] | None = None

    def read(self) -> Machine:
        now = self._path.stat()
        mark = (now.st_ino, now.st_mtime_ns, now.st_size)
        if self._read is None or self._read[0] != mark:
            self._read = mark, Machine.from_json(self._path.read_bytes())
        return self._read[1]

    def update(self, change: Callable[[Machine], Machine]) -> Machine:
        with self._locked():
            before = Machine.from_json(self._path.read_bytes())
            after = change(before)
            if after != before:
                self._replace(after)
            return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _replace(self, machine: Machine) -> None:
        fd, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        with os.fdopen(fd, "wb") as file:
            file.write(machine.to_json())
        Path(name).replace(self._path)
