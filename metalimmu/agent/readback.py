"""Read the disk back, past the page cache, and compare every chunk with the manifest."""

from __future__ import annotations

import hashlib
import os
import threading

from metalimmu.agent.block import Buffer, Device
from metalimmu.agent.fetch import Source
from metalimmu.agent.link import Link
from metalimmu.agent.pool import each
from metalimmu.errors import ReadBackDiffers
from metalimmu.wire.manifest import CHUNK, Manifest

_MOST_THREADS = 8


class _Differs(Exception):  # never leaves this module
    def __init__(self, index: int, seen: str) -> None:
        super().__init__(index)
        self.index, self.seen = index, seen


def read_back(device: Device, manifest: Manifest, link: Link, source: Source) -> list[str | None]:
    """All chunks but the first (commit.py reads that one back). Returns what was seen: SHA-256 by chunk, None for
    zeros and for the first. Raises ReadBackDiffers, or ChunkCorrupt when it was the controller's chunk that was wrong.

    Zeros are compared, not hashed: on a small machine that is many times faster.
    """
    link.phase("read-back", manifest.size)
    link.advance(manifest.chunk_extent(0).length)
    halt = threading.Event()
    seen: list[str | None] = [None] * len(manifest.chunks)
    workers = [_Reader(device, manifest, link, seen) for _ in range(max(2, min(_MOST_THREADS, os.cpu_count() or 1)))]
    try:
        each(range(1, len(manifest.chunks)), workers, halt, link.stop)
    except _Differs as found:
        _blame(device, manifest, source, found)
    link.check()
    return seen


class _Reader:
    def __init__(self, device: Device, manifest: Manifest, link: Link, seen: list[str | None]) -> None:
        self.device, self.manifest, self.link, self.seen = device, manifest, link, seen
        self.buffer = Buffer()

    def __call__(self, index: int) -> None:
        length = self.manifest.chunk_extent(index).length
        view = self.buffer.view[:length]
        self.device.read_into(view, index * CHUNK)
        wanted = self.manifest.chunks[index]
        if wanted is None:
            if not self.buffer.is_zero(length):
                raise _Differs(index, hashlib.sha256(view).hexdigest())
        else:
            self.seen[index] = digest = hashlib.sha256(view).hexdigest()
            if digest != wanted:
                raise _Differs(index, digest)
        self.link.advance(length)


def _blame(device: Device, manifest: Manifest, source: Source, found: _Differs) -> None:
    """A chunk may have arrived wrong (fetch.py does not hash all of them). Fetch it again, hashed, to tell."""
    wanted = manifest.chunks[found.index]
    extent = manifest.chunk_extent(found.index)
    if wanted is not None:
        source.fetch(wanted, extent.length, Buffer(), check=True)
    raise ReadBackDiffers(
        f"{device.path}: bytes {extent.offset} to {extent.offset + extent.length} read back with SHA-256 {found.seen}, "
        f"expected {wanted or 'zeros'}; the controller's chunk is right"
    )
