"""Many findings, few causes: what happened once to many machines is one line, and one alert. Pure.

One cause is one setting that is wrong in the same way, whatever each make calls it (see `alike`). `drift` shows each event
by itself: the same change within a time, by the same account or event. An alert is about the cause, however often it comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import msgspec

from metalimmu.desired.profile import SEVERITIES
from metalimmu.plan.alike import Alike, alike

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
    make: str = ""  # as in makes.yaml
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

    @property
    def alike(self) -> Alike:
        return alike(self.make, self.setting, self.expected, self.actual, self.before)


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs together; `title` is what it has in common. Of hosts that cannot be read, `reason` is the failure's code."""

    kind: Literal["drift", "unknown"] = "drift"
    key: str = ""  # the same over all scans: never of the hosts that have it
    title: str = ""
    severity: str = "warning"
    setting: str = ""
    host: str = ""
    expected: str = ""
    before: str | None = None
    actual: str = ""
    reason: str = ""
    owner: str = ""
    blame: str = ""
    first: float | None = None
    last: float | None = None
    drifts: tuple[Drift, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(sorted({d.host for d in self.drifts}))


def rank(severity: str) -> int:
    """Of findings without one, it is a warning."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 1


def key_of(kind: str, *what: str) -> str:
    return hashlib.sha256(msgspec.json.encode((kind, *what))).hexdigest()[:32]


def grouped(drifts: Iterable[Drift], by: GroupBy = "cause", *, window: float = WINDOW) -> list[Cause]:
    """The largest group first."""
    groups: dict[tuple[object, ...], list[Drift]] = {}
    for drift in drifts:
        groups.setdefault(_together(drift, by), []).append(drift)
    found: list[Cause] = []
    for members in groups.values():
        parts = [p for t in _by_time(members, window) for p in _by_blame(t)] if by == "cause" else [members]
        found += [_cause(part, by) for part in parts]
    return sorted(found, key=lambda c: (-len(c.drifts), c.title, c.first))


def _together(d: Drift, by: GroupBy) -> tuple[object, ...]:
    if by == "host":
        return (d.host,)
    if by == "setting":
        return (d.alike.setting,)
    if d.word == "job-running":  # one job, however many settings it may change
        return d.setting.partition(".")[0], d.word, d.fixed_at is None
    return *d.alike, d.word, d.fixed_at is None


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
    made = Cause(
        severity=max((d.severity for d in members), key=rank),
        first=min(d.since for d in members),
        last=max(d.since for d in members),
        drifts=tuple(members),
    )
    settings = {d.setting for d in members}
    if by == "host":
        return msgspec.structs.replace(made, title=one.host, host=one.host)
    if by == "setting":
        name = one.setting if len(settings) == 1 else _named(one.alike.setting, settings)
        return msgspec.structs.replace(made, title=name, setting=name)
    if one.word == "job-running" and len(settings) > 1:
        name = f"{one.setting.partition('.')[0]}.* ({len(settings)} settings)"
        return msgspec.structs.replace(made, title=f"{name}: {one.word}", setting=name, actual=one.word)
    what = Alike(one.setting, one.expected, one.actual, one.before)
    if len({(d.setting, d.expected, d.actual, d.before) for d in members}) > 1:  # several makes: in words of all
        what = one.alike._replace(setting=_named(one.alike.setting, settings))
    return msgspec.structs.replace(
        made,
        title=title(what, one.word, one.blame),
        setting=what.setting,
        expected=what.expected,
        before=what.before,
        actual=what.actual,
        blame=one.blame,
    )


def _named(setting: str, names: set[str]) -> str:
    """`neutral.hyperthreading (bios.LogicalProc, bios.ProcHyperthreading)`"""
    return f"{setting} ({', '.join(sorted(names))})"


def title(what: Alike, word: str, blame: str = "") -> str:
    """`bios.ProcCStates: Disabled -> Enabled by root`, `firmware.bios: 1.6 (expected 1.8)`."""
    by = f" by {blame}" if blame and blame != "unknown" else ""
    if what.before is not None and what.before != what.actual:
        return f"{what.setting}: {what.before} -> {what.actual or word}{by}"
    return f"{what.setting}: {what.actual or word} (expected {what.expected}){by}"
