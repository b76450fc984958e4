"""The causes that alerts are about, and for whom they hold. Pure.

The same change on 500 hosts is one cause, and so is everything that cannot be reached (see `plan.causes`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from metalimmu.plan.alike import Alike, alike
from metalimmu.plan.causes import Cause, key_of, rank
from metalimmu.service import reasons
from metalimmu.store.scan_records import FindingRecord, HostScan


class Open(msgspec.Struct, kw_only=True):
    """A cause that holds, and for whom. `settings`: what their makes call it; `example` is one host's own words, `since` when
    it was first seen.
    """

    cause: Cause
    hosts: set[str] = msgspec.field(default_factory=set)
    settings: set[str] = msgspec.field(default_factory=set)
    example: str = ""
    since: float | None = None

    def add(self, host: str, since: float | None) -> None:
        self.hosts.add(host)
        if since is not None and (self.since is None or since < self.since):
            self.since = since


def what(record: FindingRecord, make: str) -> Alike:
    f = record.finding
    return alike(make, f.setting, f.expected, f.actual)


def of_drift(findings: Iterable[FindingRecord], makes: Mapping[str, str]) -> tuple[dict[str, Open], set[str]]:
    """By key: the causes of drift that nobody has waived; and the keys of those that are waived for at least one host.
    `makes` by host.

    `staged` and `job-running` are the same cause as `differs` before them: the value in force is still the wrong one.
    """
    found: dict[str, Open] = {}
    waived: set[str] = set()
    made: dict[tuple[str, ...], Cause] = {}
    for record in findings:
        f = record.finding
        setting, expected, actual, _ = what(record, makes.get(record.host, ""))
        about = (setting, expected, actual, f.severity or "warning", f.owner)
        cause = made.get(about)
        if cause is None:
            cause = made[about] = Cause(
                key=key_of("drift", *about),
                severity=about[3],
                setting=setting,
                expected=expected,
                actual=actual,
                owner=f.owner,
            )
        if f.waived:
            waived.add(cause.key)
        else:
            one = found.setdefault(cause.key, Open(cause=cause))
            one.add(record.host, record.first_seen)
            one.settings.add(f.setting)
    return found, waived


def of_silence(hosts: Iterable[HostScan], scans: int, settings: int = 0) -> dict[str, Open]:
    """By key: hosts that could not be read in so many scans in a row, or never more than a part of them, by the code of
    their failure. `settings` of its profile may be unknown of a host that counts as read.
    """
    found: dict[str, Open] = {}
    for host in hosts:
        if max(host.streak, host.dark) < scans or not (host.streak or host.gaps > settings):
            continue
        code, example = _silence(host)
        cause = Cause(kind="unknown", key=key_of("unknown", code), reason=code)
        one = found.setdefault(cause.key, Open(cause=cause))
        one.add(host.host, host.read_at if host.streak else None)
        one.example = one.example or example
    return found


def _silence(host: HostScan) -> tuple[str, str]:
    if not host.streak:
        some = "1 setting" if host.gaps == 1 else f"{host.gaps} settings"
        return reasons.PARTLY, f"of {host.host}, {some} of its profile: `metalimmu scan {host.host}` says which"
    return (reasons.cause(host.failure.code), host.failure.message) if host.failure else ("unknown", "")


def limited(causes: Mapping[str, Open], hosts: Collection[str], severity: str) -> Iterator[Open]:
    """What a receiver wants to know of: its hosts, and drift that is bad enough."""
    least = rank(severity)
    for found in causes.values():
        if found.cause.kind == "drift" and rank(found.cause.severity) < least:
            continue
        if mine := found.hosts.intersection(hosts):
            yield msgspec.structs.replace(found, hosts=mine)
