"""What is on a disk: file systems, RAID metadata, tables. Read by ourselves: a few sectors, no udev, no cache.

Offsets and magics are those of util-linux's libblkid, whose `blkid -p` the tests compare with.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from metalimmu.agent import gpt, mbr
from metalimmu.errors import DiskUnsuitable

Read = Callable[[int, int], bytes]  # offset, length -> bytes; shorter at the end

HEAD = 128 << 10  # bytes that hold every magic counted from a device's start, but btrfs and zfs lie within too
RAID_TYPES = frozenset({"linux_raid_member", "isw_raid_member", "ddf_raid_member", "lsi_mega_raid_member"})


@dataclass(frozen=True)
class Signature:
    type: str  # libblkid's word: ext4, vfat, linux_raid_member, gpt, ...
    offset: int  # of the device or partition within the disk, bytes
    spots: tuple[tuple[int, int], ...] = ()  # (offset within the disk, length) that make it recognised
    label: str = ""
    uuid: str = ""
    partition: int = 0  # from 1; 0: the whole disk
    esp: bool = False  # lies in an EFI system partition

    def __str__(self) -> str:
        words = [self.type, f"LABEL={self.label}" if self.label else "", f"UUID={self.uuid}" if self.uuid else ""]
        where = f"partition {self.partition}" if self.partition else ""
        return " ".join(w for w in (*words, "(ESP)" if self.esp else "", where) if w)


def scan(read: Read, size: int, sector: int) -> list[Signature]:
    """All of a disk: the disk itself and its GPT or primary MBR partitions."""
    head = read(0, max(HEAD, 64 * sector))
    found = list(probe(read, 0, size, sector))
    for number, first, length, guid, esp in _partitions(head, sector, found):
        if 0 < first < size and length > 0:
            if guid:  # known by the table's headers: a GUID cannot be taken out of a table without breaking it
                table = next(s for s in found if s.type == "gpt")
                found.append(Signature("partition", first, table.spots, uuid=guid, partition=number, esp=esp))
            found += [_placed(s, number, esp) for s in probe(read, first, min(length, size - first), sector)]
    return found


def _placed(s: Signature, number: int, esp: bool) -> Signature:
    return Signature(s.type, s.offset, s.spots, s.label, s.uuid, number, esp)


def _partitions(head: bytes, sector: int, found: list[Signature]) -> Iterator[tuple[int, int, int, str, bool]]:
    """Number, first byte, bytes, GUID, is it an ESP; a GPT is added to `found`."""
    try:
        table = gpt.parse(head, sector)
    except DiskUnsuitable:
        for old in mbr.partitions(head):
            yield old.index + 1, old.first * sector, old.sectors * sector, "", old.type == mbr.ESP
        return
    ends = ((sector, 8), (table.alternate * sector, 8))
    found.append(Signature("gpt", 0, ends, uuid=str(table.disk_guid)))
    for p in table.partitions():
        yield p.index + 1, p.first * sector, (p.last - p.first + 1) * sector, str(p.guid), p.type == gpt.ESP


def probe(read: Read, start: int, size: int, sector: int) -> Iterator[Signature]:
    """One device or partition: bytes [start, start + size) of the disk."""
    head = read(start, min(HEAD, size))
    for look in (_ext, _vfat, _xfs, _btrfs, _swap, _iso9660, _luks, _lvm):
        hit = look(head)
        if hit:
            kind, at, length, label, ident = hit
            yield Signature(kind, start, ((start + at, length),), label, ident)
    yield from _md(read, start, size)
    if start == 0:
        yield from _firmware_raid(read, size, sector)


_Hit = tuple[str, int, int, str, str] | None  # type, offset of the magic, its length, label, UUID


def _ext(head: bytes) -> _Hit:
    if head[1080:1082] != b"\x53\xef" or len(head) < 2048:
        return None
    compat, incompat = struct.unpack_from("<II", head, 1024 + 92)
    kind = "ext4" if incompat & 0x2C0 else "ext3" if compat & 4 else "ext2"
    return kind, 1080, 2, _text(head[1144:1160]), str(uuid.UUID(bytes=head[1128:1144]))


def _vfat(head: bytes) -> _Hit:
    if head[510:512] != b"\x55\xaa":
        return None
    for kind, label, serial in ((82, 71, 67), (54, 43, 39)):  # FAT32, FAT12/16
        if head[kind : kind + 8] in (b"FAT32   ", b"FAT16   ", b"FAT12   ", b"FAT     "):
            number = int.from_bytes(head[serial : serial + 4], "little")
            return "vfat", 0, 512, _text(head[label : label + 11]), f"{number >> 16:04X}-{number & 0xFFFF:04X}"
    return None


def _xfs(head: bytes) -> _Hit:
    if head[:4] != b"XFSB":
        return None
    return "xfs", 0, 4, _text(head[108:120]), str(uuid.UUID(bytes=head[32:48]))


def _btrfs(head: bytes) -> _Hit:
    if head[65600:65608] != b"_BHRfS_M":
        return None
    return "btrfs", 65600, 8, _text(head[65536 + 299 : 65536 + 299 + 256]), str(uuid.UUID(bytes=head[65568:65584]))


def _swap(head: bytes) -> _Hit:
    if head[4086:4096] != b"SWAPSPACE2":
        return None
    return "swap", 4086, 10, _text(head[1052:1068]), str(uuid.UUID(bytes=head[1036:1052]))


def _iso9660(head: bytes) -> _Hit:
    return ("iso9660", 32768, 2048, _text(head[32808:32840]), "") if head[32769:32774] == b"CD001" else None


def _luks(head: bytes) -> _Hit:
    return ("crypto_LUKS", 0, 6, "", _text(head[168:208])) if head[:6] == b"LUKS\xba\xbe" else None


def _lvm(head: bytes) -> _Hit:
    for at in range(0, 2048, 512):
        if head[at : at + 8] == b"LABELONE" and head[at + 24 : at + 32] == b"LVM2 001":
            return "LVM2_member", at, 8, "", _text(head[at + 32 : at + 64])
    return None


def _md(read: Read, start: int, size: int) -> Iterator[Signature]:
    """Linux software RAID: superblock 0.90 and 1.0 at the end, 1.1 and 1.2 at the start."""
    sectors = size // 512
    places = [(0, "1.1"), (4096, "1.2")]
    if sectors >= 32:
        places.append((((sectors - 16) & ~7) * 512, "1.0"))
    if size >= 131072:
        places.append(((size & ~0xFFFF) - 65536, "0.90"))
    for at, version in places:
        block = read(start + at, 64)
        if block[:4] in (b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc") and (block[4:8] == b"\1\0\0\0") == (
            version != "0.90"
        ):
            name = _text(block[32:64]) if version != "0.90" else ""
            ident = str(uuid.UUID(bytes=block[16:32])) if version != "0.90" else ""
            yield Signature("linux_raid_member", start, ((start + at, 4),), name, ident)


def _firmware_raid(read: Read, size: int, sector: int) -> Iterator[Signature]:
    """RAID of firmware and controllers, at a whole disk's end: Intel (IMSM), SNIA DDF, LSI MegaRAID."""
    places = {
        (size - 2 * sector, b"Intel Raid ISM Cfg Sig. ", "isw_raid_member"),
        (size - sector, b"\xde\x11\xde\x11", "ddf_raid_member"),
        (size - 512, b"\xde\x11\xde\x11", "ddf_raid_member"),
        (size - 257 * 512, b"\xde\x11\xde\x11", "ddf_raid_member"),  # Adaptec puts it there
        (size - 512, b"$XIDE$", "lsi_mega_raid_member"),
    }
    for at, magic, kind in sorted(places):
        if at >= 0 and read(at, len(magic)) == magic:
            yield Signature(kind, 0, ((at, len(magic)),))


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
