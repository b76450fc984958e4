"""Is this the machine we mean? Comparisons of serials, UUIDs and MACs: pure."""

from __future__ import annotations

import uuid
from functools import lru_cache

PLACEHOLDERS = frozenset(
    {
        "to be filled by o.e.m.",
        "default string",
        "not specified",
        "system serial number",
        "0123456789",
        "none",
        "n/a",
        "unknown",
    }
)
"""What board makers leave where a serial number belongs; the machine's SMBIOS has the same words."""

_NO_UUIDS = frozenset(
    {
        uuid.UUID(int=0),
        uuid.UUID(int=(1 << 128) - 1),
        uuid.UUID("03000200-0400-0500-0006-000700080009"),  # whole series of AMI boards
    }
)


def is_serial(text: str) -> bool:
    """Does it tell one machine from another?"""
    plain = text.strip().casefold()
    return bool(plain) and plain not in PLACEHOLDERS and bool(plain.strip("0. -"))


def is_uuid(text: str) -> bool:
    """Does it tell one machine from another?"""
    found = _uuid(text)
    return found is not None and found not in _NO_UUIDS


def same_uuid(a: str, b: str) -> bool:
    """Equal as they stand, or with the first three fields in the other byte order: SMBIOS before 2.6 left it open
    (DSP0134 7.2.1), and BMC and kernel do not always agree.
    """
    one, two = _uuid(a), _uuid(b)
    return one is not None and two is not None and (one == two or one.bytes_le == two.bytes)


@lru_cache(maxsize=4096)  # a rack that boots is asked about again and again
def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def same_serial(a: str, b: str) -> bool:
    return a.strip().casefold() == b.strip().casefold()


def missing_nics(declared: tuple[str, ...], seen: tuple[str, ...]) -> tuple[str, ...]:
    have = {m.lower() for m in seen}
    return tuple(m for m in declared if m.lower() not in have)
