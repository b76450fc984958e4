"""One finding of the doctor."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    ok = "ok"
    warn = "warn"  # works, and will hurt
    fail = "fail"  # does not work
    unknown = "unknown"  # could not be looked at, and why


class Check(msgspec.Struct, frozen=True):
    name: str
    verdict: Verdict
    what: str
    hint: str = ""  # what to do


def ok(name: str, what: str) -> Check:
    return Check(name, Verdict.ok, what)


def warn(name: str, what: str, hint: str) -> Check:
    return Check(name, Verdict.warn, what, hint)


def fail(name: str, what: str, hint: str) -> Check:
    return Check(name, Verdict.fail, what, hint)


def unknown(name: str, what: str, hint: str = "") -> Check:
    return Check(name, Verdict.unknown, what, hint)


def few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def span(seconds: float) -> str:
    """For people: 3 days, 4 hours, 12 minutes."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
