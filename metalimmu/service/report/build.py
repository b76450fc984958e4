"""From the store to ReportData. Reads no BMC. What is kept in memory is drift and counts, not the fleet's values."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from metalimmu import __version__, structs
from metalimmu.desired.profile import SEVERITIES
from metalimmu.plan.causes import rank
from metalimmu.plan.outliers import ABSENT
from metalimmu.plan.types import DRIFT
from metalimmu.plan.waivers import Waivers
from metalimmu.service import profiles, reasons
from metalimmu.service.report import data
from metalimmu.service.report.data import MOST_ROWS, ReportData
from metalimmu.service.report.timeline import Span, Timeline, moments
from metalimmu.service.scans import drift, outliers
from metalimmu.service.scans.result import last_ended
from metalimmu.service.scans.result import states as scanned_states
from metalimmu.store.scan_records import ScanCounts

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_records import FindingRecord, HostScan

DAYS = 30
NO_POOL = "no pool"
NO_PROFILE = "no profile"

_MOST_HOSTS = 25
_MOST_OUTLIERS = 25
_CHUNK = 200  # hosts whose values are looked at together: so many the store finds by their index
_SETTINGS_NAMED = 4


def build(
    site: OpenSite,
    *,
    hosts: Sequence[str] | None = None,
    selector: str | None = None,
    now: float | None = None,
) -> ReportData:
    """About the named hosts, those of the selector, or all. Raises NotFound, UsageError, SiteError, StoreError."""
    at = time.time() if now is None else now
    names = drift.hosts_of(site, hosts, selector)
    known = {h.host: h for h in site.store.known_hosts() if h.host in names}
    pools = {name: host.pool or NO_POOL for name, host in site.docs.hosts.items()}
    found = scanned_states(site.store, names, Waivers(site.docs.waivers), at)
    states = {name: str(found.get(name, "unknown")) for name in names}
    scan = _scan(site)
    tally = _Tally(pools, _times(site, at))
    for record in drift.findings(site, names, DRIFT):
        tally.add(record)
    for record in site.store.fixed_findings(tally.times[0], names):
        tally.over(record)
    found_outliers = _outliers(site, names)
    covered = _coverage(site, sorted(known))
    settings, drifted = tally.settings(), tally.drifted()
    by_pool = _pools(states, pools, tally.by_pool)
    return ReportData(
        site=site.docs.site.name,
        version=__version__,
        generated=at,
        scope=selector or (", ".join(hosts) if hosts else ""),
        hosts=len(names),
        states=dict(Counter(states.values())),
        scan=scan,
        times=tally.times,
        by_severity=tally.severities.lines(order=SEVERITIES[::-1]),
        by_pool=tally.pools.lines(),
        by_setting=tally.setting_lines.lines(),
        findings=tally.open,
        severities=dict(tally.by_severity),
        waived=tally.waived,
        pools=tuple(by_pool[:MOST_ROWS]),
        pools_total=len(by_pool),
        settings=tuple(settings[:MOST_ROWS]),
        settings_total=len(settings),
        drifted=tuple(drifted[:_MOST_HOSTS]),
        drifted_total=len(drifted),
        silent=tuple(_silent(known.values(), names.difference(known))),
        outliers=tuple(found_outliers[:_MOST_OUTLIERS]),
        outliers_total=len(found_outliers),
        coverage=tuple(covered[:MOST_ROWS]),
        coverage_total=len(covered),
    )


def _scan(site: OpenSite) -> data.ScanFacts | None:
    """The one that ended last; without one, the newest."""
    last = last_ended(site.store)
    for record in [last] if last else site.store.scans(1):
        counts = structs.convert(record.counts, ScanCounts)
        return data.ScanFacts(
            id=record.id,
            trigger=record.trigger,
            started=record.created,
            finished=record.finished,
            hosts=record.hosts,
            requests=counts.requests,
            new=counts.new,
            fixed=counts.fixed,
        )
    return None


def _times(site: OpenSite, now: float) -> tuple[float, ...]:
    """The last 30 days, or since the first scan ended; one moment when there was only one."""
    ended = [s.finished for s in site.store.scans(10_000) if s.finished is not None]
    if len(ended) < 2:
        return (now,)
    return moments(max(now - DAYS * 86400, min(ended)), now)


class _Tally:
    """Takes each finding that is, or was, drift; knows what the tables and charts need of it."""

    def __init__(self, pools: dict[str, str], times: tuple[float, ...]) -> None:
        self.times = times
        self.severities, self.pools, self.setting_lines = Timeline(times), Timeline(times), Timeline(times)
        self.by_severity: Counter[str] = Counter()
        self.by_pool: Counter[str] = Counter()
        self.open = self.waived = 0
        self._pools = pools
        self._changes: dict[tuple[str, ...], _Change] = {}
        self._hosts: dict[str, list[FindingRecord]] = {}

    def add(self, record: FindingRecord) -> None:
        f = record.finding
        what = (f.setting, f.severity or "warning", f.owner, str(f.word), f.expected, f.actual, f.waived)
        change = self._changes.setdefault(what, _Change(record.first_seen))
        change.hosts.append(record.host)
        change.first_seen = min(change.first_seen, record.first_seen)
        if f.waived:
            self.waived += 1
            return
        self.open += 1
        self.by_severity[f.severity or "warning"] += 1
        self.by_pool[self._pools[record.host]] += 1
        self._hosts.setdefault(record.host, []).append(record)
        self._draw(record, None)

    def over(self, record: FindingRecord) -> None:
        """One that changed goes on as another finding, which began when this one ended."""
        self._draw(record, record.fixed_at)

    def _draw(self, record: FindingRecord, until: float | None) -> None:
        span = Span(record.first_seen, until)
        self.severities.add(record.finding.severity or "warning", span)
        self.pools.add(self._pools.get(record.host, NO_POOL), span)
        self.setting_lines.add(record.finding.setting, span)

    def settings(self) -> list[data.Setting]:
        """The worst first, then those that most hosts have. A setting that is only waived comes last."""
        groups: dict[str, list[tuple[tuple[str, ...], _Change]]] = {}
        for what, change in self._changes.items():
            groups.setdefault(what[0], []).append((what, change))
        found = [_setting(name, changes) for name, changes in groups.items()]
        return sorted(found, key=lambda s: (all(c.waived for c in s.changes), -rank(s.severity), -s.hosts, s.name))

    def drifted(self) -> list[data.Host]:
        found = []
        for name, records in self._hosts.items():
            records.sort(key=lambda r: (-rank(r.finding.severity), r.finding.setting))
            found.append(
                data.Host(
                    name=name,
                    pool=self._pools[name],
                    findings=len(records),
                    worst=records[0].finding.severity or "warning",
                    since=min(r.first_seen for r in records),
                    settings=tuple(r.finding.setting for r in records[:_SETTINGS_NAMED]),
                )
            )
        return sorted(found, key=lambda h: (-rank(h.worst), -h.findings, h.name))


class _Change:
    def __init__(self, first_seen: float) -> None:
        self.first_seen = first_seen
        self.hosts: list[str] = []


def _setting(name: str, found: list[tuple[tuple[str, ...], _Change]]) -> data.Setting:
    found.sort(key=lambda c: (bool(c[0][6]), -len(c[1].hosts), c[0]))
    changes = [
        data.Change(
            word=what[3],
            expected=what[4],
            actual=what[5],
            waived=what[6],
            first_seen=change.first_seen,
            hosts=data.names(change.hosts),
        )
        for what, change in found[:MOST_ROWS]
    ]
    return data.Setting(
        name=name,
        severity=max((what[1] for what, _ in found), key=rank),
        owner=", ".join(sorted({what[2] for what, _ in found if what[2]})),
        hosts=len({host for _, change in found for host in change.hosts}),
        changes=tuple(changes),
        changes_total=len(found),
    )


def _pools(states: dict[str, str], pools: dict[str, str], findings: Counter[str]) -> list[data.Pool]:
    found: dict[str, Counter[str]] = {}
    for host, state in states.items():
        found.setdefault(pools[host], Counter())[state] += 1
    made = [data.Pool(name=name, states=dict(counts), findings=findings[name]) for name, counts in found.items()]
    return sorted(made, key=lambda p: (-p.hosts, p.name))


def _silent(known: Collection[HostScan], never: Collection[str]) -> list[data.Silence]:
    groups: dict[str, list[HostScan]] = {}
    for host in known:
        if host.streak:
            groups.setdefault(reasons.words(host.failure.code) if host.failure else "unknown", []).append(host)
        elif host.state == "unknown":
            groups.setdefault("partly read", []).append(host)
    found = [
        data.Silence(
            reason=reason,
            example=hosts[0].failure.message
            if hosts[0].failure
            else "something that its profile asks for is not known",
            hosts=data.names([h.host for h in hosts]),
            longest=max(h.streak for h in hosts),
        )
        for reason, hosts in groups.items()
    ]
    if never:
        found.append(data.Silence(reason="never scanned", example="", hosts=data.names(list(never))))
    return sorted(found, key=lambda s: (-s.hosts.total, s.reason))


def _outliers(site: OpenSite, names: Collection[str]) -> list[data.Outlier]:
    found = [
        data.Outlier(
            group=outliers.name(report.group),
            setting=o.setting,
            usual=o.majority,
            usual_hosts=o.majority_count,
            value=o.value,
            hosts=data.names(o.hosts),
        )
        for report in outliers.outliers(site.store, names)
        for o in report.outliers
    ]
    # That nearly nobody has a setting says less than that nearly everybody has another value.
    return sorted(
        found,
        key=lambda o: (o.usual == ABSENT, o.hosts.total / max(1, o.usual_hosts), o.group, o.setting, o.value),
    )


def _coverage(site: OpenSite, names: Sequence[str]) -> list[data.Coverage]:
    """By profile; some hosts at a time, for each brings all of its settings."""
    sums: dict[str, list[int]] = {}
    for i in range(0, len(names), _CHUNK):
        for one in profiles.coverages(site, names[i : i + _CHUNK]):
            counts = sums.setdefault(one.profile or NO_PROFILE, [0, 0, 0])
            for j, n in enumerate((1, one.covered, one.settings)):
                counts[j] += n
    found = [
        data.Coverage(group=group, hosts=hosts, controlled=covered / hosts, settings=settings / hosts)
        for group, (hosts, covered, settings) in sums.items()
    ]
    return sorted(found, key=lambda c: (-c.hosts, c.group))
