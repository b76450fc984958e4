"""Who or what changed a setting, by the entries of the BMC's own logs around the change. Pure.

A log is a witness, not a judge: an account is named when an entry says that it changed this kind of thing in that time,
an event (firmware update, reset to defaults, CMOS clear) when there is one that changes such settings by itself. Several
accounts, or none, is "unknown", with the entries quoted. A login alone proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from metalimmu.observed.log_entry import LogEntry, LogKind

SLACK = 300.0  # seconds that a BMC's clock may be off by, after it was corrected
QUOTED = 5

EVENTS = frozenset({LogKind.firmware_update, LogKind.reset_to_default, LogKind.cmos_clear})
_WORDS = {
    LogKind.firmware_update: "a firmware update",
    LogKind.reset_to_default: "a reset to defaults",
    LogKind.cmos_clear: "a clear of the CMOS",
}
_LOUD = (LogKind.cmos_clear, LogKind.reset_to_default)
_FIRMWARE_SETUP = re.compile(r"(?i)bios|uefi|secure ?boot|boot ?(?:mode|order|option|source|override)")
"""What an entry of the BMC's own configuration must speak of to tell of BIOS settings: "SSH was enabled" does not."""
_FIRST: dict[str, tuple[frozenset[LogKind], ...]] = {
    # What may have changed a setting of this section, the likeliest first.
    "bios": (
        frozenset(_LOUD),
        frozenset({LogKind.bios_change}),
        frozenset({LogKind.firmware_update}),
        frozenset({LogKind.config_change}),
    ),
    "firmware": (frozenset({LogKind.firmware_update}),),
    "bmc": (
        frozenset({LogKind.reset_to_default}),
        frozenset({LogKind.config_change}),
        frozenset({LogKind.firmware_update}),
    ),
    "hardware": (),
    "cabling": (),
}


class Blame(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["account", "event", "unknown"]
    who: str = ""  # the account, where one is named
    what: str = ""  # a LogKind
    why: str = ""  # one sentence
    entries: tuple[LogEntry, ...] = ()

    @property
    def words(self) -> str:
        """`root`, `a firmware update by root`, `unknown`."""
        by = f" by {self.who}" if self.who else ""
        if self.kind == "event":
            return _WORDS.get(LogKind(self.what), self.what) + by
        return self.who if self.kind == "account" else "unknown"


def blame(setting: str, before_seen: float, at: float, entries: Sequence[LogEntry]) -> Blame:
    """The change happened after `before_seen` and not later than `at`; `entries` is all that was read of the logs."""
    inside = [e for e in entries if before_seen - SLACK <= e.at <= at + SLACK]
    named = [e for e in inside if _names(e, setting) and e.kind is not LogKind.login]
    for candidates in (named, *_ranked(setting, inside)):
        if candidates:
            return _judged(setting, candidates, inside, at)
    return Blame(kind="unknown", why=_silence(before_seen, entries, inside), entries=_nearest(inside, at))


def _ranked(setting: str, inside: list[LogEntry]) -> Iterable[list[LogEntry]]:
    section = setting.partition(".")[0]
    of_bmc = section in _FIRST and section != "bios"
    for kinds in _FIRST.get(section, _FIRST["bios"]):
        yield [e for e in inside if e.kind in kinds and (of_bmc or _may_be_bios(e))]


def _may_be_bios(entry: LogEntry) -> bool:
    return entry.kind is not LogKind.config_change or bool(_FIRMWARE_SETUP.search(entry.message))


def _names(entry: LogEntry, setting: str) -> bool:
    """Does the entry speak of this very setting? Only attributes of the BIOS have names that no other sentence has."""
    section, _, name = setting.partition(".")
    return section == "bios" and bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", entry.message))


def _judged(setting: str, candidates: list[LogEntry], inside: list[LogEntry], at: float) -> Blame:
    accounts = sorted({e.account for e in candidates if e.account})
    nearest = min(candidates, key=lambda e: abs(e.at - at))
    entries = _nearest([*candidates, *(e for e in inside if e not in candidates)], at, first=len(candidates))
    if nearest.kind in EVENTS:  # whoever did something else at that time has no part in it
        why = f"{_WORDS[nearest.kind]} is in the log at that time"
        return Blame(kind="event", who=nearest.account, what=nearest.kind, why=why, entries=entries)
    who = accounts[0] if len(accounts) == 1 else ""
    if who:
        about = "this setting" if _names(nearest, setting) else f"settings of the {setting.partition('.')[0]}"
        why = f"the log says that {who} changed {about} at that time"
        return Blame(kind="account", who=who, what=nearest.kind, why=why, entries=entries)
    why = (
        f"several accounts made changes at that time: {', '.join(accounts)}"
        if accounts
        else "the log has the change, and not who made it"
    )
    return Blame(kind="unknown", what=nearest.kind, why=why, entries=entries)


def _nearest(entries: list[LogEntry], at: float, *, first: int = 0) -> tuple[LogEntry, ...]:
    """The `first` that count, then those nearest in time, at most QUOTED, in the order of time."""
    chosen = sorted(entries[:first], key=lambda e: abs(e.at - at)) + sorted(
        entries[first:], key=lambda e: abs(e.at - at)
    )
    return tuple(sorted(chosen[:QUOTED], key=lambda e: e.at))


def _silence(before_seen: float, entries: Sequence[LogEntry], inside: list[LogEntry]) -> str:
    if not entries:
        return "this BMC has no log that could be read"
    if min(e.at for e in entries) > before_seen + SLACK and not inside:
        return "the log does not reach back so far"
    return "the log has no entry about it"
