"""Take a disk image into the store: cut into chunks, hash, compress, keep each once, name the whole last."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from metalimmu.errors import ImageError
from metalimmu.images import formats, layout
from metalimmu.images.catalogue import Catalogue, Image, split
from metalimmu.images.chunks import ChunkStore, Reader
from metalimmu.wire.manifest import CHUNK, Manifest

Progress = Callable[[str, int, int], None]  # phase, done, total (bytes; total 0: not known)

WORKERS = 2  # SHA-256 and zstd let go of the interpreter's lock
IN_FLIGHT = 8  # chunks in memory

_ZERO = bytes(CHUNK)


def add(
    catalogue: Catalogue,
    file: Path,
    ref: str,
    *,
    provenance: Mapping[str, Any] | None = None,
    documents: Mapping[str, bytes] | None = None,
    architecture: str | None = None,
    kind: str = "disk",
    build_id: str = "",
    efi_loader: str | None = None,
    progress: Progress | None = None,
    max_size: int = formats.MAX_SIZE,
) -> Image:
    """Add `file` as `ref` (NAME@VERSION). The same content again is a no-op.

    `architecture`: x86_64 or aarch64; by default what the image's own EFI loader is for, else x86_64.
    Raises ImageExists (other content under that name), ImageError (not an image, damaged, disk full), ToolError.
    """
    split(ref)
    with catalogue.locked(), catalogue.workspace() as work:
        with formats.opened(file, work, max_size=max_size) as (stream, form):
            chunks, size = store(stream, catalogue.chunks, progress=progress)
        manifest = describe(
            chunks,
            size,
            catalogue.chunks,
            kind=kind,
            architecture=architecture,
            build_id=build_id,
            efi_loader=efi_loader,
        )
        origin = {"source": {"file": file.name, "format": form}} | dict(provenance or {})
        return catalogue.publish(ref, manifest, origin, documents or {})


def store(
    stream: BinaryIO, chunks: ChunkStore, *, progress: Progress | None = None
) -> tuple[tuple[str | None, ...], int]:
    """Cut a stream into chunks and keep them, synced to disk. Returns their names (None: all zeros) and the size in bytes."""
    names: list[str | None] = []
    pending: deque[Future[tuple[str, bool]] | None] = deque()
    new: set[str] = set()
    size, total = 0, _size(stream)

    def finish() -> None:
        done = pending.popleft()
        if done is None:
            names.append(None)
            return
        sha, was_new = done.result()
        names.append(sha)
        if was_new:
            new.add(sha)

    with ThreadPoolExecutor(WORKERS, "chunks") as pool:
        try:
            for data, length in _pieces(stream, total):
                size += length
                pending.append(None if data is None else pool.submit(_keep, chunks, data))
                while len(pending) > IN_FLIGHT or (pending and pending[0] is None):
                    finish()
                if progress and len(names) % 16 == 0:
                    progress("add", size, total)
            while pending:
                finish()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if total and total != _size(stream):
        raise ImageError(
            f"the file changed from {total} to {_size(stream)} bytes while it was read",
            hint="add it when nobody writes to it",
        )
    chunks.root.mkdir(parents=True, exist_ok=True)
    chunks.sync(new)
    if progress:
        progress("add", size, total or size)
    return tuple(names), size


def describe(
    chunks: tuple[str | None, ...],
    size: int,
    kept: ChunkStore,
    *,
    kind: str = "disk",
    architecture: str | None = None,
    build_id: str = "",
    efi_loader: str | None = None,
) -> Manifest:
    """The manifest of these chunks: what the image's own bytes say of it. Raises ImageError."""
    if size == 0:
        raise ImageError("the image is empty", hint="fetch the file again")
    found = layout.detect(Reader(chunks, size, kept).read, size)
    if size % found.sector_size:
        raise ImageError(
            f"the image has {size} bytes, not whole sectors of {found.sector_size}",
            hint="was it cut short? fetch the file again",
        )
    if architecture and found.architecture and architecture != found.architecture:
        raise ImageError(f"the image boots {found.architecture}, not {architecture}", hint="leave --architecture out")
    arch = architecture or found.architecture or "x86_64"
    default = "\\EFI\\BOOT\\BOOTAA64.EFI" if arch == "aarch64" else "\\EFI\\BOOT\\BOOTX64.EFI"
    return Manifest(
        kind=kind,
        architecture=arch,
        size=size,
        chunks=chunks,
        sector_size=found.sector_size,
        partition_table=found.partition_table,
        firmware=found.firmware,
        config_extents=(found.seed,) if found.seed else (),
        seed=found.seed,
        build_id=build_id,
        efi_loader=efi_loader or default,
    )


def _keep(chunks: ChunkStore, data: bytes) -> tuple[str, bool]:
    sha = hashlib.sha256(data).hexdigest()
    return sha, chunks.put(sha, data)


def _pieces(stream: BinaryIO, total: int) -> Iterator[tuple[bytes | None, int]]:
    """(content, length) of each chunk in order; None for zeros. Holes of a sparse file are not even read."""
    offset = 0
    while True:
        for length in _hole(stream, offset, total):
            yield None, length
            offset += length
        if total:
            stream.seek(offset)
        data = stream.read(CHUNK)
        if not data:
            return
        yield (None if data == _ZERO[: len(data)] else data), len(data)
        offset += len(data)


def _hole(stream: BinaryIO, offset: int, total: int) -> Iterator[int]:
    """Lengths of the whole chunks from `offset` on that lie in a hole."""
    if not total or offset >= total:
        return
    try:
        data = os.lseek(stream.fileno(), offset, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno not in (errno.ENXIO, errno.EINVAL):
            raise
        data = total if exc.errno == errno.ENXIO else offset  # ENXIO: nothing but a hole up to the end
    end = total if data >= total else data - data % CHUNK
    while offset < end:
        length = min(CHUNK, total - offset)
        yield length
        offset += length


def _size(stream: BinaryIO) -> int:
    """Of a real file; 0 for a stream, whose size shows at its end."""
    try:
        return os.fstat(stream.fileno()).st_size
    except (OSError, io.UnsupportedOperation, AttributeError):
        return 0
