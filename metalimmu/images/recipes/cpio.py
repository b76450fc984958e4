"""An initramfs: a cpio archive in the format `newc` (cpio(5)), the same bytes for the same files."""

from __future__ import annotations

import stat
from collections.abc import Mapping

from metalimmu.images.recipes.release import Laid


def archive(files: Mapping[str, Laid], epoch: int) -> bytes:
    """Files and links by path without leading slash, root's; the folders that they need are made."""
    folders = {"/".join(p.split("/")[: i + 1]) for p in files for i in range(p.count("/"))}
    members = dict.fromkeys(folders, (stat.S_IFDIR | 0o755, b""))
    for path, laid in files.items():
        mode = stat.S_IFLNK | 0o777 if laid.link else stat.S_IFREG | laid.mode
        members[path] = (mode, laid.link.encode() or laid.data)
    out = bytearray()
    for number, (path, (mode, data)) in enumerate(sorted(members.items()), start=1):
        links = 2 if stat.S_ISDIR(mode) else 1
        out += _member(path, data, number, mode, 0, 0, links, epoch)
    out += _member("TRAILER!!!", b"", 0, 0, 0, 0, 1, 0)
    return bytes(out.ljust(-(-len(out) // 512) * 512, b"\0"))


def _member(path: str, data: bytes, *head: int) -> bytes:
    """`head`: inode, mode, uid, gid, links, mtime."""
    name = path.encode() + b"\0"
    fields = (*head, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % f for f in fields) + name
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)
