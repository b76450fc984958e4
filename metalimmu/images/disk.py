"""A disk image file around file systems: GPT, BIOS boot code, EFI system partition. Files only, no device, no root.

1 MiB   BIOS boot partition: GRUB's core.img
2 MiB   ESP (FAT32)
        cidata: the seed partition, zeros until a machine gets its run-time config
        root (ext4), last, so that it can grow
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from metalimmu.errors import ImageError
from metalimmu.images import layout
from metalimmu.images.debian import run_tool
from metalimmu.wire.manifest import Extent

MIB = 1 << 20
BIOS_SIZE = MIB
ESP_SIZE = 64 * MIB  # FAT32 needs 33 MiB, and firmware reads FAT32 best
SEED_SIZE = 8 * MIB

_NAMESPACE = uuid.UUID("6c1f6f0e-1a0b-5d5c-9a3e-6d6574616c69")


@dataclass(frozen=True)
class Identity:
    """Every identifier of a disk, from one name: versions of an image share them, other images have others."""

    name: str

    def uuid(self, what: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{self.name}/{what}"))

    @property
    def volume(self) -> str:
        """FAT volume id: eight hex digits."""
        return self.uuid("esp-volume").replace("-", "")[:8].upper()


@dataclass(frozen=True)
class Plan:
    """Where everything lies. `root_size` 0: no root file system."""

    root_size: int
    esp_size: int = ESP_SIZE

    @property
    def bios(self) -> Extent:
        return Extent(MIB, BIOS_SIZE)

    @property
    def esp(self) -> Extent:
        return Extent(2 * MIB, self.esp_size)

    @property
    def seed(self) -> Extent:
        return Extent(2 * MIB + self.esp_size, SEED_SIZE)

    @property
    def root(self) -> Extent:
        return Extent(self.seed.offset + SEED_SIZE, self.root_size)

    @property
    def size(self) -> int:
        return self.root.offset + self.root_size + MIB  # the last MiB holds the backup GPT


def partition(image: Path, plan: Plan, identity: Identity) -> None:
    """Make `image`, all holes but for its GPT."""
    with image.open("wb") as file:
        file.truncate(plan.size)
    parts = [
        (plan.bios, layout.BIOS_BOOT, "bios"),
        (plan.esp, layout.ESP, "esp"),
        (plan.seed, layout.BASIC_DATA, "cidata"),
        *([(plan.root, layout.LINUX_ROOT, "root")] if plan.root_size else []),
    ]
    lines = ["label: gpt", f"label-id: {identity.uuid('disk')}", "unit: sectors", "first-lba: 2048"]
    lines += [
        f'start={e.offset // 512}, size={e.length // 512}, type={kind}, uuid={identity.uuid(name)}, name="{name}"'
        for e, kind, name in parts
    ]
    run_tool(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image], stdin="\n".join([*lines, ""]).encode())


def write_bios_boot(image: Path, plan: Plan, boot: bytes, core: bytes) -> None:
    """GRUB for BIOS: boot.img into the MBR's code, core.img into its partition, each told where the next lies.

    What grub-bios-setup does on a device; offsets from GRUB's include/grub/i386/pc/boot.h and grub-core/boot/i386/pc.
    """
    if len(boot) != 512 or len(core) > plan.bios.length or len(core) < 1024:
        raise ImageError(
            f"GRUB's boot.img has {len(boot)} bytes and core.img {len(core)}", hint="is grub-pc-bin whole?"
        )
    sector = plan.bios.offset // 512
    first = bytearray(boot)
    struct.pack_into("<Q", first, 0x5C, sector)  # GRUB_BOOT_MACHINE_KERNEL_SECTOR
    first[0x64] = 0xFF  # boot drive: the one that the BIOS names
    first[0x66:0x68] = b"\x90\x90"  # no workaround for floppies: some BIOSes pass drive 0 for a disk
    rest = bytearray(core)
    # The last block list entry of the first sector: where the rest of core.img is, its sectors, its segment.
    struct.pack_into("<QHH", rest, 0x1F4, sector + 1, -(-len(core) // 512) - 1, 0x820)
    with image.open("r+b") as file:
        file.seek(0)
        file.write(first[:440])  # the disk signature and the protective MBR stay
        file.seek(plan.bios.offset)
        file.write(rest.ljust(-(-len(rest) // 512) * 512, b"\0"))


def write_esp(
    image: Path,
    plan: Plan,
    identity: Identity,
    *,
    old: Mapping[str, str],
    new: Mapping[str, str],
    source: Callable[[str], Path],
    epoch: int,
) -> None:
    """Make the ESP hold exactly the files `new` (path -> SHA-256); `old` are those it holds now.

    `source` gives the file with a content. An empty `old` makes a new file system. Files that did not change are not
    touched.
    """
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"}
    with tempfile.TemporaryDirectory(prefix="metalimmu-esp-") as work:
        fat = Path(work) / "esp"
        with fat.open("wb") as file:
            file.truncate(plan.esp.length)
        if old:
            _copy(image, plan.esp.offset, fat, 0, plan.esp.length)
        else:
            # --invariant fixes the times, and the volume id too unless that is set after it.
            shape = ["--invariant", "-i", identity.volume, "-n", "ESP", "-F", "32", "-s", "1"]
            run_tool(["mkfs.fat", *shape, fat], env=env)
        for path in sorted(old.keys() - new.keys()):
            run_tool(["mdel", "-i", fat, f"::/{path}"], env=env)
        known = {folder for path in old for folder in _folders(path)}
        for path in sorted(new):
            if old.get(path) == new[path]:
                continue
            for folder in _folders(path):
                if folder not in known:
                    run_tool(["mmd", "-i", fat, f"::/{folder}"], env=env)
                    known.add(folder)
            staged = Path(work) / "file"
            shutil.copyfile(source(new[path]), staged)
            os.utime(staged, (epoch, epoch))
            run_tool(["mcopy", "-i", fat, "-D", "o", "-m", staged, f"::/{path}"], env=env)
        _copy(fat, 0, image, plan.esp.offset, plan.esp.length)


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _copy(source: Path, start: int, target: Path, to: int, length: int) -> None:
    """Bytes from file to file; zeros over zeros stay holes."""
    with source.open("rb") as a, target.open("r+b") as b:
        for done in range(0, length, MIB):
            a.seek(start + done)
            data = a.read(min(MIB, length - done))
            b.seek(to + done)
            if b.read(len(data)) != data:
                b.seek(to + done)
                b.write(data)
