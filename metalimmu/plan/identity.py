"""Is this the machine we mean? Comparisons of serials, UUIDs and MACs: pure."""

from __future__ import annotations

import uuid


def same_uuid(a: str, b: str) -> bool:
    """Equal as they stand, or with the first three fields in the other byte order: SMBIOS before 2.6 left it open
    (DSP0134 7.2.1), and BMC and kernel do not always agree.
    """
    try:
        one, two = uuid.UUID(a), uuid.UUID(b)
    except ValueError:
        return False
    return one == two or one.bytes_le == two.bytes


def same_serial(a: str, b: str) -> bool:
    return a.strip().casefold() == b.strip().casefold()


def missing_nics(declared: tuple[str, ...], seen: tuple[str, ...]) -> tuple[str, ...]:
    have = {m.lower() for m in seen}
    return tuple(m for m in declared if m.lower() not in have)
