"""A bootable ISO 9660 image: UEFI (also secure boot) and BIOS, as a CD and as a USB stick; the same files, the same bytes.

UEFI from CD: the El Torito entry is a small FAT image with shim and GRUB, as Microsoft and Debian signed them. From a stick
the same FAT image is a GPT partition. BIOS: GRUB's El Torito image, from a stick its hybrid MBR. Some BMCs present
virtual media as the one, some as the other.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from metalimmu.errors import ToolError
from metalimmu.images.ramdisk_debian import Tools

SECTOR = 2048
BASIC_DATA = "0xef"  # EFI system partition, as MBR type; xorriso writes the GPT type for it


@dataclass(frozen=True)
class Loaders:
    """`shim` and `grub` for UEFI, `eltorito` and `hybrid` (first 432 bytes of the disk) for BIOS."""

    shim: Path
    grub: Path
    eltorito: Path
    hybrid: Path


def write(
    target: Path,
    files: dict[str, Path],
    grub_cfg: str,
    loaders: Loaders,
    *,
    label: str,
    epoch: int,
    tools: Tools,
    work: Path,
) -> None:
    """Make the ISO at `target`. `files` maps paths in the ISO to files; `work` is an empty folder to use. Raises ToolError."""
    tree = work / "iso"
    config = work / "grub.cfg"
    config.write_text(grub_cfg)
    for path, source in {
        **files,
        "boot/grub/grub.cfg": config,
        "boot/grub/eltorito.img": loaders.eltorito,
        "EFI/BOOT/BOOTX64.EFI": loaders.shim,
        "EFI/BOOT/grubx64.efi": loaders.grub,
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tree / path)
    efi = work / "efi.img"
    efi_image(efi, loaders, config, epoch=epoch, tools=tools)
    tools.run(
        "usr/bin/xorriso", "-no_rc", "-as", "mkisofs", "-quiet", "-R", "-V", label, "-o", target,
        "-uid", "0", "-gid", "0", "-file-mode", "0444", "-dir-mode", "0555", "--set_all_file_dates", f"={epoch}",
        "--grub2-mbr", loaders.hybrid, "--mbr-force-bootable", "-partition_offset", "16",
        "-append_partition", "2", BASIC_DATA, efi, "-appended_part_as_gpt",
        "-c", "boot/grub/boot.cat",
        "-b", "boot/grub/eltorito.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info",
        "-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot",
        tree,
        env={"SOURCE_DATE_EPOCH": str(epoch)},
    )  # fmt: skip


def efi_image(target: Path, loaders: Loaders, grub_cfg: Path, *, epoch: int, tools: Tools) -> None:
    """The FAT image with shim, GRUB and GRUB's configuration; its serial number and times fixed."""
    files = {
        "EFI/BOOT/BOOTX64.EFI": loaders.shim,
        "EFI/BOOT/grubx64.efi": loaders.grub,
        "boot/grub/grub.cfg": grub_cfg,
    }
    kib = sum(f.stat().st_size for f in files.values()) // 1024 + 256
    sectors = -(-kib * 2 // 64) * 64
    env = {"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}
    target.unlink(missing_ok=True)
    tools.run(
        "usr/bin/mformat",
        "-C",
        "-i",
        target,
        "-T",
        str(sectors),
        "-h",
        "2",
        "-s",
        "32",
        "-N",
        "4d494d4d",
        "::",
        env=env,
    )
    for folder in ("EFI", "EFI/BOOT", "boot", "boot/grub"):
        tools.run("usr/bin/mmd", "-i", target, f"::{folder}", env=env)
    for path, source in files.items():
        tools.run("usr/bin/mcopy", "-i", target, source, f"::{path}", env=env)


def offset(iso: Path, path: str, tools: Tools) -> tuple[int, int]:
    """First byte and size of a file in the ISO. Raises ToolError when it is not there in one piece."""
    said = tools.run(
        "usr/bin/xorriso", "-no_rc", "-indev", iso, "-find", f"/{path}", "-exec", "report_lba"
    ).stdout.decode()
    found = re.findall(r"^File data lba:\s*(\d+) ,\s*(\d+) ,\s*(\d+) ,\s*(\d+) ,", said, re.MULTILINE)
    if len(found) != 1:
        raise ToolError(f"xorriso finds {len(found)} extents of {path} in {iso}, not one", hint="report this as a bug")
    _, lba, _, size = found[0]
    return int(lba) * SECTOR, int(size)
