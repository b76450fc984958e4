"""Leases on SQLite; see protocol.Store. The rules are those of leases.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from metalimmu.store import leases, rollouts
from metalimmu.store.database import Database
from metalimmu.store.protocol_rollouts import Guarding
from metalimmu.store.records import LeaseRecord


class SqliteLeases:
    _db: Database
    _clock: Callable[[], float]

    def acquire_lease(self, host: str, run: str, holder: str, *, guard: Guarding | None = None) -> int:
        with self._db.write() as conn:
            return self._acquire(conn, host, run, holder, guard)

    def _acquire(self, conn: sqlite3.Connection, host: str, run: str, holder: str, guard: Guarding | None) -> int:
        now = self._clock()
        if guard is None:
            return leases.acquire(conn, host, run, holder, now)
        leases.release_dead(conn, host, now)
        seen = rollouts.standing(conn, now)
        fence = leases.acquire(conn, host, run, holder, now)  # first: whose host it is says more than a guard
        guard(seen)
        return fence

    def take_over(self, host: str, run: str, holder: str) -> int:
        with self._db.write() as conn:
            return leases.take_over(conn, host, run, holder, self._clock())

    def check_fence(self, host: str, fence: int) -> None:
        with self._db.read() as conn:
            leases.check(conn, host, fence)

    def renew_lease(self, host: str, fence: int) -> None:
        with self._db.write(durable=False) as conn:
            leases.renew(conn, host, fence, self._clock())

    def release_lease(self, host: str, run: str, *, fence: int | None = None) -> None:
        with self._db.write() as conn:
            leases.release(conn, host, run, fence)

    def lease(self, host: str) -> LeaseRecord | None:
        with self._db.read() as conn:
            return leases.LEASES.get(conn, host)

    def leases(self) -> list[LeaseRecord]:
        with self._db.read() as conn:
            return leases.LEASES.find(conn, also="run IS NOT NULL", order="host")
