"""Make the disk's content the image's: zeros, what is there already, and the rest from the controller.

The order makes a half-written disk unable to boot: first the disk's beginning (boot sector, partition table) and end
(backup table) become zero, and the image's first chunk is written last, by commit.py, when all else was read back.
A power cut at any time so leads to the network or the media again, never into half a system, and no byte that was not
compared with the manifest can run.

What is done is the disk itself: after a restart the controller names this image as the disk's previous one, and the
chunks that are there are kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from metalimmu.agent.block import MIB, ZERO_STEP, Buffer, Device
from metalimmu.agent.fetch import Source
from metalimmu.agent.link import Link
from metalimmu.agent.mirror import HalvesDiffer
from metalimmu.agent.pool import each
from metalimmu.wire.manifest import CHUNK, Manifest

MOST_CONNECTIONS = 16


@dataclass
class Counts:
    fetched_chunks: int = 0
    fetched_bytes: int = 0  # compressed
    kept_chunks: int = 0
    zero_bytes: int = 0


class Writer:
    """Writes one image to one disk; keeps in memory which chunks are done, so it can be run again after a break.

    `source(halt)` makes a connection to the chunks.
    """

    def __init__(
        self, device: Device, manifest: Manifest, link: Link, source: Callable[[threading.Event], Source]
    ) -> None:
        self.device, self.manifest, self.link, self.source = device, manifest, link, source
        self.counts = Counts()
        self.done: set[int] = {0}  # the first chunk is commit.py's
        self.ready: dict[str, bytes] = {}  # chunks that had to be looked into before the write
        self.interrupted = False  # the disk shows that an earlier write broke off
        self._began = self._zeroed = False
        self._lock = threading.Lock()

    def take_boot_away(self) -> None:
        """Once. The beginning is zero already when an earlier write broke off."""
        if self._began:
            return
        first = self.manifest.chunk_extent(0)
        buffer = Buffer(first.length)
        with suppress(HalvesDiffer):
            self.device.read_into(buffer.view, 0)
            self.interrupted = buffer.is_zero(first.length)
        self.device.zero(0, first.length)
        end = max(0, self.device.size - MIB)
        self.device.zero(end, self.device.size - end)
        self.device.flush()
        self._began = True

    def zero(self) -> None:
        """All zero extents, once; by the disk itself where it can, 256 MiB at a time."""
        if self._zeroed:
            return
        extents = list(self.manifest.zero_extents())
        self.link.phase("zero", sum(e.length for e in extents))
        self.counts.zero_bytes = 0
        for extent in extents:
            for at in range(extent.offset, extent.offset + extent.length, ZERO_STEP):
                self.link.check()
                length = min(ZERO_STEP, extent.offset + extent.length - at)
                self.device.zero(at, length)
                self.counts.zero_bytes += length
                self.link.advance(length)
        self._zeroed = True

    def write(self, previous: Manifest | None, parallel: int) -> None:
        """`previous` is what the disk is thought to hold: where it agrees, the disk is looked at first."""
        todo = self._todo()
        total = sum(self.manifest.chunk_extent(i).length for i, c in enumerate(self.manifest.chunks) if c)
        self.link.phase("write", total)
        self.link.advance(total - sum(self.manifest.chunk_extent(i).length for at in todo.values() for i in at))
        old = previous.chunks if previous else ()
        maybe = {i for i, (a, b) in enumerate(zip(old, self.manifest.chunks, strict=False)) if a and a == b}
        halt = threading.Event()
        workers = [
            _Worker(self, self.source(halt), maybe) for _ in range(max(1, min(parallel, MOST_CONNECTIONS, len(todo))))
        ]
        try:
            each(todo.items(), workers, halt, self.link.stop)
        finally:
            for worker in workers:
                worker.source.close()
        self.link.check()
        self.device.flush()

    def _todo(self) -> dict[str, list[int]]:
        """Chunk -> where it goes, in the order of the disk; equal chunks are fetched once."""
        todo: dict[str, list[int]] = {}
        for i, chunk in enumerate(self.manifest.chunks):
            if chunk is not None and i not in self.done:
                todo.setdefault(chunk, []).append(i)
        return todo

    def note(self, index: int, *, kept: bool) -> None:
        with self._lock:
            self.done.add(index)
            self.counts.kept_chunks += kept
        self.link.advance(self.manifest.chunk_extent(index).length)

    def fetched(self, size: int) -> None:
        with self._lock:
            self.counts.fetched_chunks += 1
            self.counts.fetched_bytes += size
        self.link.advance(0, size)


class _Worker:
    """One thread's connection and memory."""

    def __init__(self, writer: Writer, source: Source, maybe: set[int]) -> None:
        self.writer, self.source, self.maybe = writer, source, maybe
        self.buffer = Buffer()

    def __call__(self, item: tuple[str, list[int]]) -> None:
        sha, places = item
        missing = list(self._missing(sha, places))
        if not missing:
            return
        length = self.writer.manifest.chunk_extent(missing[0]).length
        if sha in self.writer.ready:
            self.buffer.view[:length] = self.writer.ready[sha]
        else:
            size = self.source.fetch(sha, length, self.buffer)
            if size < 0:
                return
            self.writer.fetched(size)
        for index in missing:
            self.writer.device.write_from(self.buffer.view[:length], index * CHUNK)
            self.writer.note(index, kept=False)

    def _missing(self, sha: str, places: list[int]) -> Iterator[int]:
        for index in places:
            view = self.buffer.view[: self.writer.manifest.chunk_extent(index).length]
            if index in self.maybe and self._holds(view, index, sha):
                self.writer.note(index, kept=True)
            else:
                yield index

    def _holds(self, view: memoryview, index: int, sha: str) -> bool:
        try:
            self.writer.device.read_into(view, index * CHUNK)
        except HalvesDiffer:
            return False
        return hashlib.sha256(view).hexdigest() == sha
