"""Deployments of switches on SQLite."""

from __future__ import annotations

from typing import Any

from metalimmu.errors import NotFound
from metalimmu.store import changes
from metalimmu.store.database import Database
from metalimmu.store.rows import Rows
from metalimmu.store.switch_protocol import Change
from metalimmu.store.switch_records import SwitchRecord

SWITCHES = Rows(SwitchRecord, "switch_deployments", ("id",))


class SqliteSwitches:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, record: SwitchRecord) -> SwitchRecord:
        with self._db.write() as conn:
            SWITCHES.insert(conn, record)
        return self.get(record.id)

    def get(self, deployment: str) -> SwitchRecord:
        with self._db.read() as conn:
            return _there(SWITCHES.get(conn, deployment), deployment)

    def find(self, hashed: str) -> SwitchRecord | None:
        with self._db.read() as conn:
            return next(iter(SWITCHES.find(conn, {"secret_hash": hashed}, limit=1)), None)

    def running(self) -> list[SwitchRecord]:
        with self._db.read() as conn:
            return SWITCHES.find(conn, also="ended IS NULL", order="created, id")

    def of(self, host: str, *, limit: int = 20) -> list[SwitchRecord]:
        with self._db.read() as conn:
            return SWITCHES.find(conn, {"host": host}, order="created DESC, id DESC", limit=limit)

    def update(self, deployment: str, change: Change | None = None, **fields: Any) -> SwitchRecord:
        with self._db.write() as conn:
            now = _there(SWITCHES.get(conn, deployment), deployment)
            SWITCHES.update(conn, (deployment,), changes.combined(now, change, fields))
            return _there(SWITCHES.get(conn, deployment), deployment)


def _there(record: SwitchRecord | None, name: str) -> SwitchRecord:
    if record is None:
        raise NotFound(f"no deployment {name!r} of a switch in the store", hint="`metalimmu run list` shows the runs")
    return record
