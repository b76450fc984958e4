"""Compressed bodies (RFC 1952), with a limit: 10 KB can unpack to gigabytes."""

from __future__ import annotations

import zlib

from metalimmu.errors import BmcBroken

GZIP = 16 + zlib.MAX_WBITS


def unpacked(body: bytes, largest: int, base: str) -> bytes:
    """Raises BmcBroken."""
    packed = zlib.decompressobj(GZIP)
    try:
        found = packed.decompress(body, largest)
    except zlib.error as exc:
        raise BmcBroken(f"{base}: the answer's compression is broken: {exc}") from exc
    if packed.unconsumed_tail:
        raise BmcBroken(f"{base}: the answer is larger than {largest >> 20} MiB; unpacking stopped")
    if not packed.eof:
        raise BmcBroken(f"{base}: the compressed answer breaks off")
    return found
