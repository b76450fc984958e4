"""Who did it: the logs of BMCs whose hosts have new drift, read after the scan, and what they say of each change.

Only where a value was seen to change (a host's first scan finds drift, and no change), and of a bounded number of hosts:
logs are large, and a thousand changes at once have few causes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from metalimmu import log
from metalimmu.bmc import logs
from metalimmu.bmc.ask import Asking
from metalimmu.desired.profile import SEVERITIES
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.blame import blame as judge
from metalimmu.plan.types import DRIFT
from metalimmu.plan.values import text
from metalimmu.service.scans.drift import change_of
from metalimmu.store.scan_records import BlameRecord, ChangeRecord, ScanRecord

if TYPE_CHECKING:
    from metalimmu.bmc.logs import Found
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.scans.reading import Host, ReadMany
    from metalimmu.store.scan_protocol import ScanStore

MOST_HOSTS = 500
MOST_PER_CAUSE = 20
MARGIN = 600.0
"""Seconds before and after the time in which a change must have happened: a BMC's clock is not ours."""

Logs: TypeAlias = "Found | Unknown"
ReadLogs: TypeAlias = "Callable[[Host, float, float], Asking[Logs]]"
logger = log.get("scan")


def blame(
    store: ScanStore,
    record: ScanRecord,
    specs: Mapping[str, HostSpec],
    read: ReadMany,
    read_logs: ReadLogs = logs.read,
) -> int:
    """Ask the logs about the changes of this scan that are drift; how many were asked about. A log that cannot be read is
    said in its blame, and is no failure of the scan.
    """
    wanted = {h: c for h, c in _changes(store, record).items() if h in specs}
    if not wanted:
        return 0

    def reader(host: Host) -> Asking[Logs]:
        changes = wanted[host.name]
        since, until = min(c.before_seen for c in changes), max(c.at for c in changes)
        return read_logs(host, since - MARGIN, until + MARGIN)

    with closing(read([specs[h] for h in wanted], reader)) as answers:
        for answer in answers:
            found = answer.value or Unknown(Reason.unreachable, answer.failure.message if answer.failure else "")
            store.keep_blame([_judged(store, c, found) for c in wanted[answer.target.name]])
    return len(wanted)


def _changes(store: ScanStore, record: ScanRecord) -> dict[str, list[ChangeRecord]]:
    """By host: changes, of values and of what is staged, that this scan was the first to see, and that are drift. The worst
    first, each cause often enough.
    """
    found: list[tuple[int, ChangeRecord]] = []
    for finding in store.current_findings(words=DRIFT):
        if finding.first_seen < record.created or finding.stale:
            continue
        change = change_of(store, finding)
        if change is not None and store.blame(change.host, change.setting, change.at) is None:
            severity = finding.finding.severity
            found.append((-SEVERITIES.index(severity) if severity in SEVERITIES else 0, change))
    chosen: dict[str, list[ChangeRecord]] = {}
    causes: dict[bytes, int] = {}
    for _, change in sorted(found, key=lambda item: (item[0], item[1].host, item[1].setting)):
        cause = msgspec.json.encode((change.setting, change.before, change.after))
        if change.host not in chosen and (len(chosen) >= MOST_HOSTS or causes.get(cause, 0) >= MOST_PER_CAUSE):
            continue
        causes[cause] = causes.get(cause, 0) + 1
        chosen.setdefault(change.host, []).append(change)
    return chosen


def _judged(store: ScanStore, change: ChangeRecord, found: Logs) -> BlameRecord:
    entries = () if isinstance(found, Unknown) else found.entries
    blamed = judge(change.setting, change.before_seen, change.at, entries)
    why = blamed.why
    if isinstance(found, Unknown):
        why = f"the log could not be read: {log.redact(found.detail or found.reason)}"
    elif blamed.kind == "unknown" and not found.complete:
        why += "; it has more entries than were read"
    if blamed.kind == "unknown" and (stager := _stager(store, change)) is not None:
        return stager
    return BlameRecord(
        host=change.host,
        setting=change.setting,
        at=change.at,
        kind=blamed.kind,
        who=blamed.who,
        what=blamed.what,
        why=why,
        entries=blamed.entries,
    )


def _stager(store: ScanStore, change: ChangeRecord) -> BlameRecord | None:
    """Who staged the value that a reboot has brought now: the log of that time may be long gone."""
    waited = f"{text(change.before)} ({text(change.after)} staged)"
    for earlier in store.finding_history(change.host, change.setting):
        if earlier.fixed_at == change.at and earlier.finding.actual == waited:
            found = store.blame(change.host, change.setting, earlier.first_seen)
            if found is not None and found.kind == "account":
                why = f"it was staged, and a reboot has brought it; {found.why}"
                return msgspec.structs.replace(found, at=change.at, why=why)
    return None
