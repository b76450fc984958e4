"""The seed: a small FAT file system labelled `cidata` that holds the run-time config (cloud-init's NoCloud).

Made as bytes, by Microsoft's FAT specification of 2005 (FAT12 and FAT16, long names): the same files give the same
bytes, and the ramdisk needs no tools for it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from metalimmu.errors import AgentError
from metalimmu.wire.messages import PROOF_FILE, RunTimeConfig

LABEL = "cidata"
SIZE = 16 << 20  # bytes of a seed partition that we add
_ROOT_ENTRIES = 512
_MIN_FAT16 = 4085  # clusters; the specification's own bound, and its advice to stay 16 away from it
_MAX_FAT16 = 65524
_MARGIN = 16
_EPOCH = 0x0021  # 1980-01-01: a fixed date keeps the bytes the same
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True)
class _Layout:
    sector: int
    sectors: int
    per_cluster: int
    clusters: int
    fat_sectors: int

    @property
    def bits(self) -> int:
        return 12 if self.clusters < _MIN_FAT16 else 16

    @property
    def root_at(self) -> int:
        return 1 + 2 * self.fat_sectors

    @property
    def data_at(self) -> int:
        return self.root_at + _ROOT_ENTRIES * 32 // self.sector

    @property
    def cluster_size(self) -> int:
        return self.per_cluster * self.sector


def files(config: RunTimeConfig) -> dict[str, bytes]:
    """Checked: the names, and the digest over them. Raises AgentError."""
    found = {f.path: f.content.encode() for f in config.files}
    wrong = [name for name in found if not _NAME.match(name)]
    if wrong or len({name.lower() for name in found}) != len(config.files):  # FAT does not tell Name from name
        raise AgentError(f"the run-time config has unusable file names: {wrong or 'one twice'}")
    if digest(found) != config.digest:
        raise AgentError("the run-time config does not have the digest that it came with")
    return found


def digest(content: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over path NUL content NUL, sorted by path, without PROOF_FILE: RunTimeConfig.digest."""
    total = hashlib.sha256()
    for name in sorted(n for n in content if n != PROOF_FILE):
        total.update(name.encode() + b"\0" + content[name] + b"\0")
    return total.hexdigest()


def fat(content: Mapping[str, bytes], size: int, sector: int = 512, label: str = LABEL) -> bytes:
    """A file system of `size` bytes: its beginning, up to the last byte in use, whole sectors. The rest is zeros.

    Raises AgentError when the files do not fit.
    """
    layout = _layout(size, sector)
    chains: list[range] = []
    entries = [_volume_label(label)]
    data = bytearray()
    for number, name in enumerate(sorted(content), 1):
        first = 2 + sum(len(c) for c in chains)
        count = -(-len(content[name]) // layout.cluster_size)
        chains.append(range(first, first + count))
        entries.append(_file_entries(name, number, first if count else 0, len(content[name])))
        data += content[name].ljust(count * layout.cluster_size, b"\0")
    root = b"".join(entries)
    if len(root) > _ROOT_ENTRIES * 32 or sum(len(c) for c in chains) > layout.clusters:
        raise AgentError(
            f"the run-time config ({sum(map(len, content.values()))} bytes in {len(content)} files) does not fit "
            f"on a seed of {size} bytes",
            hint="make the templates smaller, or build the image with a larger seed partition",
        )
    serial = int.from_bytes(bytes.fromhex(digest(content))[:4], "little")
    table = _table(layout, chains)
    return b"".join((_boot_sector(layout, label, serial), table, table, root.ljust(_ROOT_ENTRIES * 32, b"\0"), data))


def _layout(size: int, sector: int) -> _Layout:
    sectors = size // sector
    for per_cluster in (1, 2, 4, 8, 16, 32, 64, 128):
        for bits in (12, 16):
            # The table is sized for all sectors as if none were taken by it: a little too large, never too small.
            fat_sectors = -(-((sectors // per_cluster + 2) * bits // 8 + 1) // sector)
            data_at = 1 + 2 * fat_sectors + _ROOT_ENTRIES * 32 // sector
            clusters = (sectors - data_at) // per_cluster
            fits = (
                (16 <= clusters < _MIN_FAT16 - _MARGIN)
                if bits == 12
                else (_MIN_FAT16 + _MARGIN <= clusters <= _MAX_FAT16 - _MARGIN)
            )
            if fits and per_cluster * sector <= 32768:
                return _Layout(sector, sectors, per_cluster, clusters, fat_sectors)
    raise AgentError(f"a seed of {size} bytes with sectors of {sector} is no size for FAT")


def _boot_sector(layout: _Layout, label: str, serial: int) -> bytes:
    small = layout.sectors if layout.sectors < 0x10000 else 0
    bpb = struct.pack(
        "<3s8sHBHBHHBHHHIIBBBI11s8s",
        b"\xeb\x3c\x90",
        b"METALIMU",
        layout.sector,
        layout.per_cluster,
        1,  # reserved sectors
        2,  # tables
        _ROOT_ENTRIES,
        small,
        0xF8,  # fixed disk
        layout.fat_sectors,
        63,
        255,
        0,
        0 if small else layout.sectors,
        0x80,
        0,
        0x29,
        serial,
        label.encode().ljust(11),
        b"FAT12   " if layout.bits == 12 else b"FAT16   ",
    )
    return (bpb.ljust(510, b"\0") + b"\x55\xaa").ljust(layout.sector, b"\0")


def _table(layout: _Layout, chains: list[range]) -> bytes:
    last = (1 << layout.bits) - 1
    values = [last & ~0xFF | 0xF8, last]  # media, end mark
    for chain in chains:
        values += [*(cluster + 1 for cluster in chain[:-1]), *((last,) if chain else ())]
    if layout.bits == 16:
        packed = struct.pack(f"<{len(values)}H", *values)
    else:
        total = sum(value << (12 * i) for i, value in enumerate(values))
        packed = total.to_bytes(-(-12 * len(values) // 8), "little")
    return packed.ljust(layout.fat_sectors * layout.sector, b"\0")


def _volume_label(label: str) -> bytes:
    return struct.pack("<11sB10xHHHI", label.encode().ljust(11), 0x08, 0, _EPOCH, 0, 0)


def _file_entries(name: str, number: int, cluster: int, size: int) -> bytes:
    short = _short_name(name, number)
    head = struct.pack("<11sBBBHHHHHHHI", short, 0x20, 0, 0, 0, _EPOCH, _EPOCH, 0, 0, _EPOCH, cluster, size)
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    units = name.encode("utf-16-le") + b"\0\0"
    parts = [units[i : i + 26].ljust(26, b"\xff") for i in range(0, len(units), 26)]
    if len(units) % 26 == 2 and len(units) > 2:  # a name that fills its last entry has no terminator
        parts.pop()
    entries = []
    for order, part in enumerate(parts, 1):
        mark = order | (0x40 if order == len(parts) else 0)
        entries.append(struct.pack("<B10sBBB12sH4s", mark, part[:10], 0x0F, 0, checksum, part[10:22], 0, part[22:26]))
    return b"".join(reversed(entries)) + head


def _short_name(name: str, number: int) -> bytes:
    """`USER-D~1`; the number is the file's own, so no two are the same."""
    stem, _, extension = name.rpartition(".") if "." in name else (name, "", "")
    tail = f"~{number}"
    plain = "".join(c for c in stem.upper() if c.isalnum() or c in "-_")[: 8 - len(tail)]
    ending = "".join(c for c in extension.upper() if c.isalnum())[:3]
    return (plain + tail).ljust(8).encode() + ending.ljust(3).encode()
