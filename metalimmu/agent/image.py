"""The image as it is on the controller, looked into before anything is written."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from metalimmu.agent.block import Buffer, Device
from metalimmu.agent.fetch import Source
from metalimmu.agent.link import Link
from metalimmu.agent.mirror import HalvesDiffer
from metalimmu.agent.signatures import scan
from metalimmu.agent.write import Writer
from metalimmu.wire.manifest import CHUNK, Manifest


class ImageReader:
    """Reads bytes of the image; a chunk comes from the disk where the previous image shares it, else over the
    network, hashed, and is kept for the write.
    """

    def __init__(self, writer: Writer, source: Source, device: Device, link: Link, previous: Manifest | None) -> None:
        self._writer, self._source, self._device, self._link = writer, source, device, link
        self._manifest = writer.manifest
        self._old = previous.chunks if previous else ()

    def chunk(self, index: int) -> bytes:
        """Raises ChunkCorrupt, Lost, Stopped."""
        sha = self._manifest.chunks[index]
        length = self._manifest.chunk_extent(index).length
        if sha is None:
            return bytes(length)
        if sha in self._writer.ready:
            return self._writer.ready[sha]
        if index < len(self._old) and self._old[index] == sha:
            with suppress(HalvesDiffer):
                data = self._device.read(index * CHUNK, length)
                if hashlib.sha256(data).hexdigest() == sha:
                    return data
        buffer = Buffer()
        size = self._source.fetch(sha, length, buffer, check=True)
        self._link.check()
        self._writer.fetched(size)
        return self._writer.ready.setdefault(sha, bytes(buffer.view[:length]))

    def read(self, offset: int, length: int) -> bytes:
        """Shorter at the image's end."""
        end = min(offset + length, self._manifest.size)
        if offset < 0 or offset >= end:
            return b""
        data = b"".join(self.chunk(i) for i in range(offset // CHUNK, (end - 1) // CHUNK + 1))
        return data[offset % CHUNK : offset % CHUNK + end - offset]

    def identifiers(self) -> set[str]:
        """UUIDs of its partition table, partitions and file systems: two of one kind in a machine confuse its boot."""
        found = scan(self.read, self._manifest.size, self._manifest.sector_size)
        return {s.uuid for s in found if s.uuid}
