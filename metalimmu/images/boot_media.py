"""Bootable media of a kernel, its initrd and perhaps a squashfs: an ISO as the ramdisk's, with two slots for a deployment.

`boot/slot.cfg` is GRUB's: the kernel's command line, which differs from host to host. `boot/slot.cpio` is a second initrd.
Both are empty here and filled while the media is served. Boot loaders and tools come from Debian and are kept in the cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metalimmu import paths
from metalimmu.errors import ImageError
from metalimmu.images import debian, iso, ramdisk_base, ramdisk_debian
from metalimmu.images.iso import Loaders
from metalimmu.images.ramdisk_base import _tools
from metalimmu.images.ramdisk_debian import Tools
from metalimmu.wire.manifest import Part

KERNEL, INITRD = "boot/vmlinuz", "boot/initrd"
SLOTS = {"slot.cfg": 8 << 10, "slot.cpio": 256 << 10}  # bytes
EPOCH = 1577836800  # 2020-01-01: the same files always give the same bytes, whenever they are added
LARGEST = (4 << 30) - 2048  # bytes of one file in one piece (ISO 9660)

_FILES = ("shim.efi", "grub.efi", "eltorito.img", "hybrid.img")


@dataclass(frozen=True)
class Kit:
    """What makes media: programs, and boot loaders."""

    tools: Tools
    loaders: Loaders


def kit(mirror: str | None = None, say: Callable[[str], None] = lambda _: None) -> Kit:
    """From the cache, or fetched. Raises ToolError."""
    home = paths.cache() / "ramdisk"
    home.mkdir(parents=True, exist_ok=True)
    archive = debian.mirror(mirror)
    names = (*ramdisk_base.TOOLS, *ramdisk_base.BOOT, *ramdisk_base.GRUB_MODULES, archive)
    folder = home / f"loaders-{hashlib.sha256(repr(names).encode()).hexdigest()[:12]}"
    if not _usable(folder):
        with (home / "lock").open("w") as lock:  # the ramdisk's: both use the same apt and the same tools
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _usable(folder):
                say(f"fetching boot loaders from {archive}")
                _fetch(archive, home, folder)
    for used in (folder, tools := home / (folder / "tools").read_text()):
        os.utime(used)  # what nothing uses for a month is removed
    return Kit(Tools(tools), Loaders(*(folder / name for name in _FILES)))


def _usable(folder: Path) -> bool:
    """Are they there, and the tools as well?"""
    try:
        return (folder.parent / (folder / "tools").read_text()).is_dir()
    except FileNotFoundError:
        return False


def _fetch(archive: str, home: Path, folder: Path) -> None:
    lines = ramdisk_debian.source_lines(archive, backports=False)
    apt = ramdisk_debian.Apt(home / f"apt-{hashlib.sha256(repr(lines).encode()).hexdigest()[:12]}", lines)
    apt.update()
    tools = _tools(apt, home)
    with tempfile.TemporaryDirectory(prefix="new-", dir=home) as work:
        tree, new = Path(work) / "tree", Path(work) / "new"
        new.mkdir()
        ramdisk_debian.unpack(apt.fetch(*ramdisk_base.BOOT), tree)
        shutil.copy(tree / "usr/lib/shim/shimx64.efi.signed", new / "shim.efi")
        shutil.copy(tree / "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed", new / "grub.efi")
        grub = tools.tree / "usr/lib/grub/i386-pc"
        shutil.copy(grub / "boot_hybrid.img", new / "hybrid.img")
        tools.run(
            "usr/bin/grub-mkimage", "-O", "i386-pc-eltorito", "-d", grub, "-p", "/boot/grub", "-o", new / "eltorito.img",
            *ramdisk_base.GRUB_MODULES,
        )  # fmt: skip
        (new / "tools").write_text(tools.tree.name)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def build(
    target: Path, kernel: Path, initrd: Path, squashfs: Path | None, *, place: str, kit: Kit, work: Path
) -> tuple[str, tuple[Part, ...]]:
    """Make the ISO at `target`; returns its label and where its parts are. `place`: of the squashfs in the ISO.

    Raises ImageError (a file that cannot be part of it) and ToolError.
    """
    files = {KERNEL: kernel, INITRD: initrd} | ({place: squashfs} if squashfs else {})
    digest = hashlib.sha256(place.encode())
    for path in files.values():
        digest.update(_sha256(path).encode())
    label = f"MI-{digest.hexdigest()[:8].upper()}"
    files[INITRD] = _padded(initrd, work / "initrd")
    slots = {}
    for name, size in SLOTS.items():
        slots[f"boot/{name}"] = work / name
        # Newlines are nothing to GRUB, as zeros are nothing to the kernel's reader of cpio archives.
        (work / name).write_bytes((b"\n" if name.endswith(".cfg") else b"\0") * size)
    config = (paths.data("pxe") / "grub" / "media.cfg").read_text().replace("@LABEL@", label)
    iso.write(
        target, {**files, **slots}, config, kit.loaders, label=label, epoch=EPOCH, tools=kit.tools, work=work
    )  # fmt: skip
    inside = {"kernel": KERNEL, "initrd": INITRD, **{n: f"boot/{n}" for n in SLOTS}}
    if squashfs:
        inside["squashfs"] = place
    parts = [Part(name, *iso.offset(target, path, kit.tools)) for name, path in inside.items()]
    return label, tuple(sorted(parts, key=lambda p: p.offset))


def _padded(file: Path, copy: Path) -> Path:
    """Another initrd may follow, and not every loader puts it at a multiple of 4 bytes as the kernel wants it."""
    missing = -file.stat().st_size % 4
    if not missing:
        return file
    shutil.copyfile(file, copy)
    with copy.open("ab") as out:
        out.write(bytes(missing))
    return copy


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if path.stat().st_size > LARGEST:
                raise ImageError(
                    f"{path} is larger than 4 GiB", hint="make it smaller, or boot it as an ISO: --kind iso"
                )
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ImageError(f"cannot read {path}: {exc.strerror}", hint="name the file") from exc
