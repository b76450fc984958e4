"""What is on a disk image: partition table, what firmware can boot it, where its seed partition is. Pure: bytes in, facts out.

GPT: UEFI specification 2.10, chapter 5. The type GUID of BIOS boot partitions is GRUB's.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from metalimmu.wire.manifest import Extent

ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
LINUX_ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"  # x86-64, Discoverable Partitions Specification
BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"

Read = Callable[[int, int], bytes]  # offset, length


@dataclass(frozen=True)
class Partition:
    offset: int  # bytes
    length: int
    kind: str  # GPT: type GUID; MBR: two hex digits
    name: str = ""
    identity: str = ""  # GPT: unique GUID


@dataclass(frozen=True)
class Layout:
    partition_table: str  # gpt | mbr | none
    sector_size: int
    partitions: tuple[Partition, ...]
    firmware: tuple[str, ...]
    seed: Extent | None
    architecture: str | None  # what the ESP's loader is for; None: nothing found

    def first(self, kind: str) -> Partition | None:
        return next((p for p in self.partitions if p.kind == kind), None)


def detect(read: Read, size: int) -> Layout:
    for sector in (512, 4096):
        parts = _gpt(read, size, sector)
        if parts is not None:
            return _judge("gpt", sector, parts, read)
    parts = _mbr(read, size)
    return _judge("mbr", 512, parts, read) if parts else Layout("none", 512, (), (), None, None)


def _gpt(read: Read, size: int, sector: int) -> tuple[Partition, ...] | None:
    header = read(sector, 92)
    if len(header) < 92 or header[:8] != b"EFI PART" or struct.unpack_from("<I", header, 12)[0] != 92:
        return None
    crc = struct.unpack_from("<I", header, 16)[0]
    if zlib.crc32(header[:16] + bytes(4) + header[20:]) != crc:
        return None
    start, count, width, entries_crc = struct.unpack_from("<QIII", header, 72)
    if not (128 <= width <= 4096 and 0 < count <= 1024):
        return None
    table = read(start * sector, count * width)
    if zlib.crc32(table) != entries_crc:
        return None
    found = []
    for i in range(count):
        entry = table[i * width : (i + 1) * width]
        if not any(entry[:16]):
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        if first <= last and (last + 1) * sector <= size:
            kind, identity = (str(uuid.UUID(bytes_le=entry[o : o + 16])) for o in (0, 16))
            name = entry[56:128].decode("utf-16-le", "replace").split("\0")[0]
            found.append(Partition(first * sector, (last - first + 1) * sector, kind, name, identity))
    return tuple(found)


def _mbr(read: Read, size: int) -> tuple[Partition, ...]:
    """Primary partitions. The boot sector of a bare FAT or NTFS looks alike: its entries are text, so they do not make sense."""
    sector = read(0, 512)
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return ()
    found = []
    for i in range(4):
        entry = sector[446 + 16 * i : 462 + 16 * i]
        start, count = struct.unpack_from("<II", entry, 8)
        if not any(entry):
            continue
        if entry[0] not in (0, 0x80) or entry[4] == 0 or start == 0 or count == 0 or (start + count) * 512 > size:
            return ()
        found.append(Partition(start * 512, count * 512, f"{entry[4]:02x}"))
    return tuple(found)


def _judge(table: str, sector: int, parts: tuple[Partition, ...], read: Read) -> Layout:
    esp = next((p for p in parts if p.kind in {ESP, "ef"}), None)
    has_code = any(read(0, 440))
    firmware = (*(("uefi",) if esp else ()), *(("bios",) if has_code else ()))
    seed = next((p for p in parts if _is_seed(p, read)), None)
    return Layout(
        table,
        sector,
        parts,
        firmware,
        Extent(seed.offset, seed.length) if seed else None,
        _loader_architecture(esp, read) if esp else None,
    )


def _is_seed(part: Partition, read: Read) -> bool:
    """By GPT name, or by the label of a FAT inside (offset 43 for FAT12/16, 71 for FAT32). NoCloud takes either case."""
    if part.name.lower() == "cidata":
        return True
    boot = read(part.offset, 512)
    if len(boot) < 512 or boot[510:] != b"\x55\xaa":
        return False
    labels = {boot[43:54]} if boot[54:57] == b"FAT" else {boot[71:82]} if boot[82:87] == b"FAT32" else set()
    return any(label.strip().lower() == b"cidata" for label in labels)


def _loader_architecture(esp: Partition, read: Read) -> str | None:
    """From the short name of the default loader (UEFI 3.5.1.1) as a FAT directory has it; it stands near the ESP's start."""
    for offset in range(esp.offset, esp.offset + min(esp.length, 16 << 20), 1 << 20):
        data = read(offset, min(1 << 20, esp.offset + esp.length - offset))
        if b"BOOTX64 EFI" in data:
            return "x86_64"
        if b"BOOTAA64EFI" in data:
            return "aarch64"
    return None
