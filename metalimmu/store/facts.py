"""What a store knows of itself: the floor of its fences, whether it was restored from a backup, when it was backed up last.

After a restore nothing that was proven counts as proven: what happened between the backup and the loss is not known.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from metalimmu import structs
from metalimmu.store.database import Database
from metalimmu.store.records import ErrorText, Record

RESTORED = "restored"
BACKUP = "backup"
UNSURE = "Restored"  # code of the error of a host that nothing is known of since a restore
STEP = 1 << 20  # more fences than any controller gives to one host


class Restored(Record, frozen=True, kw_only=True):
    """The newest restore of this store."""

    at: float
    backup_at: float  # the moment of the backup; what came after it is not known
    floor: int  # every fence from now on is above this
    incarnation: str  # another after each restore
    source: str = ""
    hostname: str = ""


# Built here and not at its first use: msgspec 0.22 crashes when two threads build the same one at once.
_RESTORED = structs.decoder(Restored)


class FactStore(Protocol):
    """The part of the store that is about itself."""

    def fact(self, key: str) -> dict[str, Any] | None: ...

    def set_fact(self, key: str, value: dict[str, Any]) -> None: ...

    def restored(self) -> Restored | None:
        """The newest restore; None: this store was never restored."""
        ...

    def mark_restored(
        self, *, backup_at: float, incarnation: str, source: str = "", hostname: str = ""
    ) -> Restored: ...


class SqliteFacts:
    _db: Database
    _clock: Callable[[], float]

    def fact(self, key: str) -> dict[str, Any] | None:
        with self._db.read() as conn:
            return _get(conn, key)

    def set_fact(self, key: str, value: dict[str, Any]) -> None:
        with self._db.write() as conn:
            _set(conn, key, value)

    def restored(self) -> Restored | None:
        with self._db.read() as conn:
            row = conn.execute("SELECT value FROM facts WHERE key = ?", (RESTORED,)).fetchone()
        return None if row is None else _RESTORED.decode(row[0])

    def mark_restored(self, *, backup_at: float, incarnation: str, source: str = "", hostname: str = "") -> Restored:
        """Make a copied store fit to go on with, in one transaction: higher fences than any that were given before, no
        proof that is older than now, no workers.

        The fences rise by the clock too: two restores of one backup must not give the same ones.
        """
        now = self._clock()
        with self._db.write() as conn:
            newest = conn.execute("SELECT max(fence) FROM leases").fetchone()[0] or 0
            mark = Restored(
                at=now,
                backup_at=backup_at,
                floor=max(int(now), max(newest, floor(conn)) + STEP),
                incarnation=incarnation,
                source=source,
                hostname=hostname,
            )
            conn.execute("UPDATE leases SET fence = ?", (mark.floor,))
            conn.execute("UPDATE deployments SET fence = ? WHERE ended IS NULL", (mark.floor,))
            conn.execute("DELETE FROM workers")
            _doubt(conn, mark)
            conn.execute(
                "UPDATE rollouts SET state = 'paused', reason = ? WHERE state = 'running'",
                ("restored from a backup: see what runs now, then `metalimmu run resume`",),
            )
            _set(conn, RESTORED, msgspec.to_builtins(mark))
        return mark


def floor(conn: sqlite3.Connection) -> int:
    """No fence may be as low as this."""
    found = _get(conn, RESTORED)
    return int(found["floor"]) if found else 0


def _doubt(conn: sqlite3.Connection, mark: Restored) -> None:
    """Hosts keep their evidence; their proof is over until they are heard."""
    backup = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(mark.backup_at))
    text = f"not heard since this controller was restored from its backup of {backup}"
    error = ErrorText(
        code=UNSURE,
        message=text,
        hint="its next report proves it again; `metalimmu prove HOST` asks now",
        at=mark.at,
    )
    conn.execute(
        "INSERT INTO events (at, host, run, kind, text, data) SELECT ?, name, '', 'unproven', ?, '{}' FROM hosts WHERE proof = 'proven'",
        (mark.at, f"no longer proven: {text}"),
    )
    conn.execute(
        "UPDATE hosts SET proof = 'unproven', error = ?, updated = ? WHERE proof = 'proven'",
        (msgspec.json.encode(error).decode(), mark.at),
    )


def _get(conn: sqlite3.Connection, key: str) -> dict[str, Any] | None:
    row = conn.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return None if row is None else structs.decode(row[0], dict[str, Any])


def _set(conn: sqlite3.Connection, key: str, value: dict[str, Any]) -> None:
    text = msgspec.json.encode(value).decode()
    conn.execute(
        "INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = ?", (key, text, text)
    )
