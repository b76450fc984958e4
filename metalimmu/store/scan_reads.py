"""The SQLite store's answers about scanned hosts: see scan_protocol.ScanStore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

from metalimmu.observed.snapshot import Value
from metalimmu.plan.types import DRIFT, Word
from metalimmu.store import scan_findings, scan_hosts, scan_values
from metalimmu.store.scan_memory import SqliteScanMemory
from metalimmu.store.scan_records import (
    ChangeRecord,
    FindingRecord,
    HostScan,
    ScanCounts,
    ValueRecord,
)

_PAGE = 1000
_SOME = 200  # hosts at once

C = TypeVar("C")
T = TypeVar("T")


class SqliteScanReads(SqliteScanMemory):
    # what is known

    def known_hosts(self, hosts: Iterable[str] | None = None) -> Iterator[HostScan]:
        with self._db.read() as conn:
            found = [h for _, h in scan_hosts.known(conn, hosts)]
        return iter(found)

    def values(self, host: str, at: float | None = None) -> dict[str, Value]:
        with self._db.read() as conn:
            number = scan_hosts.number(conn, host)
            return {} if number is None else scan_values.values(conn, self._words, number, at)

    def fleet_values(self, hosts: Iterable[str] | None = None) -> Iterator[tuple[HostScan, dict[str, Value]]]:
        names = [h.host for h in self.known_hosts(hosts)]
        for i in range(0, len(names), _SOME):
            with self._db.read() as conn:
                page = [
                    (known, scan_values.values(conn, self._words, number, None))
                    for number, known in scan_hosts.known(conn, names[i : i + _SOME])
                ]
            yield from page

    def value_history(self, host: str, setting: str) -> list[ValueRecord]:
        with self._db.read() as conn:
            found = next(scan_hosts.known(conn, (host,)), None)
            return [] if found is None else scan_values.history(conn, self._words, *found, setting)

    def last_change(self, host: str, setting: str) -> ChangeRecord | None:
        with self._db.read() as conn:
            return scan_values.last_change(conn, self._words, host, setting)

    def changes(self, since: float, hosts: Collection[str] | None = None) -> Iterator[ChangeRecord]:
        wanted = None if hosts is None else frozenset(hosts)
        if wanted is not None and len(wanted) <= _SOME:
            yield from sorted((c for h in wanted for c in self._changes_of(h, since)), key=lambda c: (c.at, c.host))
            return

        def page(after: tuple[float, int, int]) -> list[tuple[tuple[float, int, int], ChangeRecord]]:
            with self._db.read() as conn:
                return list(scan_values.changes(conn, self._words, since, after, _PAGE))

        for change in _paged(page, (since, -1, -1)):
            if wanted is None or change.host in wanted:
                yield change

    def _changes_of(self, host: str, since: float) -> list[ChangeRecord]:
        with self._db.read() as conn:
            number = scan_hosts.number(conn, host)
            return [] if number is None else scan_values.changes_of(conn, self._words, number, host, since)

    # findings

    def current_findings(
        self, hosts: Collection[str] | None = None, words: Collection[Word] | None = None
    ) -> Iterator[FindingRecord]:
        wanted = None if hosts is None else frozenset(hosts)
        if wanted is not None and len(wanted) <= _SOME:
            yield from self._findings_of(sorted(wanted), words)
            return
        terms = [(w,) for w in words] if words is not None else [()]
        for term in terms:
            also = "word = ? AND id > ?" if term else "id > ?"
            if term and term[0] != Word.match:
                also = f"word <> 'match' AND {also}"  # the partial index is used where it is named
            for record in self._paged_findings(also, term):
                if wanted is None or record.host in wanted:
                    yield record

    def _paged_findings(self, also: str, params: tuple[Any, ...]) -> Iterator[FindingRecord]:
        def page(after: int) -> list[tuple[int, FindingRecord]]:
            with self._db.read() as conn:
                hosts = _Hosts(conn)
                found = scan_findings.page(
                    conn,
                    self._words,
                    hosts,
                    also=also,
                    params=(*params, after),
                    current=True,
                    order="id",
                    limit=_PAGE,
                )
                return list(found)

        return _paged(page, 0)

    def _findings_of(self, hosts: list[str], words: Collection[Word] | None) -> Iterator[FindingRecord]:
        for host in hosts:
            with self._db.read() as conn:
                known = dict(scan_hosts.known(conn, (host,)))
                found = [
                    record
                    for number in known
                    for _, record in scan_findings.page(
                        conn, self._words, known, also="host = ?", params=(number,), current=True, order="id"
                    )
                ]
            yield from (f for f in found if words is None or f.finding.word in words)

    def fixed_findings(self, since: float, hosts: Collection[str] | None = None) -> Iterator[FindingRecord]:
        wanted = None if hosts is None else frozenset(hosts)

        def page(after: tuple[float, int]) -> list[tuple[tuple[float, int], FindingRecord]]:
            with self._db.read() as conn:
                found = scan_findings.page(
                    conn,
                    self._words,
                    _Hosts(conn),
                    also="fixed_at >= ? AND word <> 'match' AND (fixed_at, id) > (?, ?)",
                    params=(max(since, after[0]), *after),
                    current=False,
                    order="fixed_at, id",
                    limit=_PAGE,
                )
                return [((r.fixed_at or 0.0, id_), r) for id_, r in found]

        for record in _paged(page, (since, -1)):
            if record.finding.word in DRIFT and (wanted is None or record.host in wanted):
                yield record

    def finding_history(self, host: str, setting: str) -> list[FindingRecord]:
        with self._db.read() as conn:
            known = dict(scan_hosts.known(conn, (host,)))
            number = self._words.settings.find(conn, setting)
            return [
                record
                for id_ in known
                for _, record in scan_findings.page(
                    conn,
                    self._words,
                    known,
                    also="host = ? AND setting = ?",
                    params=(id_, number),
                    current=False,
                    order="fixed_at IS NULL, first_seen, id",
                )
            ]

    def fleet(self) -> ScanCounts:
        counts = ScanCounts()
        with self._db.read() as conn:
            counts.words = dict(conn.execute("SELECT word, count(*) FROM findings GROUP BY word"))
            marks = ", ".join("?" * len(DRIFT))
            drift = [str(w) for w in DRIFT]
            counts.severities = dict(
                conn.execute(
                    f"SELECT severity, count(*) FROM findings WHERE word IN ({marks}) GROUP BY severity",  # noqa: S608
                    drift,
                )
            )
            for _, host in scan_hosts.known(conn, None):
                _add(counts.states, host.state)
                if host.streak:
                    _add(counts.reasons, host.failure.code if host.failure else "BmcBroken")
        return counts


class _Hosts(dict[int, HostScan]):
    """Hosts by number, read when they are asked for."""

    def __init__(self, conn: Any) -> None:
        super().__init__()
        self._conn = conn

    def __missing__(self, number: int) -> HostScan:
        name = self._conn.execute("SELECT name FROM scan_hosts WHERE id = ?", (number,)).fetchone()[0]
        _, host = next(scan_hosts.known(self._conn, (name,)))
        self[number] = host
        return host


def _paged(page: Callable[[C], list[tuple[C, T]]], cursor: C) -> Iterator[T]:
    """All records of `page(cursor)`, which reads those behind a cursor, until there are no more."""
    while found := page(cursor):
        yield from (record for _, record in found)
        cursor = found[-1][0]


def _add(where: dict[str, int], what: str) -> None:
    where[what] = where.get(what, 0) + 1
