"""What a machine that boots the network fetches: kernel, initrd and squashfs straight out of the ramdisk's ISO, and its slot.

Nothing is unpacked or kept a second time: a file is a list of parts, each a range of the ISO or a few bytes. The squashfs
travels inside a cpio archive (root.cpio), so that the boot loader hands it to the kernel as one more initrd and neither the
kernel nor the initrd needs a network driver.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Self

from metalimmu.boot.media import FileSegment
from metalimmu.errors import ImageError
from metalimmu.wire import cpio

VMLINUZ, INITRD, ROOT, SLOT = "vmlinuz", "initrd", "root.cpio", "slot.cpio"
NAMES = (VMLINUZ, INITRD, ROOT, SLOT)
INITRDS = (INITRD, ROOT, SLOT)
ARGUMENTS = (
    "metalimmu.media=network console=tty0 console=ttyS0,115200 loglevel=4 panic=30"  # otherwise as pxe/ramdisk/grub.cfg
)
SQUASHFS = "root.squashfs"  # where the initrd looks for it


class Pieces:
    """Files' ranges and bytes, read as one file. Safe to share between threads (pread); SplicedIso's methods.

    Raises ImageError when a file cannot be opened or is too short.
    """

    def __init__(self, parts: Iterable[FileSegment | bytes]) -> None:
        self._parts = tuple(p for p in parts if _length(p))
        self._ends = list(accumulate(_length(p) for p in self._parts))
        self._fds: dict[Path, int] = {}
        self.size = self._ends[-1] if self._ends else 0
        try:
            for part in self._parts:
                if isinstance(part, FileSegment):
                    self._open(part)
        except ImageError:
            self.close()
            raise

    def _open(self, part: FileSegment) -> None:
        hint = "`metalimmu ramdisk build` makes it anew"
        try:
            fd = self._fds.setdefault(part.path, -1)
            if fd < 0:
                fd = self._fds[part.path] = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            size = os.fstat(fd).st_size
        except OSError as exc:
            raise ImageError(f"cannot read {part.path}: {exc.strerror}", hint=hint) from exc
        if part.offset < 0 or part.offset + part.length > size:
            raise ImageError(
                f"bytes {part.offset} to {part.offset + part.length} are not in {part.path}, which has {size}",
                hint=hint,
            )

    def segments(self, offset: int = 0, length: int | None = None) -> list[FileSegment | bytes]:
        """The range as parts of files and bytes, in order; never an empty part, clipped at the end.

        Raises ValueError for a negative offset or length.
        """
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: {offset}, {length}")
        end = self.size if length is None else min(self.size, offset + length)
        found: list[FileSegment | bytes] = []
        index = bisect_right(self._ends, offset)
        while offset < end:
            part, start = self._parts[index], self._ends[index] - _length(self._parts[index])
            first, last = offset - start, min(end, self._ends[index]) - start
            if isinstance(part, bytes):
                found.append(part[first:last])
            else:
                found.append(FileSegment(part.path, part.offset + first, last - first))
            offset, index = start + last, index + 1
        return found

    def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end. Raises ImageError when a file became shorter."""
        return b"".join(p if isinstance(p, bytes) else self._read(p) for p in self.segments(offset, length))

    def _read(self, part: FileSegment) -> bytes:
        data = os.pread(self._fds[part.path], part.length, part.offset)
        while len(data) < part.length:
            more = os.pread(self._fds[part.path], part.length - len(data), part.offset + len(data))
            if not more:
                raise ImageError(
                    f"{part.path} became shorter while it was served",
                    hint="build a ramdisk into a new folder while deployments run",
                )
            data += more
        return data

    def close(self) -> None:
        while self._fds:
            _, fd = self._fds.popitem()
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def netboot_file(name: str, iso: Path, parts: Mapping[str, list[int]], slot: bytes) -> Pieces:
    """One of NAMES. `parts`: name -> first byte and size in the ISO, as ramdisk.json has them; `slot`: see boot.media.slot.

    Raises ImageError: the ramdisk is of a version that could not boot from the network, or damaged. KeyError: no such name.
    """
    if name not in NAMES:
        raise KeyError(name)
    if name == SLOT:
        return Pieces([slot])
    key = name.removesuffix(".cpio")
    if key not in parts:
        raise ImageError(
            f"the ramdisk {iso.parent} cannot be booted from the network: it was built by an older metalimmu",
            hint="build it again: `metalimmu ramdisk build`",
        )
    offset, size = parts[key]
    inside = FileSegment(iso, offset, size)
    if name != ROOT:
        return Pieces([inside])
    head, tail = cpio.around(SQUASHFS, size)
    return Pieces([head, inside, tail])


def _length(part: FileSegment | bytes) -> int:
    return len(part) if isinstance(part, bytes) else part.length
