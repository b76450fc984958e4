"""What is known of each scanned host: one row, and the digests by which "nothing has changed" is seen.

Functions on a connection inside a transaction.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from metalimmu import structs
from metalimmu.observed.snapshot import canonical
from metalimmu.plan.host_state import HostState
from metalimmu.plan.types import Finding
from metalimmu.store.records import ErrorText
from metalimmu.store.scan_records import About, HostScan, Scanned

_CLOCK_WAS_AHEAD = 60.0  # seconds
_LOST = 0.001
_ABOUT = structs.decoder(About)
_FAILURE = structs.decoder(ErrorText)
_STALE = structs.decoder(dict[str, float | None])
_OF_A_FINDING = attrgetter(
    "setting", "word", "expected", "actual", "reason", "source", "severity", "owner", "profile"
)  # all but when, and what is added when it is shown
_ROW = """SELECT id, name, read_at, tried_at, streak, values_digest, findings_digest, stale FROM scan_hosts
          WHERE name = ?"""


class Row(NamedTuple):
    id: int
    name: str
    read_at: float | None = None
    tried_at: float | None = None
    streak: int = 0
    values_digest: bytes | None = None
    findings_digest: bytes | None = None
    stale_json: str | None = None

    @property
    def stale(self) -> dict[str, float | None]:
        return _STALE.decode(self.stale_json) if self.stale_json else {}


def row(conn: sqlite3.Connection, host: str) -> Row:
    """Made when it is not there."""
    found = conn.execute(_ROW, (host,)).fetchone()
    if found is None:
        made = conn.execute("INSERT INTO scan_hosts (name) VALUES (?)", (host,)).lastrowid
        return Row(int(made or 0), host)
    return Row(*found)


def number(conn: sqlite3.Connection, host: str) -> int | None:
    found = conn.execute("SELECT id FROM scan_hosts WHERE name = ?", (host,)).fetchone()
    return int(found[0]) if found else None


def moment(at: float, read_at: float | None, now: float) -> float | None:
    """The time under which a reading is kept; None: something newer is known already (two scans at once).

    What was kept while our own clock was ahead does not stop later readings: these follow it closely.
    """
    if read_at is None or at > read_at:
        return at
    return read_at + _LOST if read_at > now + _CLOCK_WAS_AHEAD else None


def values_digest(scanned: Scanned, settings: Mapping[str, object], unknown: Iterable[str]) -> bytes:
    digest = hashlib.blake2b(canonical(settings), digest_size=16)  # type: ignore[arg-type]
    digest.update(msgspec.json.encode([sorted(unknown), scanned.about]))
    return digest.digest()


def findings_digest(findings: Sequence[Finding]) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(list(map(_OF_A_FINDING, findings))), digest_size=16).digest()


def now_stale(was: HostScan, unknown: Iterable[str]) -> dict[str, float | None]:
    """Names that this read could not read, each with the time when it was read last."""
    names = set(unknown)
    kept = {name: was.seen(name) for name in names}
    for name, seen in was.stale.items():  # a setting that was unknown before its whole section was
        above = name.rpartition(".")[0]
        while above and above not in names:
            above = above.rpartition(".")[0]
        if above and name not in kept:
            kept[name] = seen
    return kept


def failed(conn: sqlite3.Connection, host: Row, scanned: Scanned, at: float) -> None:
    failure = scanned.failure or ErrorText(code="BmcBroken", message="nothing could be read", at=at)
    conn.execute(
        """UPDATE scan_hosts SET tried_at = max(?, coalesce(tried_at, 0)), streak = streak + 1, dark = dark + 1,
           failure = ? WHERE id = ?""",
        (at, msgspec.json.encode(failure).decode(), host.id),
    )


def changed(
    conn: sqlite3.Connection,
    host: Row,
    at: float,
    digests: tuple[bytes, bytes],
    state: HostState,
    about: About,
    stale: Mapping[str, float | None],
    gaps: int,
) -> None:
    conn.execute(
        """UPDATE scan_hosts SET read_at = ?2, tried_at = ?2, streak = 0, failure = NULL, values_digest = ?3,
           findings_digest = ?4, state = ?5, about = ?6, stale = ?7, gaps = ?8, dark = CASE WHEN ?8 THEN dark + 1 ELSE 0 END
           WHERE id = ?1""",
        (
            host.id,
            at,
            *digests,
            state,
            msgspec.json.encode(about).decode(),
            msgspec.json.encode(stale).decode() if stale else None,
            gaps,
        ),
    )


def unchanged(conn: sqlite3.Connection, rows: Sequence[tuple[float, int]]) -> None:
    """(time, host id): the one write for a host on which nothing is new."""
    conn.executemany(
        """UPDATE scan_hosts SET read_at = ?1, tried_at = ?1, streak = 0, failure = NULL, dark = CASE WHEN gaps THEN dark + 1 ELSE 0 END
           WHERE id = ?2""",
        rows,
    )


def known(conn: sqlite3.Connection, hosts: Iterable[str] | None) -> Iterator[tuple[int, HostScan]]:
    """All, or those of `hosts` that were ever scanned, by name."""
    sql = "SELECT id, name, read_at, tried_at, streak, gaps, dark, failure, state, about, stale FROM scan_hosts"
    if hosts is None:
        rows: Iterable[tuple[int, str, float, float, int, int, int, str | None, HostState, str, str | None]] = (
            conn.execute(f"{sql} ORDER BY name")
        )
    else:
        rows = (r for h in sorted(set(hosts)) for r in conn.execute(f"{sql} WHERE name = ?", (h,)))
    for id_, name, read_at, tried_at, streak, gaps, dark, failure, state, about, stale in rows:
        yield (
            id_,
            HostScan(
                host=name,
                read_at=read_at,
                tried_at=tried_at,
                streak=streak,
                gaps=gaps,
                dark=dark,
                failure=_FAILURE.decode(failure) if failure else None,
                found=state,
                about=_ABOUT.decode(about),
                stale=_STALE.decode(stale) if stale else {},
            ),
        )
