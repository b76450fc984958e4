"""A disk, opened for us alone, read and written past the page cache.

Plain files serve as disks in tests. Where O_DIRECT does not exist (tmpfs) `direct` is False, and reading past the
page cache means dropping the file's pages after a sync; the report says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from types import TracebackType
from typing import Self

from metalimmu.agent import guard
from metalimmu.errors import DiskUnsuitable

# linux/fs.h
BLKSSZGET = 0x1268
BLKGETSIZE64 = 0x80081272
BLKZEROOUT = 0x127F
FALLOC_FL_ZERO_RANGE = 0x10  # linux/falloc.h; what BLKZEROOUT is for disks, for files
MIB = 1 << 20
ZERO_STEP = 256 * MIB  # BLKZEROOUT cannot be interrupted: in pieces, so that progress is seen

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.memcmp.restype = ctypes.c_int
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


class Buffer:
    """Page-aligned memory, as O_DIRECT needs. `view` is all of it; comparing with zeros is one memcmp."""

    def __init__(self, size: int = MIB) -> None:
        self._map = mmap.mmap(-1, size)
        self.view = memoryview(self._map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def is_zero(self, length: int) -> bool:
        """The first byte is zero and each byte equals the one before it."""
        return length == 0 or (self._map[0] == 0 and _libc.memcmp(self.address, self.address + 1, length - 1) == 0)


class Device:
    """One open disk. Offsets and lengths are bytes, whole logical sectors. Raises DiskUnsuitable when I/O fails, and
    DiskKept for a disk that nothing may write.
    """

    def __init__(self, path: str, sector: int = 512) -> None:
        """O_EXCL: a disk that the kernel uses (mounted, part of an array) is refused with EBUSY."""
        self.path = path
        flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
        try:
            self.fd, self.direct = open_disk(path, flags)
        except OSError as exc:
            hint = "" if exc.errno != errno.EBUSY else "something in the ramdisk uses this disk: an array or a mount"
            raise DiskUnsuitable(f"{path}: cannot be opened for writing: {exc.strerror}", hint=hint) from exc
        self._identity = guard.identity(self.fd)
        try:
            guard.check(self._identity, "opening for writing")
        except BaseException:
            self.close()
            raise
        self.is_block = stat.S_ISBLK(os.fstat(self.fd).st_mode)
        self.sector = _ioctl_int(self.fd, BLKSSZGET, 4) if self.is_block else sector
        self.size = _ioctl_int(self.fd, BLKGETSIZE64, 8) if self.is_block else os.fstat(self.fd).st_size

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` (of a Buffer, or any when not direct)."""
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as exc:
                raise self._broken("reading", offset + done, exc) from exc
            if not got:
                raise DiskUnsuitable(f"{self.path}: ends at byte {offset + done}, its size said {self.size}")
            done += got

    def write_from(self, view: memoryview, offset: int) -> None:
        guard.check(self._identity, f"{len(view)} bytes at {offset}")
        done = 0
        while done < len(view):
            try:
                done += os.pwritev(self.fd, [view[done:]], offset + done)
            except OSError as exc:
                raise self._broken("writing", offset + done, exc) from exc

    def read(self, offset: int, length: int) -> bytes:
        """Any offset and length: widened to sectors."""
        start = offset - offset % self.sector
        end = -(-(offset + length) // self.sector) * self.sector
        buffer = Buffer(end - start)
        self.read_into(buffer.view, start)
        return bytes(buffer.view[offset - start : offset - start + length])

    def write(self, offset: int, data: bytes) -> None:
        """Whole sectors."""
        if offset % self.sector or len(data) % self.sector:
            raise ValueError(f"{offset}+{len(data)} is not whole sectors of {self.sector}")
        buffer = Buffer(len(data))
        buffer.view[:] = data
        self.write_from(buffer.view, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make bytes zero. BLKZEROOUT is a guarantee (a discard is not); the kernel writes zeros where the disk has
        no command for it.
        """
        if not length:
            return
        guard.check(self._identity, f"{length} zeros at {offset}")
        if not self.is_block:
            self._zero_file(offset, length)
            return
        try:
            fcntl.ioctl(self.fd, BLKZEROOUT, struct.pack("=QQ", offset, length))
        except OSError as exc:
            raise self._broken("zeroing", offset, exc) from exc

    def _zero_file(self, offset: int, length: int) -> None:
        if not _libc.fallocate(self.fd, FALLOC_FL_ZERO_RANGE, offset, length):
            return
        zeros = Buffer(min(MIB, length))
        for at in range(offset, offset + length, MIB):
            self.write_from(zeros.view[: min(MIB, offset + length - at)], at)

    def command(self, request: int, argument: bytearray) -> int:
        """A command of the disk itself that may change what it holds; its answer is in `argument`. Raises OSError."""
        guard.check(self._identity, "a command of the disk")
        return int(fcntl.ioctl(self.fd, request, argument))

    def flush(self) -> None:
        """To stable storage (O_DIRECT still leaves the disk's own cache), and out of the page cache."""
        try:
            os.fsync(self.fd)
        except OSError as exc:
            raise self._broken("flushing", 0, exc) from exc
        if not self.direct:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _broken(self, doing: str, offset: int, exc: OSError) -> DiskUnsuitable:
        return DiskUnsuitable(
            f"{self.path}: {doing} at byte {offset} failed: {exc.strerror}",
            hint="the disk or its controller is broken: look at SMART data and the machine's log, replace it",
        )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_disk(path: str, flags: int) -> tuple[int, bool]:
    """The file descriptor, and whether it reads and writes past the page cache. Raises OSError."""
    try:
        return os.open(path, flags | os.O_DIRECT), True
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # tmpfs before Linux 6.6 has no O_DIRECT
            raise
    return os.open(path, flags), False


def _ioctl_int(fd: int, request: int, size: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, request, bytes(size)), "little")
