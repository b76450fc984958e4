"""Many findings, few causes. Pure.

The same change on 500 hosts is one cause, and so is everything that cannot be reached. A cause's key is the same over all
scans: a hash of what it is, never of the hosts that have it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from metalimmu.desired.profile import SEVERITIES
from metalimmu.service import reasons
from metalimmu.store.scan_records import FindingRecord, HostScan

Kind = Literal["drift", "unknown"]


def rank(severity: str) -> int:
    """Of findings without one, it is a warning."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 1


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    key: str
    severity: str
    setting: str = ""
    expected: str = ""
    actual: str = ""
    reason: str = ""  # the failure's code, of unknown hosts
    owner: str = ""

    @property
    def rank(self) -> int:
        return rank(self.severity)


class Open(msgspec.Struct, kw_only=True):
    """A cause that holds, and for whom. `example` is one host's own words."""

    cause: Cause
    hosts: set[str]
    example: str = ""


def of_drift(findings: Iterable[FindingRecord]) -> tuple[dict[str, Open], set[str]]:
    """By key: the causes of drift that nobody has waived; and the keys of those that are waived for at least one host.

    `staged` and `job-running` are the same cause as `differs` before them: the value in force is still the wrong one.
    """
    found: dict[str, Open] = {}
    waived: set[str] = set()
    made: dict[tuple[str, ...], Cause] = {}
    for record in findings:
        f = record.finding
        what = (f.setting, f.expected, f.actual, f.severity or "warning", f.owner)
        cause = made.get(what)
        if cause is None:
            setting, expected, actual, severity, owner = what
            key = _key("drift", *what)
            cause = made[what] = Cause(
                kind="drift",
                key=key,
                severity=severity,
                setting=setting,
                expected=expected,
                actual=actual,
                owner=owner,
            )
        if f.waived:
            waived.add(cause.key)
        else:
            found.setdefault(cause.key, Open(cause=cause, hosts=set())).hosts.add(record.host)
    return found, waived


def of_silence(hosts: Iterable[HostScan], scans: int) -> dict[str, Open]:
    """By key: hosts that could not be read in so many scans in a row, by the code of their failure."""
    found: dict[str, Open] = {}
    for host in hosts:
        if host.streak < scans:
            continue
        code = reasons.cause(host.failure.code) if host.failure else "unknown"
        key = _key("unknown", code)
        if key not in found:
            cause = Cause(kind="unknown", key=key, severity="warning", reason=code)
            found[key] = Open(cause=cause, hosts=set(), example=host.failure.message if host.failure else "")
        found[key].hosts.add(host.host)
    return found


def limited(causes: Mapping[str, Open], hosts: Collection[str], severity: str) -> Iterator[Open]:
    """What a receiver wants to know of: its hosts, and drift that is bad enough."""
    least = rank(severity)
    for found in causes.values():
        if found.cause.kind == "drift" and found.cause.rank < least:
            continue
        if mine := found.hosts.intersection(hosts):
            yield Open(cause=found.cause, hosts=mine, example=found.example)


def _key(*what: str) -> str:
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:32]
