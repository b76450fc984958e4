"""Build a disk image from a recipe: no root, no loop device, the same inputs the same bytes.

A version built on its base is the base's own disk with the difference of the two trees applied, so that only the
chunks that hold changed files change.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from metalimmu import log, paths, structs
from metalimmu.errors import ImageError, UsageError
from metalimmu.images import debian, disk, ext4, recipes, tree
from metalimmu.images.add import Progress, add
from metalimmu.images.catalogue import Catalogue, Image, split
from metalimmu.images.chunks import ChunkStore, full, reassemble
from metalimmu.images.recipes import Order, Parts, Recipe, release

FORMAT = 1  # of what this module makes: part of every build id, counted up when the same inputs give other bytes
ROOM = 1.35  # of the tree's own size, so that later versions find place in the same file system
STEP = 256 << 20  # sizes are multiples of this
TREE = "tree.jsonl.zst"
LOST_FOUND = {"lost+found": tree.Entry("dir", 0o700)}

_LOG = log.get(__name__)


@dataclass(frozen=True)
class Base:
    """The image that a new version is built on, and what it holds."""

    image: Image
    root: tree.Tree | None
    esp: dict[str, str]
    plan: disk.Plan
    identity: str
    chunks: ChunkStore


def build(
    recipe: str | Recipe,
    ref: str | None,
    catalogue: Catalogue,
    *,
    base: str | None = None,
    mirror: str | None = None,
    size: str | None = None,
    packages: Sequence[str] = (),
    files: Path | None = None,
    kernel: str | None = None,
    progress: Progress | None = None,
) -> Image:
    """Build `recipe` (a name, a file or a Recipe) as `ref`; None: as the recipe's own name and version.

    `base` is NAME@VERSION of an image that was built with the same kind of recipe; `mirror` the URL of a Debian archive
    (default: see debian.mirror); `size` that of the whole disk; `packages`, `files` and `kernel` (cloud | generic)
    add to or replace the recipe's.
    Progress phases: packages, write, check, add. Raises ImageError, ImageExists, ToolError, NotFound, UsageError.
    """
    found, folder = recipes.load(recipe) if isinstance(recipe, str) else (recipe, Path.cwd())
    found = _with(found, size=size, packages=packages, files=files, kernel=kernel)
    ref = ref or _own_ref(found)
    split(ref)
    debian.need("mmdebstrap", "sfdisk", "mkfs.fat", "mcopy", "mke2fs", "debugfs", "e2fsck")
    with catalogue.locked():
        on = _base(catalogue, base, found) if base else None
        order = _order(found, ref, folder, mirror, on)
        try:
            return _build(order, catalogue, on, progress or _silent)
        except OSError as exc:
            raise full(exc, paths.cache() / "build") from exc


def _build(order: Order, catalogue: Catalogue, on: Base | None, progress: Progress) -> Image:
    started = time.time()
    scratch = paths.cache() / "build"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        work = Path(folder)
        stage = tree.Stage(work / "stage")
        made: dict[str, Any] = {}

        def build_id(packages: dict[str, str]) -> str:
            made["inputs"] = _inputs(order, packages, on)
            made["id"] = hashlib.sha256(_canonical(made["inputs"])).hexdigest()[:16]
            return str(made["id"])

        progress("packages", 0, 0)
        parts = recipes.builder(order.recipe)(order, work, stage, build_id)
        progress("write", 0, 0)
        image = work / "disk.raw"
        plan = _write(image, order, parts, stage, on)
        progress("check", 0, 0)
        provenance = {
            **made["inputs"],
            "build_id": made["id"],
            "base": {"ref": on.image.ref, "digest": on.image.digest} if on else None,
            "mirror": order.mirror,
            "sources": list(order.sources),
            "tools": _tools(),
            "identity": order.identity,
            "esp": parts.esp,
            "plan": {"root_size": plan.root_size, "esp_size": plan.esp_size},
            "started": started,
            "seconds": round(time.time() - started, 1),
        }
        documents = {TREE: tree.encode(parts.root)} if parts.root is not None else {}
        return add(
            catalogue,
            image,
            f"{order.name}@{order.version}",
            provenance=provenance,
            documents=documents,
            architecture="x86_64",
            build_id=made["id"],
            efi_loader=parts.efi_loader,
            progress=progress,
        )


def _write(image: Path, order: Order, parts: Parts, stage: tree.Stage, on: Base | None) -> disk.Plan:
    """The disk image: the base's with what differs, or a new one."""
    identity = disk.Identity(order.identity)
    plan = on.plan if on else _plan(order.recipe, parts)
    if on:
        reassemble(on.image.manifest, on.chunks, image)
    else:
        disk.partition(image, plan, identity)
    disk.write_bios_boot(image, plan, parts.boot, parts.core)
    disk.write_esp(image, plan, identity, old=on.esp if on else {}, new=parts.esp, source=stage.path, epoch=order.epoch)
    if parts.root is not None:
        fs = ext4.FileSystem(image, plan.root.offset, plan.root.length, order.epoch)
        if not on:
            ext4.make(fs, identity=identity.uuid("root-fs"), hash_seed=identity.uuid("hash-seed"), label="root")
        old = on.root if on and on.root is not None else {}
        change = ext4.apply(fs, {**old, **LOST_FOUND}, {**parts.root, **LOST_FOUND}, stage)
        if on:
            _LOG.info("changed on the base: %d removed, %d new, %d with other content, %d with other attributes",
                len(change.remove), len(change.create), len(change.content), len(change.attributes))  # fmt: skip
    return plan


def _plan(recipe: Recipe, parts: Parts) -> disk.Plan:
    """Room for the tree and for later versions of it. The root grows on the machine, so small is no limit."""
    if parts.root is None:
        smallest = disk.Plan(0)
        wanted = recipes.size_bytes(recipe.size) if recipe.size else smallest.size
        if wanted < smallest.size:
            raise UsageError(f"{recipe.size} is too small", hint=f"tiny needs {smallest.size >> 20} MiB")
        return disk.Plan(0, smallest.esp_size + wanted - smallest.size)
    tables = 64 << 20  # journal, inode tables and bitmaps
    need = int(tree.content_size(parts.root) * ROOM) + tables
    if recipe.size is None:
        return disk.Plan(-(-need // STEP) * STEP)
    root = recipes.size_bytes(recipe.size) - disk.Plan(0).size
    least = tree.content_size(parts.root) + tables
    if root < least:
        raise UsageError(
            f"{recipe.size} is too small: this tree needs {(least + disk.Plan(0).size) >> 20} MiB",
            hint="leave the size out",
        )
    return disk.Plan(root)


def _base(catalogue: Catalogue, ref: str, recipe: Recipe) -> Base:
    """Raises ImageError when the image was not built here, or of another recipe."""
    image = catalogue.get(ref)
    told = image.provenance
    made = (told.get("recipe") or {}).get("recipe")
    if made != recipe.recipe or "plan" not in told:
        what = f"made by the recipe {made}" if made else "not built by metalimmu"
        raise ImageError(
            f"{ref} is {what}; it cannot be the base of a {recipe.recipe} image", hint="build without --base"
        )
    if recipe.size is not None:
        raise UsageError("--size and --base exclude each other", hint="the file system keeps the base's size")
    listing = catalogue.document(ref, TREE)
    if made == "debian" and listing is None:
        raise ImageError(f"{ref} has lost its {TREE}", hint="build without --base")
    return Base(
        image,
        tree.decode(listing) if listing is not None else None,
        dict(told["esp"]),
        disk.Plan(told["plan"]["root_size"], told["plan"]["esp_size"]),
        told["identity"],
        catalogue.chunks,
    )


def _order(recipe: Recipe, ref: str, folder: Path, mirror: str | None, on: Base | None) -> Order:
    name, version = split(ref)
    archive = debian.mirror(mirror)
    return Order(
        recipe=recipe,
        name=name,
        version=version,
        folder=folder,
        mirror=archive,
        sources=tuple(debian.sources(archive, recipe.suite, *recipe.components)),
        # The suite's last point release: the same for weeks, and later than most of its files.
        epoch=debian.release_date(archive, recipe.suite),
        identity=on.identity if on else name,
    )


def _with(
    recipe: Recipe,
    *,
    size: str | None = None,
    packages: Sequence[str] = (),
    files: Path | None = None,
    kernel: str | None = None,
) -> Recipe:
    changes: dict[str, Any] = {k: v for k, v in (("size", size), ("kernel", kernel)) if v}
    if packages:
        changes["packages"] = [*recipe.packages, *packages]
    if files:
        changes["files"] = str(files.resolve())
    try:  # through the decoder once more: these came from a command line
        return structs.convert(msgspec.to_builtins(msgspec.structs.replace(recipe, **changes)), Recipe)
    except msgspec.ValidationError as exc:
        raise UsageError(f"{exc}", hint="see `metalimmu image build --help`") from exc


def _own_ref(recipe: Recipe) -> str:
    if not recipe.name or not recipe.version:
        raise UsageError(
            "the recipe has no name and version", hint="--as NAME@VERSION, or `name:` and `version:` in the recipe file"
        )
    return f"{recipe.name}@{recipe.version}"


def _inputs(order: Order, packages: dict[str, str], on: Base | None) -> dict[str, Any]:
    """All that the bytes depend on: their hash is the build id."""
    wanted = replace(order, recipe=msgspec.structs.replace(order.recipe, name=None, version=None))
    files = release.folder(order.folder / order.recipe.files) if order.recipe.files else {}
    laid = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest() if files else None
    recipe = {k: v for k, v in msgspec.to_builtins(wanted.recipe).items() if k not in {"name", "version", "files"}}
    return {
        "format": FORMAT,
        "recipe": recipe,
        "name": order.name,
        "version": order.version,
        "files": laid,
        "packages": packages,
        "source_date_epoch": order.epoch,
        "base_digest": on.image.digest if on else None,
    }


def _tools() -> dict[str, str]:
    """Versions of what made the bytes."""
    asked = {
        "mmdebstrap": ["mmdebstrap", "--version"],
        "e2fsprogs": ["mke2fs", "-V"],
        "dosfstools": ["mkfs.fat", "--help"],
        "mtools": ["mcopy", "--version"],
        "sfdisk": ["sfdisk", "--version"],
    }
    versions = {"python": platform.python_version()}
    for name, command in asked.items():
        said = debian.run_tool(command, timeout=30, ok=range(256))
        found = re.search(rb"\d+\.\d+[\w.+-]*", said.stdout + said.stderr)
        versions[name] = found.group(0).decode() if found else "unknown"
    return versions


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _silent(_phase: str, _done: int, _total: int) -> None:
    return None
