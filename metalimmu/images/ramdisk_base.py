"""The part of a ramdisk that comes from Debian: kernel, initrd with the drivers to find its media, squashfs, boot loaders.

It takes a minute to make and seldom changes, so it is kept in the cache under a hash of everything that went into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalimmu import paths
from metalimmu.errors import UsageError
from metalimmu.images import debian, ramdisk_debian, ramdisk_root
from metalimmu.images.ramdisk_debian import Apt, Tools, unpack
from metalimmu.images.ramdisk_kernel import Kernel, add_firmware
from metalimmu.images.ramdisk_modules import select
from metalimmu.wire import cpio

Progress = Callable[[str], None]

TOOLS = (
    "grub-common", "grub-pc-bin", "xorriso", "squashfs-tools", "mtools", "kmod", "python3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip
BOOT = ("shim-signed", "grub-efi-amd64-signed")
GRUB_MODULES = (
    "biosdisk", "iso9660", "part_msdos", "part_gpt", "normal", "linux", "search", "search_label", "serial", "terminal", "test",
    "echo", "configfile", "boot",
)  # fmt: skip
KEEP = 30 * 86400.0  # seconds that an unused base stays
CODE = ("ramdisk_base.py", "ramdisk_debian.py", "ramdisk_kernel.py", "ramdisk_modules.py", "ramdisk_root.py")


@dataclass(frozen=True)
class Flavour:
    """A file pxe/ramdisk/NAME.yaml: the kernel's package, and modules for the initrd and for the squashfs."""

    name: str
    kernel: str
    media: tuple[str, ...]
    needed: tuple[str, ...]
    wanted: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Inputs:
    """What decides how a base looks, beside this code."""

    flavour: Flavour
    mirror: str
    backports: bool = False
    firmware_dir: Path | None = None

    def key(self) -> str:
        """Hash of all of it and of this code: when the code changes, so does what it makes."""
        digest = hashlib.sha256(repr((self.flavour.text, self.mirror, self.backports)).encode())
        for module in CODE:
            digest.update((Path(__file__).parent / module).read_bytes())
        for file in sorted(self.firmware_dir.rglob("*")) if self.firmware_dir else ():
            if file.is_file():
                digest.update(f"{file}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """A folder with vmlinuz, initrd, root.squashfs, shim.efi, grub.efi, eltorito.img, hybrid.img, and what base.json says."""

    folder: Path
    tools: Tools
    facts: dict[str, Any]

    def file(self, name: str) -> Path:
        return self.folder / name


def flavours() -> list[str]:
    return sorted(p.stem for p in (paths.data("pxe") / "ramdisk").glob("*.yaml"))


def flavour(name: str) -> Flavour:
    """Raises UsageError when there is no such file."""
    import yaml

    if name not in flavours():
        raise UsageError(f"no ramdisk flavour {name!r}", hint=f"there are: {', '.join(flavours())}")
    text = (paths.data("pxe") / "ramdisk" / f"{name}.yaml").read_text()
    raw = yaml.safe_load(text)
    return Flavour(name, raw["kernel"], _flat(raw["media"]), _flat(raw["needed"]), _flat(raw["wanted"]), text)


def prepare(inputs: Inputs, *, refresh: bool, say: Progress) -> Base:
    """The base from the cache, or made anew when its inputs changed or `refresh` asks for Debian's newest packages.

    Raises ToolError: a tool, the mirror, or a module that this kernel does not have.
    """
    home = paths.cache() / "ramdisk"
    folder = home / f"{inputs.flavour.name}-{inputs.key()}"
    if refresh or (base := _open(folder)) is None:
        apt = _apt(inputs, home)
        say(f"asking {inputs.mirror} for packages")
        apt.update()
        with tempfile.TemporaryDirectory(prefix="new-", dir=home) as work:
            new = Path(work) / "base"
            new.mkdir()
            _Build(inputs, apt, Path(work), new, say).run(_tools(apt, home))
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
        base = _open(folder)
        _forget(home)
    assert base is not None  # noqa: S101 - it was made just now
    return base


def _open(folder: Path) -> Base | None:
    """None when it is not there, or the tools that made it are gone. Using it keeps it."""
    try:
        facts = json.loads((folder / "base.json").read_text())
        for used in (folder, tools := folder.parent / facts["tools"]):
            os.utime(used)
    except FileNotFoundError:
        return None
    return Base(folder, Tools(tools), facts)


def _forget(home: Path) -> None:
    """Remove what no build used for a month."""
    for old in home.iterdir():
        if old.is_dir() and time.time() - old.stat().st_mtime > KEEP:
            shutil.rmtree(old, ignore_errors=True)


def _apt(inputs: Inputs, home: Path) -> Apt:
    lines = ramdisk_debian.source_lines(inputs.mirror, backports=inputs.backports)
    folder = home / f"apt-{hashlib.sha256(repr(lines).encode()).hexdigest()[:12]}"
    apt = Apt(folder, lines)
    os.utime(folder)
    return apt


def _tools(apt: Apt, home: Path) -> Tools:
    debs = apt.fetch(*TOOLS, dependencies=True)
    tree = home / f"tools-{hashlib.sha256(repr([d.name for d in debs]).encode()).hexdigest()[:12]}"
    if not tree.is_dir():
        with tempfile.TemporaryDirectory(prefix="new-", dir=home) as work:
            new = Path(work) / "tree"
            unpack(debs, new, lambda p: not p.startswith(("usr/share/doc/", "usr/share/man/", "usr/share/locale/")))
            new.rename(tree)
    return Tools(tree)


@dataclass(frozen=True)
class _Build:
    """One making of a base in the folder `new`; `work` is for what is thrown away after."""

    inputs: Inputs
    apt: Apt
    work: Path
    new: Path
    say: Progress

    def run(self, tools: Tools) -> None:
        newest = self.apt.preferring(f"{ramdisk_debian.SUITE}-backports") if self.inputs.backports else self.apt
        chosen = self.inputs.flavour
        package = newest.depends(chosen.kernel, r"linux-image-\d\S+")
        self.say(f"kernel {package}")
        (kernel_deb,) = newest.fetch(package)
        kernel = Kernel(kernel_deb, self.work / "kernel", tools)
        shutil.copy(kernel.vmlinuz, self.new / "vmlinuz")
        media = select(kernel.modules, chosen.media)
        modules = select(kernel.modules, [*chosen.media, *chosen.needed], chosen.wanted)

        root = self.work / "root"
        root_debs = ramdisk_root.make(self.apt.fetch(*ramdisk_root.PACKAGES, dependencies=True), root, tools)
        kernel.copy(modules, root)
        firmware, firmware_debs = add_firmware(root, kernel.firmware(root), newest, self.inputs.firmware_dir)
        self.say(f"squashfs with {len(modules.modules)} modules and {len(firmware.files)} firmware files")
        epoch = debian.release_date(self.inputs.mirror, ramdisk_debian.SUITE)
        ramdisk_root.squash(tools, root, self.new / "root.squashfs", epoch)

        initrd = self.work / "initrd"
        kernel.copy(media, initrd)
        ramdisk_root.add_busybox(initrd / "bin", root / "usr/bin/busybox")
        (self.new / "initrd").write_bytes(_compressed(cpio.pack(ramdisk_root.cpio_entries(initrd))))

        boot_debs = self.apt.fetch(*BOOT)
        self._boot_loaders(boot_debs, tools)
        facts = {
            "mirror": self.inputs.mirror,
            "epoch": epoch,
            "tools": tools.tree.name,
            "kernel": kernel.version,
            "modules": len(modules.modules),
            "builtin": sorted(modules.builtin),
            "missing_modules": sorted(modules.missing),
            "missing_firmware": [f"{path} ({module})" for path, module in sorted(firmware.missing.items())],
            "packages": sorted(d.name for d in (kernel_deb, *root_debs, *boot_debs, *firmware_debs)),
        }
        ramdisk_debian.write_json(self.new / "base.json", facts)

    def _boot_loaders(self, debs: list[Path], tools: Tools) -> None:
        tree = self.work / "boot"
        unpack(debs, tree)
        shutil.copy(tree / "usr/lib/shim/shimx64.efi.signed", self.new / "shim.efi")
        # gcd, not grub: its built-in configuration looks for /boot/grub/grub.cfg on the media it was loaded from.
        shutil.copy(tree / "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed", self.new / "grub.efi")
        grub = tools.tree / "usr/lib/grub/i386-pc"
        shutil.copy(grub / "boot_hybrid.img", self.new / "hybrid.img")
        target = self.new / "eltorito.img"
        tools.run(
            "usr/bin/grub-mkimage", "-O", "i386-pc-eltorito", "-d", grub, "-p", "/boot/grub", "-o", target, *GRUB_MODULES
        )  # fmt: skip


def _compressed(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=19).compress(data)


def _flat(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(n for item in names for n in ([item] if isinstance(item, str) else item))
