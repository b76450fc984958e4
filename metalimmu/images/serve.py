"""An image's bytes as one file that can be read anywhere, with a deployment's own bytes in its slots."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from metalimmu.errors import ImageError
from metalimmu.images.chunks import ChunkStore
from metalimmu.wire.manifest import CHUNK, Manifest, Part

_KEPT = 16  # unpacked chunks; BMCs read forward, a kernel reads around


class ImageFile:
    """Reads chunks, each checked against its SHA-256 when it is unpacked. Safe to share between threads.

    `slots`: offset -> bytes that stand there instead. Raises ImageError for a slot outside of the image; `pread` raises
    ImageCorrupt.
    """

    def __init__(self, manifest: Manifest, store: ChunkStore, slots: Mapping[int, bytes] | None = None) -> None:
        self.size = manifest.size
        self._chunks = manifest.chunks
        self._store = store
        self._slots = sorted((slots or {}).items())
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        for offset, data in self._slots:
            if offset < 0 or offset + len(data) > self.size:
                raise ImageError(f"the slot at {offset} with {len(data)} bytes is not inside of the image")

    def pread(self, offset: int, length: int) -> bytes:
        """Fewer bytes than asked for only at the end."""
        end = min(offset + length, self.size)
        if offset < 0 or offset >= end:
            return b""
        parts = []
        at = offset
        while at < end:
            index, start = divmod(at, CHUNK)
            part = self._chunk(index)[start : start + end - at]
            parts.append(part)
            at += len(part)
        return self._spliced(b"".join(parts), offset)

    def _spliced(self, data: bytes, offset: int) -> bytes:
        for start, mine in self._slots:
            first, last = max(start, offset), min(start + len(mine), offset + len(data))
            if first < last:
                data = data[: first - offset] + mine[first - start : last - start] + data[last - offset :]
        return data

    def _chunk(self, index: int) -> bytes:
        with self._lock:
            found = self._kept.get(index)
            if found is not None:
                self._kept.move_to_end(index)
                return found
        sha = self._chunks[index]
        data = self._store.read(sha) if sha else bytes(min(CHUNK, self.size - index * CHUNK))
        with self._lock:
            self._kept[index] = data
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return data

    def close(self) -> None:
        """Nothing is held open."""


class PartFile:
    """One part of an image as a file: what a machine that boots from the network fetches."""

    def __init__(self, whole: ImageFile, part: Part) -> None:
        self.size = part.length
        self._whole, self._offset = whole, part.offset

    def pread(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset >= self.size:
            return b""
        return self._whole.pread(self._offset + offset, min(length, self.size - offset))

    def close(self) -> None:
        self._whole.close()
