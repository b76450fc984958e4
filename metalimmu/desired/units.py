"""Durations and sizes of documents as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PREFIX = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def seconds(duration: str) -> float:
    """`10m` is 600.0. ValueError for text that types.Duration would not take."""
    match = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", duration)
    if not match:
        raise ValueError(f"{duration!r} is no duration")
    return int(match[1]) * _SECONDS[match[2]]


def per_second(rate: str) -> float:
    """`30/m` is 0.5. ValueError for text that types.Rate would not take."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)/([sm])", rate)
    if not match or not float(match[1]):
        raise ValueError(f"{rate!r} is no rate")
    return float(match[1]) / _SECONDS[match[2]]


def size_bytes(size: str) -> int:
    """`100GB` is 100 * 1000**3, `1TiB` is 1024**4 (IEC 80000-13). ValueError for text that types.Size would not take."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B", size)
    if not match:
        raise ValueError(f"{size!r} is no size")
    return int(Decimal(match[1]) * (1024 if match[3] else 1000) ** _PREFIX[match[2]])


def bytes_per_second(rate: str) -> float:
    """`100MB/s` is 1e8. ValueError for text that types.Throughput would not take."""
    size, slash, unit = rate.rpartition("/")
    if not slash or unit != "s" or not size_bytes(size):
        raise ValueError(f"{rate!r} is no rate in bytes per second")
    return float(size_bytes(size))


def share(amount: str | int, of: int) -> int:
    """`5%` of 200 is 10; a number is itself. Percentages are rounded down: 5% is never more than that."""
    return int(amount[:-1]) * of // 100 if isinstance(amount, str) else amount


def counted(number: int, noun: str) -> str:
    """`1 host`, `2,000 hosts`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
