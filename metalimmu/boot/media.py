"""The boot media of one deployment: the ramdisk's ISO, unchanged, with 64 KiB of its own spliced in while it is read.

The ISO has a file of zeros, `/boot/slot.cpio`, at a known offset; GRUB hands it to the kernel as a second initrd. What is
spliced in is a cpio archive with `/metalimmu/boot.json`: the controller's address and key, the deployment's token, the
machine's network. So no ISO is built per host, and any number of hosts share one file in the page cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from metalimmu.errors import ImageError
from metalimmu.wire import codec, cpio
from metalimmu.wire.messages import Boot

BOOT_JSON = "metalimmu/boot.json"
READ_SIZE = 1 << 20


def slot(boot: Boot, size: int) -> bytes:
    """A newc archive with `metalimmu/boot.json` (wire.Boot, mode 0400), padded with zeros to `size` bytes.

    Raises ImageError when it does not fit.
    """
    archive = cpio.pack([cpio.directory("metalimmu", 0o700), cpio.file(BOOT_JSON, codec.encode(boot), 0o400)])
    if len(archive) > size:
        raise ImageError(
            f"the boot data of deployment {boot.deployment} takes {len(archive)} bytes, the media's slot has {size}",
            hint="shorten the host's network settings, or build the ramdisk again with this version of metalimmu",
        )
    return archive + b"\0" * (size - len(archive))


@dataclass(frozen=True)
class FileSegment:
    """A part of the ISO's file that can go out by sendfile."""

    path: Path
    offset: int
    length: int


class SplicedIso:
    """Reads an ISO with `slot` in place of the bytes at `slot_offset`. Safe to share between threads (pread).

    Raises ImageError when the file cannot be opened or the slot does not lie inside it.
    """

    def __init__(self, path: Path, slot_offset: int, slot: bytes) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise ImageError(
                f"cannot read the ramdisk {path}: {exc.strerror}", hint="`metalimmu ramdisk build`"
            ) from exc
        self.path = path
        self.size = os.fstat(self._fd).st_size
        self._start = slot_offset
        self._end = slot_offset + len(slot)
        self._slot = slot
        if slot_offset < 0 or self._end > self.size:
            self.close()
            raise ImageError(
                f"the slot at {slot_offset} with {len(slot)} bytes is not inside {path} with {self.size} bytes",
                hint="boot.iso and ramdisk.json do not belong together: `metalimmu ramdisk build`",
            )

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def segments(self, offset: int = 0, length: int | None = None) -> list[FileSegment | bytes]:
        """The range as parts of the file and of the slot, in order; never an empty part, clipped at the end.

        Raises ValueError for a negative offset or length.
        """
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: {offset}, {length}")
        end = self.size if length is None else min(self.size, offset + length)
        parts: list[FileSegment | bytes] = []
        for start, stop in ((0, self._start), (self._start, self._end), (self._end, self.size)):
            first, last = max(offset, start), min(end, stop)
            if first >= last:
                continue
            if start == self._start and stop == self._end:
                parts.append(self._slot[first - start : last - start])
            else:
                parts.append(FileSegment(self.path, first, last - first))
        return parts

    def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end. Raises ImageError when the file became shorter."""
        return b"".join(
            part if isinstance(part, bytes) else self._read(part.offset, part.length)
            for part in self.segments(offset, length)
        )

    def blocks(self, offset: int = 0, length: int | None = None, *, block: int = READ_SIZE) -> Iterator[bytes]:
        """The range in pieces of at most `block` bytes."""
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            data = self.pread(offset, min(block, end - offset))
            yield data
            offset += len(data)

    def write_to(self, target: Path) -> None:
        """A whole copy with the slot in place, readable by its owner only: it holds the deployment's token."""
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            os.fchmod(fd, 0o600)
            for data in self.blocks():
                out.write(data)

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            data = os.pread(self._fd, min(length, READ_SIZE), offset)
            if not data:
                raise ImageError(
                    f"{self.path} ends at byte {offset}, {length} more were expected: it changed while it was served",
                    hint="build a ramdisk into a new folder while deployments run",
                )
            parts.append(data)
            offset += len(data)
            length -= len(data)
        return b"".join(parts)
