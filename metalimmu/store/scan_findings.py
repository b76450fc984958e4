"""Findings and how long each has been so. Functions on a connection inside a transaction.

One finding is a host's setting, what was expected, the word, and what was there: when one of these changes, the old
finding ends and another begins. An unknown ends nothing: what was known before stays, with the time when it was last
seen, until the setting has been read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from metalimmu.observed.snapshot import Snapshot
from metalimmu.plan.types import DRIFT, Finding, Word
from metalimmu.store.interned import Words
from metalimmu.store.scan_records import FindingRecord, HostScan

_FIELDS = "host, setting, word, expected, actual, reason, source, severity, owner, profile, first_seen, seen"
_NOW = f"(SELECT id, {_FIELDS}, NULL AS fixed_at, NULL AS ended FROM findings)"  # noqa: S608
_BOTH = f"""(SELECT id, {_FIELDS}, NULL AS fixed_at, NULL AS ended FROM findings
             UNION ALL SELECT id, {_FIELDS}, fixed_at, ended FROM findings_log)"""  # noqa: S608

Key = tuple[int, int, str, int]  # setting, expected, word, actual
Rest = tuple[int, int, str, int, int]  # reason, source, severity, owner, profile


class Kept(NamedTuple):
    id: int
    rest: Rest
    seen: float | None


class Change(NamedTuple):
    new: int
    fixed: int


def record(
    conn: sqlite3.Connection,
    words: Words,
    host: int,
    was: HostScan,
    findings: Sequence[Finding],
    snapshot: Snapshot,
    at: float,
) -> Change:
    """`new` and `fixed` count drift."""
    before = _kept(conn, host)
    now: dict[Key, Rest] = {}
    for f in findings:
        n = words.texts.number
        key = words.settings.number(conn, f.setting), n(conn, f.expected), str(f.word), n(conn, f.actual)
        now[key] = n(conn, f.reason), n(conn, f.source), f.severity, n(conn, f.owner), n(conn, f.profile)
    new = [(host, *key, *rest, at) for key, rest in now.items() if key not in before]
    conn.executemany(
        """INSERT INTO findings (host, setting, expected, word, actual, reason, source, severity, owner, profile,
           first_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        new,
    )
    conn.executemany(
        """UPDATE findings SET reason = ?, source = ?, severity = ?, owner = ?, profile = ?, seen = NULL WHERE id = ?""",
        [(*rest, before[k].id) for k, rest in now.items() if k in before and before[k][1:] != (rest, None)],
    )
    fixed = _end(conn, words, {k: v for k, v in before.items() if k not in now}, now, was, snapshot, at)
    return Change(sum(1 for n in new if n[3] in DRIFT), fixed)


def _kept(conn: sqlite3.Connection, host: int) -> dict[Key, Kept]:
    rows = conn.execute(
        """SELECT setting, expected, word, actual, id, reason, source, severity, owner, profile, seen
           FROM findings WHERE host = ?""",
        (host,),
    )
    return {r[:4]: Kept(r[4], r[5:10], r[10]) for r in rows}


def _end(
    conn: sqlite3.Connection,
    words: Words,
    gone: dict[Key, Kept],
    now: Collection[Key],
    was: HostScan,
    snapshot: Snapshot,
    at: float,
) -> int:
    """Ends what is not so any more, and marks what could not be looked at. How much drift is fixed."""
    unknown = {key[:2] for key in now if key[2] == Word.unknown}
    words_now: dict[tuple[int, int], set[str]] = {}
    for key in now:
        words_now.setdefault(key[:2], set()).add(key[2])
    stale: list[tuple[float | None, int]] = []
    ended: list[tuple[float | None, float, str, int]] = []
    fixed = 0
    for key, kept in gone.items():
        name = words.settings.text(conn, key[0])
        hidden = key[:2] in unknown or snapshot.why_unknown(name) is not None
        if hidden and key[2] != Word.unknown:
            if kept.seen is None:
                stale.append((was.read_at, kept.id))
            continue
        how = _how(words_now.get(key[:2], set()))
        fixed += how == "fixed" and key[2] in DRIFT
        ended.append((was.read_at, at, how, kept.id))
    conn.executemany("UPDATE findings SET seen = ? WHERE id = ?", stale)
    conn.executemany(
        f"""INSERT INTO findings_log ({_FIELDS}, fixed_at, ended)
            SELECT host, setting, word, expected, actual, reason, source, severity, owner, profile, first_seen,
            coalesce(seen, ?), ?, ? FROM findings WHERE id = ?""",  # noqa: S608
        ended,
    )
    conn.executemany("DELETE FROM findings WHERE id = ?", [(e[3],) for e in ended])
    return fixed


def _how(now: set[str]) -> str:
    if not now:
        return "dropped"
    return "fixed" if Word.match in now and not now & DRIFT else "changed"


def page(
    conn: sqlite3.Connection,
    words: Words,
    hosts: dict[int, HostScan],
    *,
    also: str,
    params: Sequence[Any],
    current: bool,
    order: str,
    limit: int = -1,
) -> Iterator[tuple[int, FindingRecord]]:
    """(row id, record): rows of `findings`, or of both tables, where `also` holds. `hosts` by number, filled as needed."""
    table = _NOW if current else _BOTH
    rows = conn.execute(f"SELECT * FROM {table} WHERE {also} ORDER BY {order} LIMIT ?", (*params, limit))  # noqa: S608
    for row in rows.fetchall():
        yield row[0], _read(conn, words, hosts[row[1]], row)


def _read(conn: sqlite3.Connection, words: Words, host: HostScan, row: Sequence[Any]) -> FindingRecord:
    _id, _host, setting, word, *numbers, severity, owner, profile, first_seen, seen, fixed_at, ended = row
    text = words.texts.text
    expected, actual, reason, source = (text(conn, n) for n in numbers)
    last_seen = seen if seen is not None else host.read_at or first_seen
    return FindingRecord(
        host=host.host,
        finding=Finding(
            host=host.host,
            setting=words.settings.text(conn, setting),
            word=Word(word),
            expected=expected,
            actual=actual,
            reason=reason,
            source=source,
            at=last_seen,
            severity=severity,
            owner=text(conn, owner),
            profile=text(conn, profile),
        ),
        first_seen=first_seen,
        last_seen=last_seen,
        fixed_at=fixed_at,
        ended=ended,
        stale=fixed_at is None and (seen is not None or host.streak > 0),
    )
