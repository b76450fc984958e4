"""Is every image still what its digest says? And what moves between two of them?"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from metalimmu.errors import ImageCorrupt
from metalimmu.images.add import WORKERS, Progress
from metalimmu.images.catalogue import Catalogue, Image
from metalimmu.images.chunks import ChunkStore
from metalimmu.wire.manifest import CHUNK


@dataclass(frozen=True)
class Verified:
    images: int
    chunks: int  # distinct
    stored: int  # bytes on disk


@dataclass(frozen=True)
class Diff:
    """What a machine that holds A needs to become B. Bytes are compressed: what travels."""

    same: int  # positions with the same content, zeros included
    changed: int  # positions that differ
    fetch: int  # distinct chunks of B that A has nowhere
    fetch_bytes: int
    whole_bytes: int  # of all of B's chunks


def verify(catalogue: Catalogue, refs: Iterable[str] = (), *, progress: Progress | None = None) -> Verified:
    """Read every chunk of these images (of all, if none is named) and compare its SHA-256; each chunk once.

    Raises ImageCorrupt that names the chunks and the images.
    """
    images = [catalogue.get(r) for r in (tuple(refs) or catalogue.refs())]
    users: dict[str, list[Image]] = {}
    for image in images:
        for sha in image.manifest.distinct():
            users.setdefault(sha, []).append(image)
    names = sorted(users)
    bad: list[str] = []
    stored = 0
    with ThreadPoolExecutor(WORKERS, "verify") as pool:
        for i, (problem, size) in enumerate(pool.map(lambda s: _check(catalogue.chunks, s), names)):
            stored += size
            if problem:
                bad.append(f"{problem} (used by {', '.join(image.ref for image in users[names[i]])})")
            if progress and i % 16 == 0:
                progress("verify", i * CHUNK, len(names) * CHUNK)
    if bad:
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ImageCorrupt("; ".join(bad[:5]) + more)
    return Verified(len(images), len(names), stored)


def _check(chunks: ChunkStore, sha: str) -> tuple[str, int]:
    try:
        chunks.read(sha)
        return "", chunks.size(sha)
    except ImageCorrupt as exc:
        return exc.message, 0


def diff(catalogue: Catalogue, a: Image, b: Image) -> Diff:
    """Chunks shared and changed between two images, and the bytes to move. Raises ImageCorrupt."""
    old, new = a.manifest, b.manifest
    same = sum(1 for i, sha in enumerate(new.chunks) if i < len(old.chunks) and old.chunks[i] == sha)
    missing = new.distinct() - old.distinct()
    size = catalogue.chunks.size
    return Diff(
        same=same,
        changed=len(new.chunks) - same,
        fetch=len(missing),
        fetch_bytes=sum(map(size, missing)),
        whole_bytes=sum(map(size, new.distinct())),
    )
