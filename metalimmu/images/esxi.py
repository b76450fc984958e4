"""ESXi's installer: VMware's ISO, whose boot.cfg has room for a deployment's own kernel options.

Its boot loader reads `key=value` lines; the last `kernelopt` counts, and empty lines are nothing (esx-boot, bootlib/parse.c).
The ISO has one boot.cfg for BIOS and one for UEFI. All else in it stays what it is, and so does how it boots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalimmu.errors import ImageError
from metalimmu.images import eltorito, iso
from metalimmu.images.add import Progress, store
from metalimmu.images.boot_media import Kit, kit
from metalimmu.images.catalogue import Catalogue, Image, split
from metalimmu.images.chunks import Reader
from metalimmu.images.ramdisk_debian import Tools
from metalimmu.wire.manifest import Bootable, Manifest, Part

CONFIG = "boot.cfg"  # name of the parts, one for each such file
ROOM = 4096  # bytes

_CD_ONLY = {"cdromBoot"}  # asks for answers on a CD


def add_esxi(
    catalogue: Catalogue,
    file: Path,
    ref: str,
    *,
    arguments: str = "",
    mirror: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    made: Kit | None = None,
) -> Image:
    """Add VMware's ISO as the installer `ref` (NAME@VERSION). `arguments`: more kernel options, a template.

    Raises ImageExists, ImageError (no such ISO), ToolError.
    """
    split(ref)
    tools = (made or kit(mirror)).tools
    with catalogue.locked(), catalogue.workspace() as work:
        target, parts, options = _with_room(file, work, tools)
        with target.open("rb") as stream:
            chunks, size = store(stream, catalogue.chunks, progress=progress)
        facts = eltorito.read(Reader(chunks, size, catalogue.chunks).read, size)
        line = " ".join((*options, *arguments.split()))
        manifest = Manifest(
            kind="installer",
            architecture="x86_64",
            size=size,
            chunks=chunks,
            firmware=facts.firmware,
            efi_loader="",
            boots=Bootable(parts, facts.label, line, "esxi"),
        )
        source = {"source": {"file": file.name, "format": "iso", "label": facts.label}}
        return catalogue.publish(ref, manifest, source | dict(provenance or {}), {})


def _with_room(file: Path, work: Path, tools: Tools) -> tuple[Path, tuple[Part, ...], tuple[str, ...]]:
    """The ISO with longer files, where their room is, and the kernel options that it came with."""
    paths = _configs(file, tools)
    target = work / "esxi.iso"
    change: list[str | Path] = []
    heads: dict[str, int] = {}
    options: tuple[str, ...] = ("runweasel",)
    for number, path in enumerate(paths):
        copy = work / f"boot.cfg.{number}"
        tools.run("usr/bin/xorriso", "-no_rc", "-osirrox", "on", "-indev", file, "-extract", path, copy)
        copy.chmod(0o644)
        head, found = _split(copy.read_bytes())
        options = found or options
        copy.write_bytes(head + b"\n" * ROOM)
        heads[path] = len(head)
        change += ["-map", copy, path]
    tools.run(
        "usr/bin/xorriso", "-no_rc", "-indev", file, "-outdev", target, "-boot_image", "any", "replay", *change, timeout=1800
    )  # fmt: skip
    parts = []
    for path in paths:
        offset, _ = iso.offset(target, path.lstrip("/"), tools)
        parts.append(Part(CONFIG, offset + heads[path], ROOM))
    return target, tuple(sorted(parts, key=lambda p: p.offset)), options


def _configs(file: Path, tools: Tools) -> list[str]:
    pattern = "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in CONFIG)
    said = tools.run("usr/bin/xorriso", "-no_rc", "-indev", file, "-find", "/", "-name", pattern).stdout.decode()
    paths = sorted(re.findall(r"^'(/[^']*)'$", said, re.MULTILINE))
    if not paths:
        raise ImageError(
            f"{file} has no {CONFIG}: it is not ESXi's installer", hint="--answers says whose installer it is"
        )
    return paths


def _split(text: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file without its kernel options, and these."""
    lines = text.decode("latin-1").splitlines()
    options: tuple[str, ...] = ()
    kept = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip().lower() == "kernelopt":
            options = tuple(w for w in value.split() if w not in _CD_ONLY)
        else:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept).encode("latin-1"), options
