"""Bootable images for the benchmarks: the recipe `tiny`, with content that makes it as full as a real system's image.

========  =================================================================================================
tiny@1    as the recipe makes it: 75 MiB, more than half of it zeros
full@1    320 MiB, no chunk of zeros but for the 8 MiB of the seed partition, which every machine fills itself: half
          random bytes, half text; what is free in its file system holds the leftovers of a deleted file
full@2    built on it with `--base`: 3 MiB of new files in the system
sparse@1  320 MiB, 80 % of the chunks zeros
========  =================================================================================================

Made once and kept in the cache, under a hash of all that they are made by.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import re
import shutil
import tempfile
import time
from pathlib import Path

from metalimmu import paths
from metalimmu.images import build, debian, disk
from metalimmu.images.add import add
from metalimmu.images.catalogue import Catalogue, Image
from metalimmu.images.chunks import reassemble
from metalimmu.wire.manifest import CHUNK

MIB = 1 << 20
SIZE = 320  # MiB
SPARSE = 0.8  # of the chunks are zeros
ROOM = 12  # MiB in full@1 for the files of full@2
NEW = 3  # MiB that full@2 adds
KEEP = 7 * 86400.0  # seconds
ORDER = ("tiny@1", "full@1", "full@2", "sparse@1")


def catalogue() -> Catalogue:
    return Catalogue(_home() / "images")


def image(ref: str) -> Image:
    """From the cache, or built now: a minute each."""
    found = catalogue()
    if not any(i.ref == ref for i in found.images()):
        with tempfile.TemporaryDirectory(dir=_home()) as work:
            {"tiny": _tiny, "full": _full, "sparse": _sparse}[ref.partition("@")[0]](found, ref, Path(work))
    return found.get(ref)


def raw(ref: str) -> Path:
    """The image as a file, holes where it is zero: what the disk is compared with."""
    made = image(ref)
    path = _home() / "raw" / f"{made.digest.removeprefix('sha256:')}.raw"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        reassemble(made.manifest, catalogue().chunks, part)
        part.rename(path)
    return path


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def zeros(made: Image) -> float:
    """The share of chunks that are all zeros."""
    return made.manifest.chunks.count(None) / len(made.manifest.chunks)


def _tiny(found: Catalogue, ref: str, _work: Path) -> None:
    build.build("tiny", ref, found)


def _full(found: Catalogue, ref: str, work: Path) -> None:
    if ref.endswith("@2"):
        image("full@1")
        files = work / "files" / "opt" / "new"
        files.mkdir(parents=True)
        (files / "content").write_bytes(_content(NEW * MIB, "full@2"))
        build.build("tiny", ref, found, base="full@1", files=work / "files")
        return
    made, bare, plan = _start(ref, work)
    esp = f"{bare}@@{plan.esp.offset}"
    room = _put(esp, work, "filler", ROOM * MIB, ref)
    _put(esp, work, "payload", room, ref)
    debian.run_tool(["mdel", "-i", esp, "::/filler"], env=_MTOOLS)  # its bytes stay
    _keep(found, bare, made)


def _sparse(found: Catalogue, ref: str, work: Path) -> None:
    made, bare, plan = _start(ref, work)
    used = len(made.manifest.chunks) - made.manifest.chunks.count(None)
    _put(f"{bare}@@{plan.esp.offset}", work, "payload", (round(SIZE * (1 - SPARSE)) - used) * MIB, ref)
    _keep(found, bare, made)


def _start(ref: str, work: Path) -> tuple[Image, Path, disk.Plan]:
    """`tiny` of our size, as a file that may be changed. It says that it is `ref`, so that is what it must become."""
    store = Catalogue(work / "store")
    made = build.build("tiny", ref, store, size=f"{SIZE}MiB")
    bare = work / "disk.raw"
    reassemble(made.manifest, store.chunks, bare)
    return made, bare, disk.Plan(made.provenance["plan"]["root_size"], made.provenance["plan"]["esp_size"])


def _keep(found: Catalogue, bare: Path, made: Image) -> None:
    """Under the same name, with the story of how it was built, so that a next version can be built on it."""
    told = {k: v for k, v in made.provenance.items() if k not in {"image", "digest", "added"}}
    add(found, bare, made.ref, provenance=told, architecture="x86_64", build_id=made.manifest.build_id)


_MTOOLS = {"MTOOLS_SKIP_CHECK": "1"}


def _put(esp: str, work: Path, name: str, size: int, seed: str) -> int:
    """A file of at most `size` bytes into the ESP; gives the bytes that are free after it."""
    free = _free(esp)
    file = work / name
    file.write_bytes(_content(min(size, free), f"{seed}/{name}"))
    debian.run_tool(["mcopy", "-i", esp, file, f"::/{name}"], env=_MTOOLS)
    file.unlink()
    return _free(esp)


def _free(esp: str) -> int:
    said = debian.run_tool(["mdir", "-i", esp, "::/"], env=_MTOOLS).stdout.decode()
    found = re.search(r"([\d ]+) bytes free", said)
    if not found:
        raise RuntimeError(f"mdir does not say how much is free: {said[-300:]}")
    return int(found.group(1).replace(" ", ""))


def _content(size: int, seed: str) -> bytes:
    """Random bytes and text by turns, a chunk each; the same for the same seed."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("etaoinshrdlucmfwypvbgkjqxz", k=dice.randint(2, 9))) for _ in range(4096)]
    out = bytearray()
    while len(out) < size:
        out += dice.randbytes(CHUNK)
        out += " ".join(dice.choices(words, k=CHUNK // 5)).encode()[:CHUNK].ljust(CHUNK, b"\n")
    return bytes(out[:size])


@functools.cache
def _home() -> Path:
    """A folder of the cache for what decides the images' bytes; one that nobody used for a week is removed."""
    package = Path(build.__file__).parent
    made_by = [
        *(package / f"{n}.py" for n in ("build", "disk", "add", "chunks")),
        *package.glob("recipes/**/*"),
        *(paths.data("pxe") / "proof").iterdir(),
    ]
    state = hashlib.sha256(Path(__file__).read_bytes())
    for source in sorted(s for s in made_by if s.is_file() and s.suffix != ".pyc"):
        state.update(source.read_bytes())
    home = paths.cache() / "bench" / f"images-{state.hexdigest()[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    os.utime(home)
    for old in home.parent.glob("images-*"):
        if time.time() - old.stat().st_mtime > KEEP:
            shutil.rmtree(old, ignore_errors=True)
    return home


if __name__ == "__main__":
    for each in ORDER:
        made = image(each)
        raw(each)
        stored = sum(catalogue().chunks.size(c) for c in made.manifest.distinct())
        print(f"{each}: {made.manifest.size >> 20} MiB, {zeros(made):.0%} zeros, {stored / 1e6:.1f} MB compressed")
