"""Chunks on disk: each once, by the SHA-256 of its content, as one zstd frame (RFC 8878) that any web server can hand out.

ROOT/chunks/ab/abcdef....zst
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metalimmu.errors import ImageCorrupt, ImageError
from metalimmu.wire.manifest import CHUNK, Manifest

LEVEL = 3  # of zstd: 6 and more cost four times the CPU for 5 % fewer bytes of a Debian root
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_LOCAL = threading.local()


class ChunkStore:
    """The folder of chunks. Safe to use from many threads and processes: every write is one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha: str) -> Path:
        return self.root / sha[:2] / f"{sha}.zst"

    def size(self, sha: str) -> int:
        """Bytes on disk, which is what travels. Raises ImageCorrupt when the chunk is not there."""
        try:
            return self.path(sha).stat().st_size
        except FileNotFoundError:
            raise ImageCorrupt(f"chunk {sha} is missing") from None

    def read(self, sha: str) -> bytes:
        """The content, its SHA-256 checked. Raises ImageCorrupt."""
        try:
            frame = self.path(sha).read_bytes()
        except FileNotFoundError:
            raise ImageCorrupt(f"chunk {sha} is missing") from None
        data = _unpack(frame)
        found = hashlib.sha256(data).hexdigest() if data is not None else "no zstd frame"
        if data is None or found != sha:
            raise ImageCorrupt(f"chunk {sha} is corrupt: its content has {found}")
        return data

    def put(self, sha: str, data: bytes) -> bool:
        """Keep `data` under its SHA-256; False when it was there already. A corrupt file of that name is replaced.

        Raises ImageError when the disk is full; nothing half stays behind.
        """
        path = self.path(sha)
        if path.is_file() and _unpack(path.read_bytes()) == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # Thread and process in the name: two writers of one chunk must not share a temporary file.
        temporary = path.parent / f".{sha}.{os.getpid()}.{threading.get_ident()}"
        try:
            temporary.write_bytes(_compressor().compress(data))
            temporary.replace(path)
        except OSError as exc:
            temporary.unlink(missing_ok=True)
            raise full(exc, self.root) from exc
        return True

    def sync(self, shas: Iterable[str]) -> None:
        """Make these chunks survive a power cut. Done once for many: the disk has written most of them by then."""
        folders: set[Path] = set()
        for sha in shas:
            fsync(self.path(sha))
            folders.add(self.path(sha).parent)
        for folder in (*folders, self.root):
            fsync(folder)

    def all(self) -> Iterator[Path]:
        """Every file below the root, temporary ones too."""
        for folder in sorted(self.root.glob("*")):
            yield from sorted(folder.iterdir())


class Reader:
    """Random access to an image's bytes."""

    def __init__(self, chunks: tuple[str | None, ...], size: int, store: ChunkStore) -> None:
        self.chunks, self.size, self.store = chunks, size, store
        self._last: tuple[int, bytes] = (-1, b"")

    def chunk(self, index: int) -> bytes:
        if self._last[0] != index:
            sha = self.chunks[index]
            length = min(CHUNK, self.size - index * CHUNK)
            self._last = (index, self.store.read(sha) if sha else bytes(length))
        return self._last[1]

    def read(self, offset: int, length: int) -> bytes:
        """Fewer bytes than asked for at the end of the image."""
        parts = []
        end = min(offset + length, self.size)
        while offset < end:
            index, start = divmod(offset, CHUNK)
            part = self.chunk(index)[start : start + end - offset]
            parts.append(part)
            offset += len(part)
        return b"".join(parts)


def reassemble(manifest: Manifest, store: ChunkStore, out: Path) -> None:
    """Write the whole image to `out`, with holes where it is zero. Raises ImageCorrupt."""
    try:
        with out.open("wb") as file:
            file.truncate(manifest.size)
            for index, sha in enumerate(manifest.chunks):
                if sha is not None:
                    file.seek(index * CHUNK)
                    file.write(store.read(sha))
    except OSError as exc:
        raise full(exc, out) from exc


def full(exc: OSError, where: Path) -> Exception:
    """ImageError for a full disk, with what to do; any other error as it is."""
    if exc.errno not in FULL:
        return exc
    return ImageError(
        f"no space left while writing to {where}: {os.strerror(exc.errno or 0)}",
        hint="make room (`metalimmu image rm`, then `metalimmu image gc`) and run the same command again",
    )


def _compressor() -> Any:
    """One per thread: a compressor is not safe to share."""
    if not hasattr(_LOCAL, "compressor"):
        import zstandard

        _LOCAL.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    return _LOCAL.compressor


def _unpack(frame: bytes) -> bytes | None:
    import zstandard

    try:
        return bytes(zstandard.ZstdDecompressor().decompress(frame, max_output_size=CHUNK))
    except zstandard.ZstdError:
        return None


def fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
