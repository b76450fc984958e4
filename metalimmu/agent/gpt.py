"""GUID partition tables (UEFI 2.10, chapter 5.3), as pure functions on bytes.

An image is smaller than the disk, so its backup table stands in the middle. Moving it to the disk's end changes the
protective MBR, the primary header and the primary entries; nothing else of the image.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass, replace

from metalimmu.errors import DiskUnsuitable

SIGNATURE = b"EFI PART"
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BASIC_DATA = uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")  # 92 bytes
_ENTRY = struct.Struct("<16s16sQQQ72s")  # 128 bytes
_PMBR_TYPE = 0xEE


class GptError(DiskUnsuitable):
    default_hint = "the image's partition table is broken: build or add the image again"


@dataclass(frozen=True)
class Partition:
    """Sectors are inclusive. `index` counts from 0; partition numbers are one more."""

    index: int
    type: uuid.UUID
    guid: uuid.UUID
    first: int
    last: int
    attributes: int = 0
    name: str = ""


@dataclass(frozen=True)
class Table:
    """A primary table. Positions are in logical sectors of `sector` bytes."""

    sector: int
    disk_guid: uuid.UUID
    alternate: int  # where the backup header is
    first_usable: int
    last_usable: int
    entries_at: int
    entry_size: int
    entries: bytes

    @property
    def entry_count(self) -> int:
        return len(self.entries) // self.entry_size

    @property
    def entries_sectors(self) -> int:
        return -(-len(self.entries) // self.sector)

    def partitions(self) -> tuple[Partition, ...]:
        found = []
        for i in range(self.entry_count):
            kind, guid, first, last, attributes, name = _ENTRY.unpack_from(self.entries, i * self.entry_size)
            if any(kind):
                label = name.decode("utf-16-le", "replace").split("\0", 1)[0]
                found.append(
                    Partition(i, uuid.UUID(bytes_le=kind), uuid.UUID(bytes_le=guid), first, last, attributes, label)
                )
        return tuple(found)


def parse(head: bytes, sector: int) -> Table:
    """From the disk's first bytes. Raises GptError: no signature, wrong checksum, or sizes that cannot be."""
    if len(head) < 2 * sector or head[sector : sector + 8] != SIGNATURE:
        raise GptError("there is no GPT: no signature in sector 1")
    raw = head[sector : 2 * sector]
    size, crc = struct.unpack_from("<II", raw, 12)
    if not 92 <= size <= sector or zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != crc:
        raise GptError("the GPT header's checksum is wrong")
    fields = _HEADER.unpack_from(raw)
    _, _, _, _, _, _, alternate, first_usable, last_usable, guid, at, count, entry_size, entries_crc = fields
    if not 1 <= count <= 4096 or entry_size not in (128, 256, 512):
        raise GptError(f"the GPT has {count} entries of {entry_size} bytes")
    entries = head[at * sector : at * sector + count * entry_size]
    if len(entries) < count * entry_size or zlib.crc32(entries) != entries_crc:
        raise GptError("the GPT entries' checksum is wrong")
    return Table(sector, uuid.UUID(bytes_le=guid), alternate, first_usable, last_usable, at, entry_size, entries)


def move_backup(table: Table, disk_sectors: int) -> Table:
    """The same partitions with the backup at the end of a disk of that size. Raises GptError when it does not fit."""
    last_usable = disk_sectors - 2 - table.entries_sectors
    end = max((p.last for p in table.partitions()), default=0)
    if end > last_usable:
        raise GptError(f"a partition ends at sector {end}, the disk's last usable one is {last_usable}")
    return replace(table, alternate=disk_sectors - 1, last_usable=last_usable)


def add(table: Table, partition: Partition) -> Table:
    """Raises GptError when it overlaps another or its slot is taken."""
    if not table.first_usable <= partition.first <= partition.last <= table.last_usable:
        raise GptError(f"partition {partition.name!r} ({partition.first}-{partition.last}) lies outside of the disk")
    for other in table.partitions():
        if other.index == partition.index or (partition.first <= other.last and other.first <= partition.last):
            raise GptError(f"partition {partition.name!r} overlaps partition {other.index + 1} {other.name!r}")
    entry = _ENTRY.pack(
        partition.type.bytes_le,
        partition.guid.bytes_le,
        partition.first,
        partition.last,
        partition.attributes,
        partition.name.encode("utf-16-le"),
    ).ljust(table.entry_size, b"\0")
    at = partition.index * table.entry_size
    return replace(table, entries=table.entries[:at] + entry + table.entries[at + table.entry_size :])


def free_index(table: Table) -> int:
    """The first slot after all partitions, so that no partition's number changes. Raises GptError when full."""
    index = max((p.index for p in table.partitions()), default=-1) + 1
    if index >= table.entry_count:
        raise GptError(f"the GPT has no free entry after its {index} partitions")
    return index


def primary(table: Table) -> dict[int, bytes]:
    """Offset in bytes -> bytes, whole sectors: header and entries."""
    header = _header(table, 1, table.alternate, table.entries_at)
    return {table.sector: header, table.entries_at * table.sector: _padded_entries(table)}


def backup(table: Table) -> dict[int, bytes]:
    """Offset in bytes -> bytes, whole sectors: the entries, then the header in the disk's last sector."""
    entries_at = table.alternate - table.entries_sectors
    header = _header(table, table.alternate, 1, entries_at)
    return {entries_at * table.sector: _padded_entries(table), table.alternate * table.sector: header}


def protective_mbr(mbr: bytes, disk_sectors: int) -> bytes:
    """The MBR with its protective entry reaching to the disk's end; boot code and other entries stay."""
    changed = bytearray(mbr)
    for at in range(446, 510, 16):
        if changed[at + 4] == _PMBR_TYPE:
            start = struct.unpack_from("<I", changed, at + 8)[0]
            struct.pack_into("<I", changed, at + 12, min(disk_sectors - start, 0xFFFFFFFF))
            return bytes(changed)
    return bytes(changed)


def _padded_entries(table: Table) -> bytes:
    return table.entries.ljust(table.entries_sectors * table.sector, b"\0")


def _header(table: Table, here: int, other: int, entries_at: int) -> bytes:
    fields = (SIGNATURE, 0x00010000, _HEADER.size, 0, 0, here, other, table.first_usable, table.last_usable)
    rest = (table.disk_guid.bytes_le, entries_at, table.entry_count, table.entry_size, zlib.crc32(table.entries))
    header = bytearray(_HEADER.pack(*fields, *rest))
    struct.pack_into("<I", header, 16, zlib.crc32(header))
    return bytes(header).ljust(table.sector, b"\0")
