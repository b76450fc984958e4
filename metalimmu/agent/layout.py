"""Where the seed goes and what becomes of the partition table, planned before anything is written. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from metalimmu.agent import gpt, mbr, seed
from metalimmu.agent.efi import Esp
from metalimmu.errors import DiskUnsuitable
from metalimmu.wire.manifest import CHUNK, Extent, Manifest

_ALIGN = 1 << 20


@dataclass(frozen=True)
class Layout:
    """`first` are changes within the image's first chunk, written last of all; `other` the rest (the backup table).

    Both: offset in bytes -> bytes, whole sectors.
    """

    first: dict[int, bytes] = field(default_factory=dict)
    other: dict[int, bytes] = field(default_factory=dict)
    seed: Extent | None = None
    esp: Esp | None = None

    def changed(self) -> tuple[str, ...]:
        """For the report: bytes of the disk that are ours and not the image's."""
        table = [f"{at}+{len(data)} partition table" for at, data in sorted((self.first | self.other).items())]
        return (*table, *((f"{self.seed.offset}+{self.seed.length} seed",) if self.seed else ()))


def plan(head: bytes, manifest: Manifest, disk_size: int, *, need_seed: bool) -> Layout:
    """`head` is the image's first chunk. Raises DiskUnsuitable when image, seed and disk do not go together."""
    if disk_size < manifest.size:
        raise DiskUnsuitable(f"the disk has {disk_size} bytes, the image {manifest.size}")
    if manifest.seed and (
        manifest.seed.offset < CHUNK
        or manifest.seed.offset % manifest.sector_size
        or manifest.seed.length % manifest.sector_size
    ):
        raise DiskUnsuitable(
            f"the image's seed partition ({manifest.seed.offset}+{manifest.seed.length}) is not made of whole sectors "
            "after the first MiB",
            hint="build the image again with an aligned seed partition",
        )
    found = Layout(seed=manifest.seed if need_seed else None)
    if manifest.partition_table == "gpt":
        return _with_gpt(head, manifest, disk_size, found, append=need_seed and not manifest.seed)
    if need_seed and not manifest.seed:
        if manifest.partition_table != "mbr":
            raise DiskUnsuitable(
                "the image has no partition table and no seed partition: its run-time config finds no place",
                hint="build the image with a seed partition, or give its role no config",
            )
        return _with_mbr(head, manifest, disk_size)
    return found


def _with_gpt(head: bytes, manifest: Manifest, disk_size: int, found: Layout, *, append: bool) -> Layout:
    sector = manifest.sector_size
    table = gpt.parse(head, sector)
    wanted = gpt.move_backup(table, disk_size // sector)
    place = found.seed
    if append:
        end = max((p.last + 1 for p in table.partitions()), default=table.first_usable) * sector
        place = _at_the_end((wanted.last_usable + 1) * sector, end)
        guid = uuid.uuid5(table.disk_guid, seed.LABEL)
        first, last = place.offset // sector, (place.offset + place.length) // sector - 1
        index = gpt.free_index(wanted)
        wanted = gpt.add(wanted, gpt.Partition(index, gpt.BASIC_DATA, guid, first, last, name=seed.LABEL))
    if wanted == table:
        return Layout(seed=place, esp=_esp(table))
    record = gpt.protective_mbr(head[:sector], disk_size // sector)
    first_chunk = gpt.primary(wanted) | ({0: record} if record != head[:sector] else {})
    return Layout(first_chunk, gpt.backup(wanted), place, _esp(table))


def _with_mbr(head: bytes, manifest: Manifest, disk_size: int) -> Layout:
    sector = manifest.sector_size
    usable = min(disk_size, (1 << 32) * sector)
    place = _at_the_end(usable, mbr.end(head[:512]) * sector)
    record = mbr.add(head[:512], place.offset // sector, place.length // sector) + head[512:sector]
    return Layout({0: record}, seed=place)


def _at_the_end(end: int, taken: int) -> Extent:
    """16 MiB before `end`, aligned to 1 MiB, after `taken` (bytes). The room before it is for the image's growth."""
    start = (end - seed.SIZE) // _ALIGN * _ALIGN
    if start < taken:
        raise DiskUnsuitable(
            f"the disk has {max(0, end - taken)} bytes after the image's partitions; the seed needs {seed.SIZE}",
            hint="choose a disk that is 32 MiB larger than the image, or build the image with a seed partition",
        )
    return Extent(start, seed.SIZE)


def _esp(table: gpt.Table) -> Esp | None:
    esp = next((p for p in table.partitions() if p.type == gpt.ESP), None)
    return Esp(esp.index + 1, esp.first, esp.last - esp.first + 1, esp.guid) if esp else None
