"""One resource as bytes with holes: shared by all machines of a make, filled for one when it is asked for."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from metalimmu_emulator.fleet.identity import TOKEN, Identity

Filled = tuple[bytes | tuple[bytes, bytes], ...]


class Page:
    """`raw` pages (a truncated file of a recording, XML) have no document, and are sent as they are."""

    __slots__ = ("checksum", "content_type", "document", "parts", "raw")

    def __init__(self, document: dict[str, Any] | None, raw: bytes | None = None, content_type: str = "") -> None:
        body = msgspec.json.encode(document) if raw is None else raw
        self.document = document
        self.raw = raw is not None
        self.content_type = content_type.encode() or b"application/json; charset=utf-8"
        self.checksum = zlib.crc32(body)
        self.parts: bytes | Filled = body
        if raw is None and b"%%" in body:
            self.parts = _split(body)

    def render(self, identity: Identity, now: bytes | None, etag: bytes = b"") -> bytes:
        """`now` None leaves the tokens of clock and ETag where they are."""
        parts = self.parts
        if isinstance(parts, bytes):
            return parts
        out = []
        for part in parts:
            if isinstance(part, bytes):
                out.append(part)
            elif part[0] == b"NOW":
                out.append(b"%%NOW%%" if now is None else now)
            elif part[0] == b"ETAG":
                out.append(b"%%ETAG%%" if now is None else etag.replace(b'"', b'\\"'))
            else:
                out.append(identity.value(*part))
        return b"".join(out)

    def copy(self, identity: Identity) -> dict[str, Any]:
        """The document of one machine, to be changed. The clock stays a token."""
        found: dict[str, Any] = msgspec.json.decode(self.render(identity, None))
        return found

    @property
    def same_for_all(self) -> bool:
        return isinstance(self.parts, bytes)


def _split(body: bytes) -> Filled:
    out: list[bytes | tuple[bytes, bytes]] = []
    at = 0
    for found in TOKEN.finditer(body):
        out += [body[at : found.start()], (found[1], found[2])]
        at = found.end()
    return (*out, body[at:])


def key(path: str) -> str:
    """Equal for the URIs of one resource: without query, doubled and trailing slashes, letter case."""
    path = path.partition("?")[0].partition("#")[0]
    if "//" in path or path[-1:] == "/":
        path = "/" + "/".join(p for p in path.split("/") if p)
    return path.lower()
