"""What an ISO 9660 file says of itself: its label, and which firmware can boot it. Pure functions on bytes.

ECMA-119 8.4 (volume descriptors: 2048 bytes each from sector 16), El Torito 1.0 (boot record in sector 17, boot catalogue).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from metalimmu.errors import ImageError

SECTOR = 2048
Read = Callable[[int, int], bytes]  # offset, length

_PLATFORMS = {0x00: "bios", 0xEF: "uefi"}
_BOOTS = 0x88  # indicator of an entry that can be booted


@dataclass(frozen=True)
class IsoFacts:
    label: str
    firmware: tuple[str, ...]  # uefi, bios: what can boot it from a CD drive
    size: int  # bytes that the volume says it has


def read(data: Read, size: int) -> IsoFacts:
    """`size`: of the file. Raises ImageError: no ISO, cut short, or nothing to boot."""
    primary = data(16 * SECTOR, SECTOR)
    if len(primary) < SECTOR or primary[:6] != b"\x01CD001":
        raise ImageError(
            "this file is no ISO 9660 image", hint="name the vendor's .iso; disks are added without --kind"
        )
    label = primary[40:72].decode("ascii", "replace").strip(" \0")
    volume = struct.unpack_from("<I", primary, 80)[0] * SECTOR
    if volume > size:
        raise ImageError(f"the ISO says that it has {volume} bytes, the file has {size}", hint="fetch the file again")
    firmware = _firmware(data, size)
    if not firmware:
        raise ImageError("the ISO has no El Torito boot entry: nothing can boot it", hint="is this the right file?")
    return IsoFacts(label, firmware, volume)


def _firmware(data: Read, size: int) -> tuple[str, ...]:
    record = data(17 * SECTOR, SECTOR)
    if record[:7] != b"\x00CD001\x01" or not record[7:30].startswith(b"EL TORITO SPECIFICATION"):
        return ()
    start = struct.unpack_from("<I", record, 71)[0] * SECTOR
    if start + SECTOR > size:
        return ()
    entries = [data(start, SECTOR)[i : i + 32] for i in range(0, SECTOR, 32)]
    if entries[0][0] != 1 or entries[0][30:] != b"\x55\xaa":  # the validation entry
        return ()
    found = {_PLATFORMS.get(entries[0][1])} if entries[1][0] == _BOOTS else set()
    platform = None
    for entry in entries[2:]:
        if entry[0] in (0x90, 0x91):  # a section header: more follow, or the last
            platform = _PLATFORMS.get(entry[1])
        elif entry[0] == _BOOTS:
            found.add(platform)
    return tuple(f for f in ("uefi", "bios") if f in found)
