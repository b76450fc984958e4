"""Where fake machines live: in this process, or in a file that outlives it. Whole changes, one at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from metalimmu.errors import BmcBroken, BmcUnreachable
from metalimmu.observed.machine import Machine

Change = Callable[[Machine], Machine]


class MachineStore(Protocol):
    def read(self) -> Machine: ...

    def update(self, change: Change) -> Machine:
        """Apply `change` with nobody else in between, and return the state afterwards."""
        ...


class MemoryMachine:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._lock = threading.Lock()

    def read(self) -> Machine:
        return self._machine

    def update(self, change: Change) -> Machine:
        with self._lock:
            self._machine = change(self._machine)
            return self._machine


class FileMachine:
    """One JSON file; an flock on FILE.lock because FILE itself is replaced, not rewritten."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Machine:
        try:
            return Machine.from_json(self.path.read_bytes())
        except FileNotFoundError:
            raise BmcUnreachable(
                f"no fake BMC at {self.path}", hint="create one: metalimmu.bmc.fake_machines.create"
            ) from None
        except ValueError as exc:
            raise BmcBroken(f"{self.path} is not a machine's state: {exc}") from exc

    def update(self, change: Change) -> Machine:
        with self._locked():
            before = self.read()
            after = change(before)
            if after != before:
                self._replace(after)
            return after

    def create(self, machine: Machine) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._replace(machine)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise BmcUnreachable(
                f"no fake BMC at {self.path}", hint="create one: metalimmu.bmc.fake_machines.create"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _replace(self, machine: Machine) -> None:
        fd, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        with open(fd, "wb") as f:  # noqa: PTH123  the descriptor is the one mkstemp made
            f.write(machine.to_json())
        Path(name).replace(self.path)


_HERE: dict[str, MemoryMachine] = {}


def create(address: str, machine: Machine) -> MachineStore:
    """A fake BMC at `fake://NAME` or `fake:///PATH`, in this state, whatever was there before."""
    place = address.removeprefix("fake://")
    if place.startswith("/"):
        file = FileMachine(Path(place))
        file.create(machine)
        return file
    there = _HERE.setdefault(place, MemoryMachine(machine))
    there.update(lambda _: machine)
    return there


def store(address: str) -> MachineStore:
    """The machine at a `fake://` address: tests turn it off, reboot it or break it through this."""
    place = address.removeprefix("fake://")
    if place.startswith("/"):
        return FileMachine(Path(place))
    try:
        return _HERE[place]
    except KeyError:
        raise BmcUnreachable(f"no fake BMC named {place} in this process") from None
