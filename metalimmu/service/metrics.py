"""The last scans as Prometheus metrics: https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.

Labels have few values: states, severities, reasons, pools and schedules, never hosts or settings.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from metalimmu.desired.profile import SEVERITIES
from metalimmu.errors import ToolError
from metalimmu.plan.types import DRIFT
from metalimmu.service import reasons
from metalimmu.store.facts import BACKUP

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_LABELS = 200  # pools, reasons: the rest are one
OTHER = "other"

STATES = ("match", "drift", "waived", "unknown", "no-profile")

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


class LastScan(msgspec.Struct, frozen=True, kw_only=True):
    started: float
    finished: float
    hosts: int
    requests: int
    new: int = 0
    fixed: int = 0


class ScheduleMetrics(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    paused: bool
    next: float | None
    last_success: float | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What is told; times in seconds since 1970."""

    version: str
    hosts: dict[str, int] = {}  # by state
    findings: dict[tuple[str, str], int] = {}  # drift that is not waived, by (severity, pool)
    waived: int = 0
    unknown: dict[str, int] = {}  # hosts by reason
    scan: LastScan | None = None  # the one that ended last
    unfinished: int = 0
    schedules: tuple[ScheduleMetrics, ...] = ()
    messages: dict[str, int] = {}  # of alerts, by status
    backup: float | None = None  # the moment of the newest backup that was made
    backup_failing: bool = False
    worker: bool | None = None  # is this process the site's worker; None: it is not one that could be


def text(m: Metrics) -> str:
    """Pure."""
    families: list[tuple[str, str, Iterable[Sample]]] = [
        ("build_info", "Version of metalimmu.", [((("version", m.version),), 1.0)]),
        ("scan_hosts", "Hosts by what the newest scan of each found.", _by("state", m.hosts, STATES)),
        ("drift_findings", "Findings that are drift and not waived.", _findings(m.findings)),
        ("drift_findings_waived", "Findings that are drift and waived.", _one(m.waived)),
        ("unknown_hosts", "Hosts that could not be read, by reason.", _by("reason", _few(m.unknown))),
        ("scan_unfinished", "Scans that are under way or broke off.", _one(m.unfinished)),
        *_scan(m.scan),
        *_schedules(m.schedules),
        ("alert_messages", "Messages of alerts in the outbox.", _by("status", m.messages)),
        ("backup_last_success_timestamp_seconds", "The moment of the newest backup.", _one(m.backup)),
        ("backup_failing", "1 while the newest try of a backup has failed.", _one(m.backup_failing)),
        ("worker", "1 while this process is the site's worker.", _one(m.worker)),
    ]
    return "".join(_family(f"metalimmu_{name}", help_, list(samples)) for name, help_, samples in families)


def _scan(scan: LastScan | None) -> list[tuple[str, str, Iterable[Sample]]]:
    if scan is None:
        return []
    return [
        ("scan_last_start_timestamp_seconds", "When the newest ended scan began.", _one(scan.started)),
        ("scan_last_success_timestamp_seconds", "When the newest scan ended.", _one(scan.finished)),
        ("scan_last_duration_seconds", "How long it took.", _one(scan.finished - scan.started)),
        ("scan_last_hosts", "Hosts that it was about.", _one(scan.hosts)),
        ("scan_last_requests", "Requests that it sent to BMCs.", _one(scan.requests)),
        ("scan_last_new_findings", "Drift that it found for the first time.", _one(scan.new)),
        ("scan_last_fixed_findings", "Drift that it found to be over.", _one(scan.fixed)),
    ]


def _schedules(schedules: Iterable[ScheduleMetrics]) -> list[tuple[str, str, Iterable[Sample]]]:
    def of(value: Callable[[ScheduleMetrics], float | None]) -> list[Sample]:
        found = ((s.name, value(s)) for s in schedules)
        return [((("schedule", name),), v) for name, v in found if v is not None]

    return [
        ("schedule_paused", "1 while a schedule is paused.", of(lambda s: s.paused)),
        ("schedule_next_timestamp_seconds", "When it starts next.", of(lambda s: s.next)),
        ("schedule_last_success_timestamp_seconds", "When it last ended well.", of(lambda s: s.last_success)),
    ]


def _one(value: float | None) -> list[Sample]:
    return [] if value is None else [((), float(value))]


def _by(label: str, values: Mapping[str, int], always: Iterable[str] = ()) -> list[Sample]:
    """`always`: those that are 0 are said too, so that a graph has no gaps."""
    return [(((label, k),), float(v)) for k, v in {**dict.fromkeys(always, 0), **values}.items()]


def _few(values: Mapping[str, int]) -> dict[str, int]:
    kept = dict(sorted(values.items(), key=lambda kv: (-kv[1], kv[0]))[:MOST_LABELS])
    rest = sum(values.values()) - sum(kept.values())
    return kept | ({OTHER: kept.get(OTHER, 0) + rest} if rest else {})


def _findings(found: Mapping[tuple[str, str], int]) -> list[Sample]:
    by_pool: Counter[str] = Counter()
    for (_, pool), count in found.items():
        by_pool[pool] += count
    kept = set(_few(by_pool))
    counts: Counter[tuple[str, str]] = Counter()
    for (severity, pool), count in found.items():
        counts[severity, pool if pool in kept else OTHER] += count
    for pool in kept:
        for severity in SEVERITIES:
            counts[severity, pool] += 0
    return [((("severity", s), ("pool", p)), float(n)) for (s, p), n in sorted(counts.items())]


def _family(name: str, help_: str, samples: list[Sample]) -> str:
    if not samples:
        return ""
    lines = [f"# HELP {name} {help_}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inside = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels)
        lines.append(f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}")
    return "\n".join([*lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(path: Path, content: str) -> None:
    """For node_exporter's textfile collector: all of it or nothing. Raises ToolError."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o644)  # noqa: PTH101  # node_exporter is another user
        os.replace(file.name, path)  # noqa: PTH105
    except OSError as exc:
        raise ToolError(
            f"metrics cannot be written to {path}: {exc.strerror}",
            hint="give this user write permission to that folder, or change `textfile:` in site.yaml",
        ) from exc


def collect(
    site: OpenSite,
    *,
    schedules: Iterable[ScheduleMetrics] = (),
    worker: bool | None = None,
    before: Metrics | None = None,
) -> Metrics:
    """From the store. `before` is what was collected last: findings are counted again only after another scan."""
    from metalimmu import __version__
    from metalimmu.plan.waivers import Waivers
    from metalimmu.service.scans.result import states

    store = site.store
    backup = store.fact(BACKUP) or {}
    known = [h for h in store.known_hosts() if h.host in site.docs.hosts]
    hosts: dict[str, int] = {}
    for state in states(store, site.docs.hosts, Waivers(site.docs.waivers)).values():
        hosts[state] = hosts.get(state, 0) + 1
    scan = _last(site)
    if before is not None and before.scan == scan and before.hosts == hosts:
        findings, waived = before.findings, before.waived
    else:
        findings, waived = _counted(site)
    return Metrics(
        version=__version__,
        hosts=hosts,
        findings=findings,
        waived=waived,
        unknown=dict(Counter(reasons.cause(h.failure.code) for h in known if h.streak and h.failure)),
        scan=scan,
        unfinished=len(store.unfinished_scans()),
        schedules=tuple(schedules),
        messages={str(k): v for k, v in store.triggers.count_messages().items()},
        backup=backup.get("at"),
        backup_failing="error" in backup,
        worker=worker,
    )


def _last(site: OpenSite) -> LastScan | None:
    from metalimmu.service.scans.result import last_ended

    ended = last_ended(site.store)
    if ended is None:
        return None
    counts = site.store.scan_summary(ended.id)
    return LastScan(
        started=ended.created,
        finished=ended.finished or 0.0,
        hosts=ended.hosts,
        requests=counts.requests,
        new=counts.new,
        fixed=counts.fixed,
    )


def _counted(site: OpenSite) -> tuple[dict[tuple[str, str], int], int]:
    from metalimmu.service.scans.drift import findings

    pools = {name: host.pool or "none" for name, host in site.docs.hosts.items()}
    counts: Counter[tuple[str, str]] = Counter()
    waived = 0
    for record in findings(site, words=DRIFT):
        if record.finding.waived:
            waived += 1
        else:
            counts[record.finding.severity or "warning", pools[record.host]] += 1
    return dict(counts), waived
