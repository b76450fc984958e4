"""How much does `image add` cost, and `image verify`?

Held against what a person would type: `sha256sum` of the file and `zstd -3` of it, one after the other, on the same
number of threads. Both sides read the same file from the page cache and leave compressed bytes on the same disk; ours
also cuts into chunks, looks for zeros, stores each chunk once and syncs. The answers are compared: what the chunks are
put together to has the SHA-256 that `sha256sum` printed.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.options import options
from benchmarks.result import Result, at_most
from metalimmu.images.add import WORKERS, add
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.chunks import reassemble
from metalimmu.images.verify import verify
from metalimmu.wire.manifest import CHUNK

ADD_LIMIT, VERIFY_LIMIT = 1.25, 1.5


def run() -> list[Result]:
    size = (32 if options().quick else 512) * CHUNK
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = _content(folder / "disk.raw", size)
        return [_add(folder, image), _verify(folder, image)]


def _content(path: Path, size: int) -> Path:
    """Programs of this machine, as an image has them; written whole, so that nobody may skip a hole."""
    made = random.Random(1)
    files = sorted(p for p in Path("/usr/bin").iterdir() if p.is_file() and os.access(p, os.R_OK))
    made.shuffle(files)
    with path.open("wb") as out:
        while out.tell() < size:
            for file in files:
                out.write(file.read_bytes() + made.randbytes(64))
                if out.tell() >= size:
                    break
        out.truncate(size)
    return path


def _add(folder: Path, image: Path) -> Result:
    truth = subprocess.run(["sha256sum", image], check=True, capture_output=True).stdout.decode().split()[0]
    ours, theirs = [], []
    equal = True
    for i in range(options().repeat(5, 1)):
        store = Catalogue(folder / f"store-{i}")
        ours.append(_seconds(lambda store=store: add(store, image, "bench@1")))  # type: ignore[misc]
        theirs.append(_seconds(lambda: _by_hand(image, folder / "by-hand.zst")))
        reassemble(store.get("bench@1").manifest, store.chunks, folder / "again.raw")
        equal &= hashlib.sha256((folder / "again.raw").read_bytes()).hexdigest() == truth
    return at_most(
        "image add, 512 MiB of programs", ours, theirs, ADD_LIMIT, unit="s", rival="sha256sum; zstd -3", equal=equal
    )


def _verify(folder: Path, image: Path) -> Result:
    store = Catalogue(folder / "store-0")
    ours, theirs = [], []
    for _ in range(options().repeat(5, 1)):
        ours.append(_seconds(lambda: verify(store)))
        theirs.append(_seconds(lambda: _read_by_hand(folder / "by-hand.zst")))
    return at_most(
        "image verify, the same",
        ours,
        theirs,
        VERIFY_LIMIT,
        unit="s",
        rival="zstd -dc | sha256sum",
        chunks=image.stat().st_size // CHUNK,
    )


def _by_hand(image: Path, out: Path) -> None:
    subprocess.run(["sha256sum", image], check=True, capture_output=True)
    subprocess.run(["zstd", "-q", "-f", "-3", f"-T{WORKERS}", image, "-o", out], check=True)
    subprocess.run(["sync", out], check=True)


def _read_by_hand(packed: Path) -> None:
    with subprocess.Popen(["zstd", "-dc", packed], stdout=subprocess.PIPE) as unpacked:
        subprocess.run(["sha256sum"], stdin=unpacked.stdout, check=True, capture_output=True)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
