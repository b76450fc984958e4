"""Schedules, alerts and their outbox on SQLite; see protocol_triggers.TriggerStore."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from metalimmu.errors import NotFound
from metalimmu.store.database import Database
from metalimmu.store.rows import Rows
from metalimmu.store.trigger_records import AlertState, OutboxRecord, OutboxStatus, ScheduleState, TurnRecord

SCHEDULES = Rows(ScheduleState, "schedules", ("name",))
TURNS = Rows(TurnRecord, "turns", ("schedule", "due"))
ALERTS = Rows(AlertState, "alert_states", ("alert", "cause"))
OUTBOX = Rows(OutboxRecord, "outbox", ("id",))

_STATUS: dict[OutboxStatus, str] = {
    "waiting": "sent IS NULL AND dropped IS NULL",
    "sent": "sent IS NOT NULL",
    "dropped": "dropped IS NOT NULL",
}


class SqliteTriggers:
    def __init__(self, db: Database, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock

    # schedules

    def see_schedule(self, name: str, definition: str) -> ScheduleState:
        with self._db.read() as conn:
            known = SCHEDULES.get(conn, name)
        if known is not None and known.definition == definition:
            return known
        with self._db.write() as conn:
            fields: dict[str, Any] = {"definition": definition, "since": self._clock()}
            if not SCHEDULES.insert(conn, ScheduleState(name=name, **fields)):
                SCHEDULES.update(conn, (name,), fields)
            return _there(SCHEDULES.get(conn, name), name)

    def pause_schedule(self, name: str, reason: str, by: str) -> ScheduleState:
        return self._set(name, paused=reason, paused_by=by, paused_at=self._clock())

    def resume_schedule(self, name: str) -> ScheduleState:
        return self._set(name, paused=None, paused_by="", paused_at=None, since=self._clock())

    def _set(self, name: str, **fields: Any) -> ScheduleState:
        with self._db.write() as conn:
            SCHEDULES.update(conn, (name,), fields)
            return _there(SCHEDULES.get(conn, name), name)

    def claim(self, turn: TurnRecord) -> bool:
        with self._db.write() as conn:
            return TURNS.insert(conn, turn)

    def turns(self, schedule: str | None = None, *, unfinished: bool = False, limit: int = 100) -> list[TurnRecord]:
        also = "finished IS NULL" if unfinished else ""
        with self._db.read() as conn:
            return TURNS.find(conn, {"schedule": schedule}, also=also, order="due DESC", limit=limit)

    def set_turn(self, schedule: str, due: float, **fields: Any) -> None:
        with self._db.write() as conn:
            TURNS.update(conn, (schedule, due), fields)

    # alerts

    def alert_states(self) -> tuple[int, list[AlertState]]:
        with self._db.read() as conn:
            return _number(conn), ALERTS.find(conn, order="since, alert, cause")

    def commit_alerts(
        self,
        number: int,
        *,
        keep: Iterable[AlertState] = (),
        forget: Iterable[AlertState] = (),
        messages: Iterable[OutboxRecord] = (),
    ) -> bool:
        with self._db.write() as conn:
            if _number(conn) != number:
                return False
            conn.execute("UPDATE alert_number SET number = number + 1")
            for state in forget:
                conn.execute("DELETE FROM alert_states WHERE alert = ? AND cause = ?", (state.alert, state.cause))
            for state in keep:
                if not ALERTS.insert(conn, state):
                    ALERTS.update(conn, (state.alert, state.cause), {f: getattr(state, f) for f in ALERTS.columns})
            for message in messages:
                OUTBOX.insert(conn, message, without=("id",))
            return True

    # outbox

    def due_messages(self, limit: int = 100) -> list[OutboxRecord]:
        now = self._clock()
        also = f"{_STATUS['waiting']} AND next_at <= ? AND held_until <= ?"
        with self._db.read() as conn:
            return OUTBOX.find(conn, also=also, params=(now, now), order="id", limit=limit)

    def hold_message(self, message: int, seconds: float) -> bool:
        now = self._clock()
        sql = f"UPDATE outbox SET held_until = ? WHERE id = ? AND held_until <= ? AND {_STATUS['waiting']}"  # noqa: S608
        with self._db.write() as conn:
            return conn.execute(sql, (now + seconds, message, now)).rowcount == 1

    def message_sent(self, message: int) -> None:
        self._end_attempt(message, sent=self._clock(), error="")

    def message_failed(self, message: int, error: str, *, again: float | None) -> None:
        fields = {"dropped": self._clock()} if again is None else {"next_at": again}
        self._end_attempt(message, error=error, **fields)

    def _end_attempt(self, message: int, **fields: Any) -> None:
        with self._db.write() as conn:
            conn.execute("UPDATE outbox SET attempts = attempts + 1, held_until = 0 WHERE id = ?", (message,))
            OUTBOX.update(conn, (message,), fields)

    def messages(self, *, status: OutboxStatus | None = None, limit: int = 100) -> list[OutboxRecord]:
        with self._db.read() as conn:
            return OUTBOX.find(conn, also=_STATUS[status] if status else "", order="id DESC", limit=limit)

    def count_messages(self) -> dict[OutboxStatus, int]:
        with self._db.read() as conn:
            return {
                status: int(conn.execute(f"SELECT count(*) FROM outbox WHERE {where}").fetchone()[0])  # noqa: S608
                for status, where in _STATUS.items()
            }

    def forget_messages(self, before: float) -> None:
        with self._db.write() as conn:
            conn.execute("DELETE FROM outbox WHERE coalesce(sent, dropped) < ?", (before,))


def _number(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT number FROM alert_number").fetchone()[0])


def _there(state: ScheduleState | None, name: str) -> ScheduleState:
    if state is None:
        raise NotFound(f"no schedule {name!r} in the store", hint="`metalimmu schedule list` shows what there is")
    return state
