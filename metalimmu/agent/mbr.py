"""Partition tables of the old kind: read, and one primary partition added. Pure functions on bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from metalimmu.errors import DiskUnsuitable

FAT16_LBA = 0x0E
ESP = 0xEF
_EXTENDED = frozenset({0x05, 0x0F, 0x85})


@dataclass(frozen=True)
class MbrPartition:
    index: int  # 0 to 3
    type: int
    first: int  # sector
    sectors: int


def partitions(mbr: bytes) -> tuple[MbrPartition, ...]:
    """The primary ones; none when there is no table. A boot sector of a bare file system also ends in 55 AA: a
    status byte other than 0 or 0x80 tells it from a table.
    """
    if len(mbr) < 512 or mbr[510:512] != b"\x55\xaa" or any(mbr[at] & 0x7F for at in range(446, 510, 16)):
        return ()
    found = []
    for i in range(4):
        kind, first, sectors = _entry(mbr, i)
        if kind and sectors and kind not in _EXTENDED:
            found.append(MbrPartition(i, kind, first, sectors))
    return tuple(found)


def end(mbr: bytes) -> int:
    """The first sector after all partitions, extended ones too."""
    entries = (_entry(mbr, i) for i in range(4))
    return max((first + sectors for kind, first, sectors in entries if kind), default=0)


def add(mbr: bytes, first: int, sectors: int, kind: int = FAT16_LBA) -> bytes:
    """Raises DiskUnsuitable when all four are taken, or it overlaps, or lies beyond what 32 bits reach."""
    if first + sectors > 1 << 32:
        raise DiskUnsuitable("an MBR partition table cannot reach the disk's end (beyond 2^32 sectors)")
    if first < end(mbr):
        raise DiskUnsuitable(f"sector {first} lies inside of the image's partitions, which end at {end(mbr)}")
    free = [i for i in range(4) if not _entry(mbr, i)[0]]
    if not free:
        raise DiskUnsuitable(
            "the image's MBR has four primary partitions, so the seed partition finds no place",
            hint="build the image with a seed partition, or with a GPT",
        )
    at = 446 + 16 * free[0]
    chs = b"\xfe\xff\xff"  # "use the sector numbers"
    entry = b"\0" + chs + bytes([kind]) + chs + struct.pack("<II", first, sectors)
    return mbr[:at] + entry + mbr[at + 16 :]


def _entry(mbr: bytes, index: int) -> tuple[int, int, int]:
    at = 446 + 16 * index
    first, sectors = struct.unpack_from("<II", mbr, at + 8)
    return mbr[at + 4], first, sectors
