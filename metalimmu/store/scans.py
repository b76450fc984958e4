"""The SQLite store's part for scans: see scan_protocol.ScanStore. `sqlite.SqliteStore` is made of this and the rest.

A scan is no durable workflow of the engine: what it does is a set of hosts, each recorded once under (scan, host), and
that is all it takes to go on after kill -9. A step per BMC in the engine's own database would cost more than the scan.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from metalimmu import structs
from metalimmu.errors import NotFound
from metalimmu.plan.host_state import HostState, host_state, unread
from metalimmu.plan.types import DRIFT
from metalimmu.store import scan_findings, scan_hosts, scan_values
from metalimmu.store.database import Database
from metalimmu.store.ids import scan_id
from metalimmu.store.interned import Words
from metalimmu.store.rows import Rows
from metalimmu.store.scan_records import HostScan, ScanCounts, Scanned, ScanRecord

SCANS = Rows(ScanRecord, "scans", ("id",))


class SqliteScans:
    """Writes scans; scan_reads has what is asked afterwards."""

    _db: Database
    _clock: Callable[[], float]
    _words: Words

    def begin_scan(self, scope: Mapping[str, Any], *, trigger: str, hosts: Sequence[str]) -> ScanRecord:
        now = self._clock()
        names = msgspec.json.encode(list(dict.fromkeys(hosts)))
        digest = hashlib.sha256(names).hexdigest()[:32]
        record = ScanRecord(
            id=scan_id(now),
            trigger=trigger,
            scope=dict(scope),
            hosts=len(set(hosts)),
            hosts_digest=digest,
            created=now,
        )
        with self._db.write() as conn:
            conn.execute("INSERT OR IGNORE INTO scan_lists VALUES (?, ?)", (digest, zlib.compress(names)))
            SCANS.insert(conn, record)
        return record

    def scan(self, scan: str) -> ScanRecord:
        with self._db.read() as conn:
            return _scan(conn, scan)

    def scans(self, limit: int = 20) -> list[ScanRecord]:
        with self._db.read() as conn:
            return SCANS.find(conn, order="created DESC, id DESC", limit=limit)

    def unfinished_scans(self) -> list[ScanRecord]:
        with self._db.read() as conn:
            return SCANS.find(conn, also="finished IS NULL", order="created DESC, id DESC")

    def finish_scan(self, scan: str, summary: Mapping[str, Any]) -> ScanRecord:
        with self._db.write() as conn:
            now = _scan(conn, scan)
            if now.finished is None:
                SCANS.update(conn, (scan,), {"finished": self._clock(), "summary": dict(summary)})
                conn.execute("DELETE FROM scan_done WHERE scan = ?", (scan,))
            return _scan(conn, scan)

    def scan_summary(self, scan: str) -> ScanCounts:
        return structs.convert(self.scan(scan).counts, ScanCounts)

    def scanned_hosts(self, scan: str) -> set[str]:
        with self._db.read() as conn:
            return _done(conn, _scan(conn, scan))

    def pending_hosts(self, scan: str) -> list[str]:
        with self._db.read() as conn:
            record = _scan(conn, scan)
            done = _done(conn, record)
            return [h for h in _hosts(conn, record) if h not in done]

    def record_scanned(self, scan: str, batch: Iterable[Scanned], *, left_out: Collection[str] = ()) -> None:
        try:
            with self._db.write() as conn:
                record = _scan(conn, scan)
                if record.finished is not None:
                    return
                counts = structs.convert(record.counts, ScanCounts)
                _Batch(conn, self._words, counts, self._clock(), left_out).write(scan, batch)
                SCANS.update(conn, (scan,), {"counts": msgspec.to_builtins(counts)})
        except BaseException:
            self._words.forget()  # numbers given in a transaction that was undone are given again
            raise


class _Batch:
    """The hosts of one transaction."""

    def __init__(
        self, conn: sqlite3.Connection, words: Words, counts: ScanCounts, now: float, left_out: Collection[str]
    ) -> None:
        self._conn = conn
        self._words = words
        self._counts = counts
        self._now = now
        self._left_out = left_out
        self._unchanged: list[tuple[float, int]] = []

    def write(self, scan: str, batch: Iterable[Scanned]) -> None:
        for scanned in batch:
            marked = self._conn.execute("INSERT OR IGNORE INTO scan_done VALUES (?, ?)", (scan, scanned.host))
            if marked.rowcount:
                self._host(scanned)
                _count(self._counts, scanned)
        scan_hosts.unchanged(self._conn, self._unchanged)

    def _host(self, scanned: Scanned) -> None:
        row = scan_hosts.row(self._conn, scanned.host)
        if not scanned.read:
            scan_hosts.failed(self._conn, row, scanned, scanned.at or self._now)
            return
        snapshot = scanned.snapshot
        assert snapshot is not None  # noqa: S101  # `read` says so
        at = scan_hosts.moment(scanned.at or snapshot.at or self._now, row.read_at, self._now)
        if at is None:
            return
        values = scan_hosts.values_digest(scanned, snapshot.settings, snapshot.unknown)
        findings = scan_hosts.findings_digest(scanned.findings)
        if values == row.values_digest and findings == row.findings_digest:
            self._unchanged.append((at, row.id))
            return
        was = HostScan(host=row.name, read_at=row.read_at, stale=row.stale)
        stale = scan_hosts.now_stale(was, snapshot.unknown)
        if values != row.values_digest:
            self._counts.changes += scan_values.record(
                self._conn, self._words, row.id, was, snapshot, at, self._left_out
            )
        # Also where only the values are new: which findings are stale depends on what could be read.
        change = scan_findings.record(self._conn, self._words, row.id, was, scanned.findings, snapshot, at)
        self._counts.new += change.new
        self._counts.fixed += change.fixed
        scan_hosts.changed(
            self._conn, row, at, (values, findings), state(scanned), scanned.about, stale, _gaps(scanned)
        )


def state(scanned: Scanned) -> HostState:
    if not scanned.read:
        return "unknown"
    return host_state(scanned.findings, broke_off=scanned.failure is not None, profile=bool(scanned.about.profile))


def _gaps(scanned: Scanned) -> int:
    return sum(map(unread, scanned.findings)) or int(scanned.failure is not None)


def _count(counts: ScanCounts, scanned: Scanned) -> None:
    _add(counts.states, state(scanned))
    if not scanned.read or scanned.failure is not None:
        _add(counts.reasons, scanned.failure.code if scanned.failure else "BmcBroken")
    for finding in scanned.findings:
        _add(counts.words, str(finding.word))
        if finding.word in DRIFT:
            _add(counts.severities, finding.severity)
    counts.requests += scanned.requests
    counts.seconds += scanned.seconds
    counts.settings += scanned.settings
    counts.covered += scanned.covered


def _add(where: dict[str, int], what: str) -> None:
    where[what] = where.get(what, 0) + 1


def _scan(conn: sqlite3.Connection, scan: str) -> ScanRecord:
    found = SCANS.get(conn, scan)
    if found is None:
        raise NotFound(f"no scan {scan!r} in the store", hint="`metalimmu scan --list` shows them")
    return found


def _hosts(conn: sqlite3.Connection, record: ScanRecord) -> list[str]:
    data = conn.execute("SELECT hosts FROM scan_lists WHERE digest = ?", (record.hosts_digest,)).fetchone()[0]
    return structs.decode(zlib.decompress(data), list[str])


def _done(conn: sqlite3.Connection, record: ScanRecord) -> set[str]:
    if record.finished is not None:
        return set(_hosts(conn, record))
    return {r[0] for r in conn.execute("SELECT host FROM scan_done WHERE scan = ?", (record.id,))}
