"""Values of settings as their changes. Functions on a connection inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator

import msgspec

from metalimmu import structs
from metalimmu.observed.snapshot import Snapshot, Value
from metalimmu.store.interned import Words
from metalimmu.store.scan_records import ChangeRecord, HostScan, ValueRecord

Entry = tuple[int, float, float | None, int | None]  # setting, since, before_seen, value
_BOTH = "(SELECT * FROM value_log UNION ALL SELECT * FROM value_now)"
_NEVER = object()
_VALUE = structs.decoder(Value)  # lists become tuples


def record(
    conn: sqlite3.Connection,
    words: Words,
    host: int,
    was: HostScan,
    snapshot: Snapshot,
    at: float,
    left_out: Container[str] = (),
) -> int:
    """Keep what has changed; how many values that are. `left_out`: names that the snapshot had and nobody is to keep."""
    before = dict(conn.execute("SELECT setting, value FROM value_now WHERE host = ?", (host,)))
    new: list[tuple[int, int, float, float | None, int | None]] = []
    for name, value in snapshot.settings.items():
        setting = words.settings.number(conn, name)
        text = words.texts.number(conn, msgspec.json.encode(value).decode())
        if before.pop(setting, _NEVER) != text:
            new.append((host, setting, at, was.seen(name), text))
    for setting, text_ in before.items():
        name = words.settings.text(conn, setting)
        if text_ is not None and snapshot.why_unknown(name) is None:
            # What a later version of metalimmu calls noise ends, and did not vanish.
            new.append((host, setting, at, None if name in left_out else was.seen(name), None))
    conn.executemany(
        "INSERT INTO value_log SELECT * FROM value_now WHERE host = ? AND setting = ?", [n[:2] for n in new]
    )
    conn.executemany("INSERT OR REPLACE INTO value_now VALUES (?, ?, ?, ?, ?)", new)
    return sum(1 for n in new if n[3] is not None)


def values(conn: sqlite3.Connection, words: Words, host: int, at: float | None) -> dict[str, Value]:
    if at is None:
        rows = conn.execute("SELECT setting, value FROM value_now WHERE host = ?", (host,))
    else:
        rows = conn.execute(
            f"SELECT setting, value FROM {_BOTH} WHERE host = ? AND since <= ? ORDER BY since",  # noqa: S608
            (host, at),
        )
    found = dict(rows)
    return {
        words.settings.text(conn, setting): _decoded(conn, words, value)
        for setting, value in found.items()
        if value is not None
    }


def history(conn: sqlite3.Connection, words: Words, host: int, known: HostScan, setting: str) -> list[ValueRecord]:
    """The oldest first."""
    number = words.settings.find(conn, setting)
    rows: list[tuple[float, float | None, int | None]] = conn.execute(
        f"SELECT since, before_seen, value FROM {_BOTH} WHERE host = ? AND setting = ? ORDER BY since",  # noqa: S608
        (host, number),
    ).fetchall()
    return [
        ValueRecord(
            value=_decoded(conn, words, value),
            since=since,
            seen=rows[i + 1][1] if i + 1 < len(rows) else known.seen(setting),
            until=rows[i + 1][0] if i + 1 < len(rows) else None,
            present=value is not None,
        )
        for i, (since, _before, value) in enumerate(rows)
    ]


def last_change(conn: sqlite3.Connection, words: Words, host: str, setting: str) -> ChangeRecord | None:
    """The newest change of one setting; None: its value is the first that was ever seen."""
    row = conn.execute(
        """SELECT h.id, n.setting, n.since, n.before_seen, n.value FROM value_now n JOIN scan_hosts h ON h.id = n.host
           JOIN settings s ON s.id = n.setting WHERE h.name = ? AND s.name = ? AND n.before_seen IS NOT NULL""",
        (host, setting),
    ).fetchone()
    return None if row is None else _change(conn, words, host, *row)


def changes(
    conn: sqlite3.Connection, words: Words, since: float, after: tuple[float, int, int], limit: int
) -> Iterator[tuple[tuple[float, int, int], ChangeRecord]]:
    """Up to `limit` changes from `since` on, behind `after` (time, host, setting), by time: one page."""
    rows = conn.execute(
        f"""SELECT v.since, v.host, v.setting, v.before_seen, v.value, h.name FROM {_BOTH} v
            JOIN scan_hosts h ON h.id = v.host
            WHERE v.since >= ? AND v.before_seen IS NOT NULL AND (v.since, v.host, v.setting) > (?, ?, ?)
            ORDER BY v.since, v.host, v.setting LIMIT ?""",  # noqa: S608
        (max(since, after[0]), *after, limit),
    ).fetchall()
    for at, host, setting, before_seen, value, name in rows:
        yield (at, host, setting), _change(conn, words, name, host, setting, at, before_seen, value)


def changes_of(conn: sqlite3.Connection, words: Words, host: int, name: str, since: float) -> list[ChangeRecord]:
    """All changes of one host from `since` on, by time."""
    rows = conn.execute(
        f"""SELECT setting, since, before_seen, value FROM {_BOTH}
            WHERE host = ? AND since >= ? AND before_seen IS NOT NULL ORDER BY since, setting""",  # noqa: S608
        (host, since),
    ).fetchall()
    return [_change(conn, words, name, host, *row) for row in rows]


def _change(
    conn: sqlite3.Connection,
    words: Words,
    name: str,
    host: int,
    setting: int,
    at: float,
    before_seen: float,
    value: int | None,
) -> ChangeRecord:
    row = conn.execute(
        "SELECT value FROM value_log WHERE host = ? AND setting = ? AND since < ? ORDER BY since DESC LIMIT 1",
        (host, setting, at),
    ).fetchone()
    before = row[0] if row else None
    return ChangeRecord(
        host=name,
        setting=words.settings.text(conn, setting),
        before=_decoded(conn, words, before),
        after=_decoded(conn, words, value),
        at=at,
        before_seen=before_seen,
        appeared=before is None,
        vanished=value is None,
    )


def _decoded(conn: sqlite3.Connection, words: Words, number: int | None) -> Value:
    return None if number is None else _VALUE.decode(words.texts.text(conn, number))
