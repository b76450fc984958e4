"""A kernel unpacked from its package: which modules it has, and the copying of some with the firmware they ask for."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from metalimmu.images import ramdisk_debian
from metalimmu.images.ramdisk_debian import Tools, unpack
from metalimmu.images.ramdisk_modules import Firmware, Modules, Selection, find_firmware, parse, parse_modinfo

MODULES = "usr/lib/modules"
FIRMWARE = "usr/lib/firmware"
INDEXES = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


class Packages(Protocol):
    """What firmware needs of ramdisk_debian.Apt."""

    def fetch(self, *names: str) -> list[Path]: ...
    def owners(self) -> dict[str, list[str]]: ...


class Kernel:
    """`deb` unpacked into `tree`. `modules` is all that it has, by depmod: the package itself has no modules.dep."""

    def __init__(self, deb: Path, tree: Path, tools: Tools) -> None:
        unpack([deb], tree, lambda path: path.startswith(("boot/vmlinuz", f"{MODULES}/")))
        self._tools = tools
        self.version = next((tree / MODULES).iterdir()).name
        self.vmlinuz = tree / f"boot/vmlinuz-{self.version}"
        self._folder = tree / MODULES / self.version
        self._depmod(tree)
        self.modules = self._index()

    def copy(self, chosen: Selection, target: Path) -> None:
        """The modules into the tree `target`, with indexes of these alone."""
        new = target / MODULES / self.version
        new.mkdir(parents=True)
        for name in INDEXES:
            shutil.copy(self._folder / name, new / name)
        for module in sorted(chosen.modules):
            path = self.modules.paths[module]
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            _copy_plain(self._folder / path, new / path)
        if not (target / "lib").exists():
            (target / "lib").symlink_to("usr/lib")
        self._depmod(target)

    def firmware(self, tree: Path) -> dict[str, tuple[str, ...]]:
        """Which firmware files the modules in `tree` ask for, by module."""
        files = sorted((tree / MODULES / self.version).rglob("*.ko"))
        return parse_modinfo(self._tools.run("usr/sbin/modinfo", *files).stdout.decode(errors="replace"))

    def _depmod(self, tree: Path) -> None:
        self._tools.run("usr/sbin/depmod", "-b", tree, self.version)

    def _index(self) -> Modules:
        dep, builtin, soft, alias = (
            (self._folder / f"modules.{name}").read_text() for name in ("dep", "builtin", "softdep", "alias")
        )
        return parse(dep, builtin, soft, alias)


def _copy_plain(source: Path, target: Path) -> None:
    """Uncompressed: the squashfs compresses all of them together better, and each loads without busybox knowing xz."""
    if source.suffix == ".xz":
        target.with_suffix("").write_bytes(lzma.decompress(source.read_bytes()))
    else:
        shutil.copy(source, target)


def add_firmware(
    tree: Path, asked: Mapping[str, Iterable[str]], apt: Packages, folder: Path | None
) -> tuple[Firmware, list[Path]]:
    """The files asked for into `tree`: from `folder` (laid out like /lib/firmware), else from Debian. Also the packages used."""
    mine = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()] if folder else []
    found = find_firmware(asked, mine, apt.owners() if asked else {})
    packages = {package for package in found.files.values() if package}
    debs = apt.fetch(*sorted(packages)) if packages else []
    _unpack_following_links(debs, tree, {f"{FIRMWARE}/{path}" for path, package in found.files.items() if package})
    for path, package in found.files.items():
        if folder and not package:
            (tree / FIRMWARE / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / path, tree / FIRMWARE / path)
    return found, debs


def _unpack_following_links(debs: Iterable[Path], target: Path, wanted: set[str]) -> None:
    """Many names of firmware files are symlinks to a versioned file (intel/ice/ddp/ice.pkg)."""
    for deb in debs:
        links = {
            member.name: os.path.normpath(PurePosixPath(member.name).parent / member.linkname)
            for member, _ in ramdisk_debian.members(deb)
            if member.issym()
        }
        keep = set(wanted)
        waiting = [path for path in wanted if path in links]
        while waiting:
            path = links[waiting.pop()]
            if path not in keep:
                keep.add(path)
                waiting += [path] if path in links else []
        unpack([deb], target, keep.__contains__)
