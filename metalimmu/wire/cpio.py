"""cpio archives in the "newc" form that Linux unpacks as initramfs (kernel documentation, `initramfs-buffer-format`).

Pure functions on bytes: the ramdisk's own archive and the few kilobytes that the boot media brings are made the same way.
The same entries always give the same bytes: owner 0:0, time 0, inodes counted.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

ALIGN = 4
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file, directory or symlink. `path` is relative, without a leading slash."""

    path: str
    mode: int  # file type and permissions, as in st_mode
    data: bytes = b""  # the target, for a symlink
    device: tuple[int, int] = (0, 0)  # major, minor of a device node


def directory(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | mode, device=(major, minor))


def pack(entries: Iterable[Entry]) -> bytes:
    """The archive with its trailer; a multiple of 4 bytes, so that another archive can follow at once."""
    parts: list[bytes] = []
    for inode, entry in enumerate(entries, start=1):
        parts.append(_record(entry, inode))
    parts.append(_record(Entry(TRAILER, 0), 0))
    return b"".join(parts)


def around(path: str, size: int, mode: int = 0o644) -> tuple[bytes, bytes]:
    """What stands before and after the `size` bytes of one file, so that they need not be read to be sent in an archive.

    Raises ValueError for a file that the form cannot hold.
    """
    if size >= 1 << 32:
        raise ValueError(f"{path} has {size} bytes; a newc archive holds files below 4 GiB")
    name = path.encode() + b"\0"
    head = _padded(_header(Entry(path, stat.S_IFREG | mode), 1, size, len(name)) + name)
    return head, b"\0" * (-size % ALIGN) + _record(Entry(TRAILER, 0), 0)


def _record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    return _padded(_header(entry, inode, len(entry.data), len(name)) + name) + _padded(entry.data)


def _header(entry: Entry, inode: int, size: int, name: int) -> bytes:
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, size, 0, 0, *entry.device, name, 0)
    return b"070701" + b"".join(b"%08X" % value for value in fields)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGN)
