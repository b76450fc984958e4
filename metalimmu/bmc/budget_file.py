"""The file behind `budget`: a table of times by BMC, mapped into every process, and locks on its bytes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from metalimmu import log

LOG = log.get("bmc")

SLOTS = 1 << 16
_SLOT = struct.Struct("<8sdd8x")  # key, due, until
_TIMES = struct.Struct("<dd")
_HEADER = 4096
_MAGIC = b"mlbudg1\n"
SIZE = _HEADER + SLOTS * _SLOT.size
PROBES = 32
NOBODY = bytes(8)
TRIES, TRY, STUCK = 50, 0.001, 5.0
"""A process that is stopped (SIGSTOP) in the few microseconds in which it has the table must not stop the others: after so
many seconds without it they go on, for the table is a courtesy and no correctness hangs on it.
"""


class BudgetFile:
    """Times are of CLOCK_MONOTONIC, which all processes of one machine share until it boots again."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lockless = False
        self.stuck_until = 0.0
        os.posix_fallocate(fd, 0, SIZE)  # a hole in a mapped file kills us when the disk is full
        self._map = mmap.mmap(fd, SIZE)
        with self.exclusive():
            header = _MAGIC + _boot().encode()
            if self._map[: len(header)] != header:
                self._map[:SIZE] = bytes(SIZE)
                self._map[: len(header)] = header

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Never raises: without its file a budget is this process's own."""
        if path is not None:
            fd = -1
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                return cls(fd)
            except (OSError, ValueError) as exc:
                if fd >= 0:
                    os.close(fd)
                why = getattr(exc, "strerror", None) or exc
                LOG.warning("%s: %s; other processes do not see what this one asks of BMCs", path, why)
        return cls(os.memfd_create("bmc-budget", os.MFD_CLOEXEC))

    @property
    def closed(self) -> bool:
        return self._map.closed

    def close(self) -> None:
        if not self.closed:
            self._map.close()
            os.close(self._fd)

    # locks: each of these is one system call

    def lock(self, place: int) -> bool:
        if self.closed:
            return True
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, place))
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if not self._lockless:
                LOG.warning("no locks on the budget's file (%s): turns are counted in this process alone", exc.strerror)
            self._lockless = True
        return True

    def unlock(self, place: int) -> None:
        if self.closed:
            return
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, place))

    def exclusive(self) -> _Exclusive:
        """The table is ours. Other threads of this process are kept out by their own lock."""
        return _Exclusive(self)

    # times

    def look(self, slot: int, key: bytes) -> int:
        """The slot of `key`, or -1 when nobody has written one. Without a lock: a slot that is being written is read
        before or after.
        """
        if slot >= 0 and self._key(slot) == key:
            return slot
        for place in _places(key):
            found = self._key(place)
            if found == key:
                return place
            if found == NOBODY:  # a slot once used stays so: it would have been taken
                return -1
        return -1

    def find(self, slot: int, key: bytes, now: float) -> int:
        """The slot of `key`, made if need be. Under `exclusive`."""
        found = self.look(slot, key)
        if found >= 0:
            return found
        # Times that have passed say nothing: such a slot is free. With all of them in use two BMCs share one.
        places = _places(key)
        free = next((s for s in places if self._key(s) == NOBODY or max(self.read(s)) < now), next(_places(key)))
        _SLOT.pack_into(self._map, _HEADER + free * _SLOT.size, key, 0.0, 0.0)
        return free

    def read(self, slot: int) -> tuple[float, float]:
        """(due, until)"""
        due, until = _TIMES.unpack_from(self._map, _HEADER + slot * _SLOT.size + 8)
        return due, until

    def write(self, slot: int, due: float, until: float) -> None:
        _TIMES.pack_into(self._map, _HEADER + slot * _SLOT.size + 8, due, until)

    def _key(self, slot: int) -> bytes:
        at = _HEADER + slot * _SLOT.size
        return self._map[at : at + 8]


class _Exclusive:
    """As a class, because it stands in the way of each request."""

    __slots__ = ("_file", "_mine")

    def __init__(self, file: BudgetFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        file = self._file
        self._mine = file.lock(0)
        if self._mine or time.monotonic() < file.stuck_until:
            return
        for _ in range(TRIES):
            time.sleep(TRY)
            self._mine = file.lock(0)
            if self._mine:
                return
        file.stuck_until = time.monotonic() + STUCK  # not again for each request

    def __exit__(self, *_: object) -> None:
        if self._mine:
            self._file.unlock(0)


def _places(key: bytes) -> Iterator[int]:
    first = int.from_bytes(key, "little")
    for i in range(PROBES):
        yield (first + i) % SLOTS


def _flock(kind: int, place: int) -> bytes:
    """Struct flock of 64-bit Linux; l_pid is 0 for open file description locks."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0)


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:  # noqa: PTH123
            return f.read().strip()
    except OSError:
        return "-"
