"""Disks that nothing may write: the role's and host's `keep`.

Twice: the kernel is told that such a disk is read-only, so that no program of the ramdisk can write it, and every write,
zeroing and command of ours asks here first, on the open file and not by a name.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from metalimmu.errors import DiskKept

BLKROSET = 0x125D  # linux/fs.h
BLKROGET = 0x125E

Identity = tuple[str, int, int]  # what one open file is, by whatever path it was opened

_kept: dict[Identity, str] = {}  # identity -> path, of disks and their partitions
_locked: set[str] = set()  # paths that we made read-only


def keep(paths: Iterable[str], root: Path = Path("/")) -> None:
    """From now on these, and no others, are not written. Raises DiskKept when that cannot be made sure."""
    wanted = tuple(paths)
    for path in _locked - set(wanted):
        _set_read_only(path, locked=False)
        _locked.discard(path)
    _kept.clear()
    for path in wanted:
        try:
            found = Path(path).stat()
        except OSError as exc:
            raise DiskKept(f"{path} is to be kept and cannot be looked at: {exc.strerror}") from exc
        _kept[_identity(found)] = path
        if stat.S_ISBLK(found.st_mode):
            _kept.update(dict.fromkeys(_partitions(found.st_rdev, root), path))
            _set_read_only(path, locked=True)
            _locked.add(path)


def identity(fd: int) -> Identity:
    return _identity(os.fstat(fd))


def check(identity: Identity, doing: str) -> None:
    """Raises DiskKept."""
    if _kept and identity in _kept:
        raise DiskKept(
            f"{_kept[identity]} is to be kept, and was about to be written ({doing}): nothing was done to it"
        )


def _identity(found: os.stat_result) -> Identity:
    if stat.S_ISBLK(found.st_mode):
        return ("block", os.major(found.st_rdev), os.minor(found.st_rdev))
    return ("file", found.st_dev, found.st_ino)


def _partitions(device: int, root: Path) -> Iterable[Identity]:
    folder = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for path in folder.glob("*/partition"):
        major, _, minor = (path.parent / "dev").read_text(encoding="ascii").strip().partition(":")
        yield ("block", int(major), int(minor))


def _set_read_only(path: str, *, locked: bool) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, BLKROSET, struct.pack("i", locked))
            now = struct.unpack("i", fcntl.ioctl(fd, BLKROGET, bytes(4)))[0]
        finally:
            os.close(fd)
    except OSError as exc:
        if locked:
            raise DiskKept(f"{path} is to be kept and cannot be made read-only: {exc.strerror}") from exc
        return
    if locked and not now:
        raise DiskKept(f"{path} is to be kept, and the kernel does not make it read-only")
