"""Rollouts and freezes on SQLite, and what guards ask for inside a transaction; see protocol_rollouts.RolloutStore."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from metalimmu import structs
from metalimmu.errors import GuardRefused, NotFound, UsageError
from metalimmu.plan.guards import Freeze, Standing
from metalimmu.plan.outcomes import Ending
from metalimmu.plan.waves import BUSY, ENDED, OPEN, WENT_WRONG, RolloutState, RowState
from metalimmu.store import leases
from metalimmu.store.database import Database
from metalimmu.store.records import FINAL, ErrorText, Quarantine
from metalimmu.store.rollout_records import FreezeRecord, Place, RolloutHost, RolloutRecord, Scene
from metalimmu.store.rows import Rows

ROLLOUTS = Rows(RolloutRecord, "rollouts", ("id",))
HOSTS = Rows(RolloutHost, "rollout_hosts", ("rollout", "host"))
FREEZES = Rows(FreezeRecord, "freezes", ("id",))


def _of(words: Iterable[str]) -> str:
    return ", ".join(f"'{w}'" for w in sorted(words))


_ENDED = _of(FINAL)

# Hosts that serve: see plan.guards. One text: a row each would cost ten times as much, in the transaction of a lease.
_ACTIVE = """SELECT group_concat(name, ' ') FROM hosts WHERE state = 'active' AND quarantine IS NULL AND maintenance IS NULL
             AND (power IS NULL OR power <> 'Off') AND (settles IS NULL OR settles <= ?)
             AND (health IS NULL OR json_extract(health, '$.word') <> 'unhealthy')"""
_CHANGING = f"""SELECT l.host, l.run FROM leases l LEFT JOIN runs r ON r.id = l.run WHERE l.run IS NOT NULL
                AND (r.status NOT IN ({_ENDED}) OR (r.id IS NULL AND l.since > ?))"""  # noqa: S608  # our own words

# Of a machine that does not end its push nobody knows more: it is counted for as long as one that is well may take.
_PUSHED = """SELECT host, 'config push ' || substr(json_extract(push, '$.digest'), 1, 12) FROM deployments
             WHERE json_extract(push, '$.state') IN ('waiting', 'fetched') AND json_extract(push, '$.until') > ?"""

# Of a rollout, what decides about its next act: not its long past, and not its long future.
_NEAR = f"""((state IN ({_of(BUSY | WENT_WRONG)}) AND NOT forgiven) OR state = 'soaking'
            OR wave = (SELECT min(wave) FROM rollout_hosts WHERE rollout = ? AND state IN ({_of(OPEN)})))"""  # noqa: S608
_BESIDE = f"""wave IN (SELECT wave FROM rollout_hosts WHERE rollout = ? AND state IN ({_of(WENT_WRONG)}) AND NOT forgiven)
              AND NOT forgiven"""  # noqa: S608
_ENDINGS = f"""SELECT o.host, r.id, r.status, r.error, h.quarantine FROM rollout_hosts o JOIN runs r ON r.id = o.run
               LEFT JOIN hosts h ON h.name = o.host
               WHERE o.rollout = ? AND o.state IN ({_of(BUSY)}) AND r.status IN ({_ENDED})"""  # noqa: S608


_FORGIVEN = "SELECT count(*) FROM rollout_hosts WHERE rollout = ? AND state = 'failed' AND forgiven"
_FAILED = f"SELECT count(*) FROM rollout_hosts WHERE rollout = ? AND state IN ({_of(WENT_WRONG)}) AND NOT forgiven"  # noqa: S608


def standing(conn: sqlite3.Connection, now: float) -> Standing:
    """At this moment, in the caller's transaction."""
    freezes = FREEZES.find(
        conn, also="ended IS NULL AND (until IS NULL OR until > ?)", params=(now,), order="since, id"
    )
    halted = conn.execute("SELECT id, state FROM rollouts WHERE state IN ('paused', 'cancelling', 'stopped')")
    return Standing(
        active=frozenset((conn.execute(_ACTIVE, (now,)).fetchone()[0] or "").split()),
        changing=dict(conn.execute(_CHANGING, (now - leases.UNUSED,)).fetchall()),
        pushed=dict(conn.execute(_PUSHED, (now,)).fetchall()),
        freezes=tuple(freeze(f) for f in freezes),
        halted=dict(halted.fetchall()),
    )


def freeze(record: FreezeRecord) -> Freeze:
    return Freeze(
        id=record.id,
        reason=record.reason,
        by=record.by,
        selector=record.selector,
        since=record.since,
        until=record.until,
    )


def _ending(row: list[Any]) -> Ending:
    run, status, error, quarantine = row
    said = structs.decode(error, ErrorText) if error else None
    held = structs.decode(quarantine, Quarantine) if quarantine else None
    return Ending(
        run=run,
        ok=status == "succeeded",
        cancelled=status == "cancelled",
        code=said.code if said else "",
        text=said.message if said else status,
        touched=held is not None and held.run == run,
    )


def set_host(conn: sqlite3.Connection, rollout: str, host: str, fields: Mapping[str, Any], now: float) -> None:
    HOSTS.update(conn, (rollout, host), {**fields, "since": now} if "state" in fields else fields)


def take_place(conn: sqlite3.Connection, place: Place, host: str, now: float) -> None:
    """Raises GuardRefused."""
    rollout = ROLLOUTS.get(conn, place.rollout)
    if rollout is None or rollout.state is not RolloutState.running:  # a person was quicker than the planning
        raise GuardRefused(f"rollout {place.rollout} is {rollout.state if rollout else 'gone'} by now")
    row = HOSTS.get(conn, place.rollout, host)
    if row is None or row.state is not place.was:
        raise GuardRefused(f"{host} is {row.state if row else 'not'} in rollout {place.rollout} by now")
    if place.failures is not None:
        (failed,) = conn.execute(_FAILED, (place.rollout,)).fetchone()
        if failed >= place.failures:
            raise GuardRefused(f"{failed} hosts of rollout {place.rollout} have failed by now")
    set_host(conn, place.rollout, host, place.fields, now)


class SqliteRollouts:
    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    def add(self, rollout: RolloutRecord, hosts: Iterable[RolloutHost]) -> RolloutRecord:
        now = self._clock()
        with self._db.write() as conn:
            if ROLLOUTS.insert(conn, msgspec.structs.replace(rollout, created=rollout.created or now)):
                for host in hosts:
                    HOSTS.insert(conn, msgspec.structs.replace(host, rollout=rollout.id, since=now))
            return _there(ROLLOUTS.get(conn, rollout.id), rollout.id)

    def get(self, rollout: str) -> RolloutRecord:
        with self._db.read() as conn:
            return _there(ROLLOUTS.get(conn, rollout), rollout)

    def find(self, *, states: Iterable[RolloutState] | None = None, limit: int = 100) -> list[RolloutRecord]:
        wanted = None if states is None else [str(s) for s in states]
        also = "" if wanted is None else f"state IN ({', '.join('?' * len(wanted))})"
        with self._db.read() as conn:
            return ROLLOUTS.find(conn, also=also, params=wanted or (), order="created DESC, id DESC", limit=limit)

    def set(
        self,
        rollout: str,
        *,
        expect: Iterable[RolloutState] | None = None,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        **fields: Any,
    ) -> RolloutRecord:
        now = self._clock()
        with self._db.write() as conn:
            before = _there(ROLLOUTS.get(conn, rollout), rollout)
            if before.state not in (set(RolloutState) - ENDED if expect is None else expect):
                return before
            ROLLOUTS.update(conn, (rollout,), fields)
            for host, row in (hosts or {}).items():
                set_host(conn, rollout, host, row, now)
            return _there(ROLLOUTS.get(conn, rollout), rollout)

    def set_hosts(self, rollout: str, changes: Mapping[str, Mapping[str, Any]]) -> None:
        now = self._clock()
        with self._db.write() as conn:
            for host, fields in changes.items():
                set_host(conn, rollout, host, fields, now)

    def hosts(self, rollout: str) -> list[RolloutHost]:
        with self._db.read() as conn:
            return HOSTS.find(conn, {"rollout": rollout}, order="seq")

    def scene(self, rollout: str) -> Scene:
        with self._db.read() as conn:
            rows = HOSTS.find(conn, {"rollout": rollout}, also=_NEAR, params=(rollout,), order="seq")
            if any(r.state in WENT_WRONG for r in rows):
                beside = HOSTS.find(conn, {"rollout": rollout}, also=_BESIDE, params=(rollout,), order="seq")
                rows = sorted({r.host: r for r in (*rows, *beside)}.values(), key=lambda r: r.seq)
            (forgiven,) = conn.execute(_FORGIVEN, (rollout,)).fetchone()
            return Scene(
                rows=rows,
                forgiven=forgiven,
                ended={host: _ending(row) for host, *row in conn.execute(_ENDINGS, (rollout,))},
                standing=standing(conn, self._clock()),
            )

    def counts(self, rollout: str) -> dict[RowState, int]:
        with self._db.read() as conn:
            found = conn.execute(
                "SELECT state, count(*) FROM rollout_hosts WHERE rollout = ? GROUP BY state", (rollout,)
            )
            return {RowState(state): count for state, count in found}

    def standing(self) -> Standing:
        with self._db.read() as conn:
            return standing(conn, self._clock())

    # freezes

    def freeze(self, record: FreezeRecord) -> FreezeRecord:
        with self._db.write() as conn:
            FREEZES.insert(conn, record)
            return record

    def thaw(self, freeze: str, by: str) -> FreezeRecord:
        with self._db.write() as conn:
            found = FREEZES.get(conn, freeze)
            if found is None:
                raise NotFound(f"no freeze {freeze!r}", hint="`metalimmu freeze status` lists them")
            if found.ended is not None:
                raise UsageError(
                    f"freeze {freeze} has ended already", hint="`metalimmu freeze status` lists the others"
                )
            fields: dict[str, Any] = {"ended": self._clock(), "ended_by": by}
            FREEZES.update(conn, (freeze,), fields)
            return msgspec.structs.replace(found, **fields)

    def freezes(self, *, ended: bool = False) -> list[FreezeRecord]:
        also = "" if ended else "ended IS NULL AND (until IS NULL OR until > ?)"
        with self._db.read() as conn:
            return FREEZES.find(conn, also=also, params=() if ended else (self._clock(),), order="since, id")


def _there(record: RolloutRecord | None, name: str) -> RolloutRecord:
    if record is None:
        raise NotFound(f"no rollout {name!r} in the store", hint="`metalimmu run list` shows what there is")
    return record
