"""The last bytes: seed, backup table, and then the image's first chunk, which makes the disk bootable.

All that is changed here is declared by the layout. Every chunk that such a change touches is read back again, past
the page cache, and must be the image's with exactly these changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from metalimmu.agent.block import MIB, Buffer, Device
from metalimmu.agent.layout import Layout
from metalimmu.agent.link import Link
from metalimmu.errors import ReadBackDiffers
from metalimmu.wire.manifest import CHUNK, Extent, Manifest

Piece = tuple[int, bytes]  # offset in bytes, bytes


def commit(
    device: Device, manifest: Manifest, layout: Layout, *, head: bytes, content: bytes, link: Link
) -> str | None:
    """`head` is the image's first chunk, `content` the seed's beginning; zeros follow.

    Returns the first chunk's SHA-256 as read back, None for zeros. Raises ReadBackDiffers.
    """
    extent = layout.seed
    pieces: list[Piece] = list(layout.other.items())
    if extent:
        pieces.append((extent.offset, content))
    touched = _touched(manifest, pieces, extent)
    link.phase("config", (extent.length if extent else 0) + len(head))
    before = {i: _read_chunk(device, manifest, i) for i in touched}  # read_back has just compared these
    link.check()
    if extent:
        _write_seed(device, extent, content)
    for offset, data in layout.other.items():
        device.write(offset, data)
    device.flush()
    zeros = [(extent.offset, bytes(extent.length))] if extent else []
    for i, original in before.items():
        _compare(device, i * CHUNK, _patched(original, i * CHUNK, [*zeros, *pieces]))
    for offset, data in pieces:
        _compare(device, offset, data)
    if extent:
        _compare_zero(device, extent.offset + len(content), extent.length - len(content))
        link.advance(extent.length)
    link.check()
    seen = _first_chunk(device, manifest, layout, head)
    link.advance(len(head))
    return seen


def _first_chunk(device: Device, manifest: Manifest, layout: Layout, head: bytes) -> str | None:
    """After this write the disk boots. What is read back, with the image's own sectors put back, has its SHA-256."""
    device.write(0, _patched(head, 0, layout.first.items()))
    device.flush()
    seen = device.read(0, len(head))
    for offset, data in layout.first.items():
        if seen[offset : offset + len(data)] != data:
            raise ReadBackDiffers(f"{device.path}: the partition table at byte {offset} reads back different")
    restored = _patched(seen, 0, [(at, head[at : at + len(data)]) for at, data in layout.first.items()])
    wanted = manifest.chunks[0]
    digest = hashlib.sha256(restored).hexdigest() if any(restored) else None
    if digest != wanted:
        raise ReadBackDiffers(f"{device.path}: the first chunk reads back with SHA-256 {digest}, expected {wanted}")
    return digest


def _write_seed(device: Device, extent: Extent, content: bytes) -> None:
    """All of it: an older seed's secrets must not stay in what is free now."""
    if len(content) > extent.length:
        raise ValueError(f"a seed of {len(content)} bytes does not fit into {extent.length}")
    device.write(extent.offset, content)
    if extent.length > len(content):
        device.zero(extent.offset + len(content), extent.length - len(content))


def _touched(manifest: Manifest, pieces: Iterable[Piece], extent: Extent | None) -> list[int]:
    """Chunks of the image, but the first, in which something changes."""
    spans = [(at, len(data)) for at, data in pieces] + ([(extent.offset, extent.length)] if extent else [])
    found = {i for at, length in spans for i in range(at // CHUNK, -(-(at + length) // CHUNK))}
    return sorted(i for i in found if 0 < i < len(manifest.chunks))


def _read_chunk(device: Device, manifest: Manifest, index: int) -> bytes:
    extent = manifest.chunk_extent(index)
    return device.read(extent.offset, extent.length)


def _patched(original: bytes, offset: int, pieces: Iterable[Piece]) -> bytes:
    """`original` stands at `offset`; pieces may reach over its ends."""
    changed = bytearray(original)
    for at, data in pieces:
        start, end = max(at, offset), min(at + len(data), offset + len(original))
        if start < end:
            changed[start - offset : end - offset] = data[start - at : end - at]
    return bytes(changed)


def _compare(device: Device, offset: int, wanted: bytes) -> None:
    if device.read(offset, len(wanted)) != wanted:
        raise ReadBackDiffers(f"{device.path}: {len(wanted)} bytes at {offset} read back different")


def _compare_zero(device: Device, offset: int, length: int) -> None:
    buffer = Buffer()
    for at in range(offset, offset + length, MIB):
        part = min(MIB, offset + length - at)
        device.read_into(buffer.view[:part], at)
        if not buffer.is_zero(part):
            raise ReadBackDiffers(f"{device.path}: {part} bytes at {at} are not zeros")
