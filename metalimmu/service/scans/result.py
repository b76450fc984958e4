"""What a scan has found, told from the store: nothing of it is kept in memory, however large the fleet."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from metalimmu import structs
from metalimmu.desired.profile import SEVERITIES, Severity
from metalimmu.errors import UsageError
from metalimmu.plan.host_state import HostState, host_state
from metalimmu.plan.types import DRIFT, Finding, Word
from metalimmu.plan.waivers import Waivers
from metalimmu.service import reasons
from metalimmu.store.scan_records import FindingRecord, HostScan, ScanCounts, ScanRecord

if TYPE_CHECKING:
    from metalimmu.store.scan_protocol import ScanStore

NO_DRIFT, DRIFTED, TOO_MANY_UNKNOWN = 0, 3, 4
EXAMPLES = 5
LOOKED_AT = 100  # of the newest scans


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts that could not be read for one reason: one line, not ten thousand."""

    code: str
    message: str  # of one of them
    hint: str
    hosts: int
    examples: tuple[str, ...]


class ScanResult:
    """`record` is the scan; `waivers` are applied to all findings that it gives."""

    def __init__(self, store: ScanStore, record: ScanRecord, hosts: Collection[str], waivers: Waivers) -> None:
        self.record = record
        self.hosts = frozenset(hosts)
        self._store = store
        self._waivers = waivers

    @cached_property
    def states(self) -> dict[str, HostState]:
        """By host, waivers applied."""
        return states(self._store, self.hosts, self._waivers)

    @cached_property
    def counts(self) -> ScanCounts:
        """As the scan found it; `states` with the waivers of now, of a scan that did nothing but read."""
        found = structs.convert(self.record.counts, ScanCounts)
        found.states = dict(Counter(self.states.values()))
        return found

    @property
    def findings(self) -> Iterator[FindingRecord]:
        return self.of()

    def of(self, words: Collection[Word] | None = None) -> Iterator[FindingRecord]:
        """Current findings of the scan's hosts, waivers applied."""
        return waived(self._store, self._store.current_findings(self.hosts, words), self._waivers)

    def by_host(self, words: Collection[Word] | None = None) -> Iterator[FindingRecord]:
        """As `of`, host by host in the order of their names: one query each."""
        for host in sorted(self.hosts):
            yield from waived(self._store, self._store.current_findings((host,), words), self._waivers)

    def drift(self) -> Iterator[FindingRecord]:
        return self.of(DRIFT)

    @cached_property
    def severities(self) -> dict[str, int]:
        """Drift that was seen by this scan and is not waived, by severity."""
        found: dict[str, int] = {}
        for record in self.drift():
            if not record.finding.waived and not record.stale:
                found[record.finding.severity] = found.get(record.finding.severity, 0) + 1
        return found

    @cached_property
    def waived(self) -> int:
        return sum(1 for record in self.drift() if record.finding.waived)

    def unread(self) -> list[Unread]:
        """The most frequent reason first."""
        groups: dict[tuple[str, str], list[HostScan]] = {}
        for host in self.unread_hosts():
            code = reasons.cause(host.failure.code) if host.failure else "BmcBroken"
            groups.setdefault((code, _alike(host)), []).append(host)
        found = [_unread(code, hosts) for (code, _), hosts in groups.items()]
        return sorted(found, key=lambda u: (-u.hosts, u.code, u.message))

    def unread_hosts(self) -> Iterator[HostScan]:
        return (h for h in self._store.known_hosts(None) if h.streak and h.host in self.hosts)

    def partly(self) -> list[str]:
        """Hosts that were read, but for something that their profile asks for."""
        known = self._store.known_hosts(None)
        return [h.host for h in known if not h.streak and self.states.get(h.host) == "unknown"]

    @property
    def unknown(self) -> int:
        return self.counts.states.get("unknown", 0)


def states(
    store: ScanStore, hosts: Collection[str], waivers: Waivers, now: float | None = None
) -> dict[str, HostState]:
    """By host, of those that were ever scanned: what it was found to be, and `waived` where all its drift is accepted."""
    wanted = frozenset(hosts)
    found = {h.host: h.state for h in store.known_hosts(None) if h.host in wanted}
    maybe = [h for h in waivers.hosts if found.get(h) == "drift"]
    mine: dict[str, list[Finding]] = {h: [] for h in maybe}
    for record in waived(store, store.current_findings(maybe), waivers, now) if maybe else ():
        mine[record.host].append(record.finding)
    return found | {h: host_state(findings) for h, findings in mine.items()}


def last_ended(store: ScanStore) -> ScanRecord | None:
    """The scan that ended last: a long one that began before others may end after them."""
    ended = [s for s in store.scans(LOOKED_AT) if s.finished is not None]
    return max(ended, key=lambda s: s.finished or 0.0, default=None)


def waived(
    store: ScanStore, records: Iterator[FindingRecord], waivers: Waivers, now: float | None = None
) -> Iterator[FindingRecord]:
    at = time.time() if now is None else now
    for record in records:
        began = record.first_seen
        if waivers.younger(record.finding, began):
            began = value_since(store.finding_history(record.host, record.finding.setting), record)
        finding = waivers.apply(record.finding, at, began)
        yield record if finding is record.finding else msgspec.structs.replace(record, finding=finding)


def value_since(history: Sequence[FindingRecord], record: FindingRecord) -> float:
    """When the value of this finding was first seen to be so, without a break: what is expected of it, and the word, may
    have changed since. `history` is its setting's, the oldest first.
    """
    began = record.first_seen
    for earlier in reversed(history):
        same = earlier.finding.actual == record.finding.actual and earlier.finding.word is not Word.unknown
        if earlier.fixed_at == began and same:
            began = earlier.first_seen
    return began


_OWN = re.compile(r"(?:https?|ipmi)://[^\s:/,;]+(?::[0-9]+)?|/redfish/[^\s,;:]*|[0-9]+(?:\.[0-9]+)*|'[^']*'")
"""What one host's message has and another's of the same kind has not."""


def _alike(host: HostScan) -> str:
    return _OWN.sub("…", host.failure.message) if host.failure else ""


def _unread(code: str, hosts: list[HostScan]) -> Unread:
    failure = hosts[0].failure
    return Unread(
        code=code,
        message=failure.message if failure else "nothing could be read",
        hint=failure.hint if failure else "",
        hosts=len(hosts),
        examples=tuple(h.host for h in hosts[:EXAMPLES]),
    )


class MaxUnknown(msgspec.Struct, frozen=True):
    """How many hosts may be unknown: a number, or a share of the scan's hosts."""

    number: float
    percent: bool = False

    def exceeded(self, unknown: int, hosts: int) -> bool:
        return unknown > (hosts * self.number / 100 if self.percent else self.number)


_LIMIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(%?)")


def max_unknown(text: str) -> MaxUnknown:
    """`2%` or `5`. Raises UsageError."""
    match = _LIMIT.fullmatch(text.strip())
    if not match or (match[2] and float(match[1]) > 100) or (not match[2] and "." in match[1]):
        raise UsageError(
            f"--max-unknown {text!r} is neither a number of hosts nor a share of them", hint="write 5 or 2%"
        )
    return MaxUnknown(float(match[1]), bool(match[2]))


def exit_status(result: ScanResult, *, fail_on: Severity = "info", limit: MaxUnknown | None = None) -> int:
    """0, 3 (drift of that severity or worse, not waived) or 4 (more unknown hosts than allowed).

    4 wins: of a fleet that was not seen, the list of drift is incomplete.
    """
    if (limit or MaxUnknown(0)).exceeded(result.unknown, result.record.hosts):
        return TOO_MANY_UNKNOWN
    bad = SEVERITIES[SEVERITIES.index(fail_on) :]
    return DRIFTED if any(result.severities.get(s) for s in bad) else NO_DRIFT
