"""Free the chunks that no manifest names. Alone in the store while it runs: an `add` that counts on a chunk finishes first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from metalimmu.images.catalogue import Catalogue


@dataclass(frozen=True)
class Collected:
    chunks: int
    bytes: int  # on disk
    kept: int  # chunks


def collect(catalogue: Catalogue, *, dry_run: bool = False, timeout: float = 600) -> Collected:
    """Remove unreferenced chunks and what crashed runs left behind.

    Raises ImageError when writers hold the store for more than `timeout` seconds, ImageCorrupt when a manifest cannot
    be read (it may name any chunk, so nothing is removed then).
    """
    with catalogue.locked(exclusive=True, timeout=timeout):
        named = catalogue.referenced()
        chunks = freed = kept = 0
        for path in catalogue.chunks.all():
            if path.suffix == ".zst" and path.stem in named:
                kept += 1
                continue
            chunks += 1
            freed += path.stat().st_size
            if not dry_run:
                path.unlink()
        if not dry_run:
            for leftover in (*(catalogue.root / "tmp").glob("*"), *(catalogue.root / "catalogue").glob("*/.*")):
                shutil.rmtree(leftover, ignore_errors=True)
        return Collected(chunks, freed, kept)
