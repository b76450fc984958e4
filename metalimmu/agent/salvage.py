"""Files of the old system, sent to the controller before anything is written.

The old disk's file systems are mounted read-only, without replaying their journals, from a device that the kernel is told
not to write. What is sent is one tar archive per file system, compressed while it is read: nothing is kept here.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import fnmatch
import io
import os
import stat
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from metalimmu.agent.guard import BLKROSET
from metalimmu.agent.link import Link
from metalimmu.agent.signatures import Signature
from metalimmu.errors import SalvageFailed
from metalimmu.wire.messages import Disk, Salvage

OPTIONS = {"ext2": "", "ext3": "noload", "ext4": "noload", "xfs": "norecovery"}
_DRIVER = {"ext2": "ext4", "ext3": "ext4"}
_READ_ONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8  # linux/mount.h
_DETACH = 2  # umount2: even when something still looks at it
_PIECE = 1 << 18
MOST_FILES = 200_000

_libc = ctypes.CDLL(None, use_errno=True)

Mount = Callable[[str, str, str], AbstractContextManager[Path]]  # device, type, options -> where it is


@dataclass(frozen=True)
class Volume:
    """One file system of the old disk."""

    device: str  # /dev/sda2
    type: str
    name: str  # sda2

    @property
    def options(self) -> str:
        return OPTIONS[self.type]


@dataclass
class Taken:
    """What went into one archive."""

    files: int = 0
    bytes: int = 0
    left_out: int = 0
    left_bytes: int = 0
    unreadable: list[str] = field(default_factory=list)

    def told(self, volume: Volume) -> str:
        words = f"{volume.device} ({volume.type}): {self.files} files, {self.bytes / 1e6:.1f} MB"
        if self.left_out:
            words += f"; {self.left_out} files with {self.left_bytes / 1e6:.1f} MB left out: over the limit"
        if self.unreadable:
            words += f"; {len(self.unreadable)} could not be read, first {self.unreadable[0]}"
        return words


def volumes(disk: Disk, signatures: Iterable[Signature]) -> tuple[list[Volume], list[str]]:
    """File systems that can be looked into; and in words those that cannot."""
    found, others = [], []
    for s in signatures:
        device = partition(disk.path, s.partition)
        if s.type in OPTIONS:
            found.append(Volume(device, s.type, device.rpartition("/")[2]))
        elif s.type in ("btrfs", "zfs_member", "crypto_LUKS", "LVM2_member", "linux_raid_member"):
            others.append(f"{device} is {s.type}: not looked into")
    return found, others


def partition(disk: str, number: int) -> str:
    """Linux's name: a `p` before the number where the disk's name ends in a digit."""
    return disk if not number else f"{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def archive(root: Path, wanted: Salvage, taken: Taken, room: int, link: Link) -> Iterator[bytes]:
    """A tar stream (POSIX.1-2001) of what the patterns name below `root`; `room` bytes of content at most."""
    pipe = _Pipe()
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in _matching(root, wanted.paths):
            link.check()
            try:
                yield from _add(tar, pipe, root, path, taken, room)
            except OSError as exc:
                taken.unreadable.append(f"/{path.relative_to(root)} ({exc.strerror})")
            yield from pipe.take()
    yield from pipe.take()


def _add(tar: tarfile.TarFile, pipe: _Pipe, root: Path, path: Path, taken: Taken, room: int) -> Iterator[bytes]:
    found = path.lstat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return  # sockets, devices, pipes
    name = str(path.relative_to(root))
    entry = tarfile.TarInfo(name)
    entry.mode, entry.uid, entry.gid, entry.mtime = (
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime,
    )
    if stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115 - Path would tidy it
    else:
        if taken.bytes + found.st_size > room or taken.files >= MOST_FILES:
            taken.left_out += 1
            taken.left_bytes += found.st_size
            return
        with path.open("rb") as file:
            entry.size = found.st_size
            tar.addfile(entry)
            for piece in _content(file, entry.size, f"/{name}", taken):
                tar.fileobj.write(piece)
                yield from pipe.take()
        pad = -entry.size % tarfile.BLOCKSIZE
        tar.fileobj.write(bytes(pad))
        tar.offset += entry.size + pad
        taken.files += 1
        taken.bytes += entry.size
        return
    tar.addfile(entry)


def _content(file: IO[bytes], size: int, name: str, taken: Taken) -> Iterator[bytes]:
    """Always `size` bytes, zeros where the disk does not give them: the next entry must begin where it should."""
    left = size
    while left:
        try:
            piece = file.read(min(_PIECE, left))
        except OSError:
            piece = b""
        if not piece:
            taken.unreadable.append(f"{name} (its last {left} bytes)")
            break
        left -= len(piece)
        yield piece
    while left:
        piece = bytes(min(_PIECE, left))
        left -= len(piece)
        yield piece


class _Pipe(io.RawIOBase):
    """Collects what tarfile writes until somebody takes it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        parts, self._parts = self._parts, []
        data = b"".join(parts)
        if data:
            yield data


def _matching(root: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Each once, folders with all below them, in order. No symbolic link is followed: it may lead anywhere."""
    seen: set[Path] = set()
    for pattern in patterns:
        parts = [p for p in pattern.split("/") if p and p != "."]
        if ".." in parts:
            continue
        for start in _glob(root, parts):
            for path in _below(start):
                if path not in seen:
                    seen.add(path)
                    yield path


def _glob(folder: Path, parts: list[str]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    for name in _names(folder):
        if fnmatch.fnmatchcase(name, parts[0]):
            path = folder / name
            if len(parts) == 1:
                yield path
            elif path.is_dir() and not path.is_symlink():
                yield from _glob(path, parts[1:])


def _below(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for name in _names(path):
            yield from _below(path / name)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in folder.iterdir())
    except OSError:
        return []


def compressed(parts: Iterable[bytes]) -> Iterator[bytes]:
    import zstandard

    pack = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    for part in parts:
        if out := pack.compress(part):
            yield out
    yield pack.flush()


@contextlib.contextmanager
def mounted(device: str, kind: str, options: str, *, at: Path = Path("/run/metalimmu-salvage")) -> Iterator[Path]:
    """Read-only, and nothing of it may run. Raises SalvageFailed."""
    at.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = _READ_ONLY | _NOSUID | _NODEV | _NOEXEC
    with _read_only(device):
        driver = _DRIVER.get(kind, kind)
        if _libc.mount(device.encode(), str(at).encode(), driver.encode(), flags, options.encode()):
            raise SalvageFailed(f"{device} ({kind}) cannot be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            yield at
        finally:
            if _libc.umount2(str(at).encode(), 0):
                _libc.umount2(str(at).encode(), _DETACH)


@contextlib.contextmanager
def _read_only(device: str) -> Iterator[None]:
    """To the kernel: so that not even a driver's bug writes. Afterwards it is as it was."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise SalvageFailed(f"{device} cannot be opened: {exc.strerror}") from exc
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, BLKROSET, struct.pack("i", 1))
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, BLKROSET, struct.pack("i", 0))
        os.close(fd)
