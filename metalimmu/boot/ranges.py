"""The Range header of a GET (RFC 9110, 14): pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"bytes=[ \t]*(\d{0,20})-(\d{0,20})[ \t]*\Z", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Slice:
    """What to answer: `status` 200 (all), 206 or 416 (nothing), and bytes [offset, offset + length)."""

    status: int
    offset: int
    length: int
    size: int

    @property
    def content_range(self) -> str | None:
        if self.status == 416:
            return f"bytes */{self.size}"
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}" if self.status == 206 else None


def parse(header: str | None, size: int) -> Slice:
    """One range is honoured; several, or what is no range at all, get the whole (14.2 lets a server ignore the field)."""
    found = _ONE.match(header) if header else None
    if found is None:
        return Slice(200, 0, size, size)
    first, last = found.groups()
    if not first and not last:
        return Slice(200, 0, size, size)
    if not first:
        length = min(int(last), size)
        return Slice(206, size - length, length, size) if length else Slice(416, 0, 0, size)
    start, end = int(first), min(int(last), size - 1) if last else size - 1
    if last and int(last) < int(first):
        return Slice(200, 0, size, size)
    return Slice(206, start, end - start + 1, size) if start < size else Slice(416, 0, 0, size)
