"""Drift by cause: what happened once to many machines is one line. Pure.

One cause is one setting that went from the same value to the same value, by the same account or event, within a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

WINDOW = 3600.0  # seconds between two changes that may still have one cause
GroupBy = Literal["cause", "setting", "host"]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One finding that is drift, with what is known of how it came about."""

    host: str
    setting: str
    word: str
    expected: str
    actual: str
    severity: str
    owner: str = ""
    profile: str = ""
    source: str = ""
    reason: str = ""
    since: float  # when it was first seen
    seen: float  # when it was last seen
    fixed_at: float | None = None
    before: str | None = None  # the value before the change; None: it was so when it was first looked at
    blame: str = ""  # an account, an event, or unknown
    waived: str = ""
    stale: bool = False  # the last scan could not look again


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Drifts that belong together; `title` is what they have in common."""

    title: str
    setting: str = ""
    host: str = ""
    expected: str = ""
    before: str | None = None
    actual: str = ""
    blame: str = ""
    first: float
    last: float
    drifts: tuple[Drift, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(sorted({d.host for d in self.drifts}))

    @property
    def severity(self) -> str:
        order = ("info", "warning", "critical")
        return max((d.severity for d in self.drifts), key=lambda s: order.index(s) if s in order else -1)


def grouped(drifts: Iterable[Drift], by: GroupBy = "cause", *, window: float = WINDOW) -> list[Cause]:
    """The largest group first."""
    groups: dict[tuple[object, ...], list[Drift]] = {}
    for drift in drifts:
        groups.setdefault(_key(drift, by), []).append(drift)
    found: list[Cause] = []
    for members in groups.values():
        parts = [p for t in _by_time(members, window) for p in _by_blame(t)] if by == "cause" else [members]
        found += [_cause(part, by) for part in parts]
    return sorted(found, key=lambda c: (-len(c.drifts), c.title, c.first))


def _key(d: Drift, by: GroupBy) -> tuple[object, ...]:
    if by == "cause" and d.word == "job-running":  # one job, however many settings it may change
        return d.setting.partition(".")[0], d.word, d.fixed_at is None
    if by == "cause":
        return d.setting, d.word, d.expected, d.before, d.actual, d.fixed_at is None
    return (d.setting,) if by == "setting" else (d.host,)


def _by_time(members: list[Drift], window: float) -> list[list[Drift]]:
    parts: list[list[Drift]] = []
    for drift in sorted(members, key=lambda d: (d.since, d.host)):
        if parts and drift.since - parts[-1][-1].since <= window:
            parts[-1].append(drift)
        else:
            parts.append([drift])
    return parts


def _by_blame(members: list[Drift]) -> list[list[Drift]]:
    """The logs of some hosts only are asked who did it: where these name one, it was the same with the others."""
    named = {d.blame for d in members if d.blame}
    if len(named) < 2:
        return [members]
    return [part for b in sorted({d.blame for d in members}) if (part := [d for d in members if d.blame == b])]


def _cause(members: list[Drift], by: GroupBy) -> Cause:
    one = next((d for d in members if d.blame), members[0])
    first, last = min(d.since for d in members), max(d.since for d in members)
    if by == "host":
        return Cause(title=one.host, host=one.host, first=first, last=last, drifts=tuple(members))
    if by == "setting":
        return Cause(title=one.setting, setting=one.setting, first=first, last=last, drifts=tuple(members))
    settings = {d.setting for d in members}
    if len(settings) > 1:
        name = f"{one.setting.partition('.')[0]}.* ({len(settings)} settings)"
        return Cause(
            title=f"{name}: {one.word}", setting=name, actual=one.word, first=first, last=last, drifts=tuple(members)
        )
    return Cause(
        title=title(one),
        setting=one.setting,
        expected=one.expected,
        before=one.before,
        actual=one.actual,
        blame=next((d.blame for d in members if d.blame), ""),
        first=first,
        last=last,
        drifts=tuple(members),
    )


def title(d: Drift) -> str:
    """`bios.ProcCStates: Disabled -> Enabled by root`, `firmware.bios: 1.6 (expected 1.8)`."""
    actual = d.actual or d.word
    by = f" by {d.blame}" if d.blame and d.blame != "unknown" else ""
    if d.before is not None and d.before != d.actual:
        return f"{d.setting}: {d.before} -> {actual}{by}"
    return f"{d.setting}: {actual} (expected {d.expected}){by}"
