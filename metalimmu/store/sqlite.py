"""The store on SQLite: one file that any tool can open. Each method is one transaction; see protocol.Store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.errors import NotFound, StoreError
from metalimmu.store import changes, rollouts
from metalimmu.store.database import BUSY, Database
from metalimmu.store.facts import SqliteFacts
from metalimmu.store.interned import Words
from metalimmu.store.lease_store import SqliteLeases
from metalimmu.store.netboot import SqliteNetboot
from metalimmu.store.plans import SqlitePlans
from metalimmu.store.protocol import Beat, Secret
from metalimmu.store.protocol_rollouts import Guarding
from metalimmu.store.records import (
    DeploymentRecord,
    EventRecord,
    HostRecord,
    LoginRecord,
    ObservationRecord,
    Outcome,
    RunRecord,
    RunStatus,
    StepRecord,
    WorkerRecord,
)
from metalimmu.store.rollout_records import Place
from metalimmu.store.rows import R, Rows
from metalimmu.store.salvages import SqliteSalvages
from metalimmu.store.scan_reads import SqliteScanReads
from metalimmu.store.switches import SqliteSwitches
from metalimmu.store.triggers import SqliteTriggers

HOSTS = Rows(HostRecord, "hosts", ("name",))
RUNS = Rows(RunRecord, "runs", ("id",))
STEPS = Rows(StepRecord, "steps", ("run", "seq", "name"))
DEPLOYMENTS = Rows(DeploymentRecord, "deployments", ("id",))
EVENTS = Rows(EventRecord, "events", ("id",))
WORKERS = Rows(WorkerRecord, "workers", ("id",))
LOGINS = Rows(LoginRecord, "logins", ("bmc", "version"))
OBSERVATIONS = Rows(ObservationRecord, "observations", ("id",))

_SECRET_COLUMN: dict[Secret, str] = {
    "agent": "token_hash",
    "proof": "proof_hash",
    "media": "media_hash",
    "chunk": "chunk_hash",
    "answers": "answers_hash",
}


class SqliteStore(SqliteScanReads, SqliteFacts, SqliteNetboot, SqliteSalvages, SqliteLeases):
    """Opens or makes the file and brings its tables up to date. Raises StoreError."""

    def __init__(self, path: Path, *, busy: float = BUSY, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._words = Words()
        self._db = Database(path, busy=busy)
        try:
            _migrate(self._db, path)
        except BaseException:
            self._db.close()
            raise
        self.triggers = SqliteTriggers(self._db, clock)
        self.rollouts = rollouts.SqliteRollouts(self._db, clock)
        self.plans = SqlitePlans(self._db)
        self.switches = SqliteSwitches(self._db)

    def close(self) -> None:
        self._db.close()

    # hosts

    def host(self, name: str) -> HostRecord:
        with self._db.read() as conn:
            return HOSTS.get(conn, name) or HostRecord(name=name)

    def hosts(self) -> dict[str, HostRecord]:
        with self._db.read() as conn:
            return {h.name: h for h in HOSTS.find(conn, order="name")}

    def update_host(
        self, name: str, change: Callable[[HostRecord], Mapping[str, Any]] | None = None, **fields: Any
    ) -> HostRecord:
        with self._db.write() as conn:
            HOSTS.insert(conn, HostRecord(name=name))
            now = _there(HOSTS.get(conn, name), "host", name)
            HOSTS.update(conn, (name,), changes.host(now, changes.combined(now, change, fields), self._clock()))
            return _there(HOSTS.get(conn, name), "host", name)

    # runs

    def add_run(self, run: RunRecord) -> RunRecord:
        with self._db.write() as conn:
            RUNS.insert(conn, run)
            return _there(RUNS.get(conn, run.id), "run", run.id)

    def run(self, run: str) -> RunRecord:
        with self._db.read() as conn:
            return _there(RUNS.get(conn, run), "run", run)

    def runs(
        self, *, host: str | None = None, status: RunStatus | Iterable[RunStatus] | None = None, limit: int = 100
    ) -> list[RunRecord]:
        wanted = [] if status is None else [str(s) for s in ((status,) if isinstance(status, str) else status)]
        also = f"status IN ({', '.join('?' * len(wanted))})" if status is not None else ""
        with self._db.read() as conn:
            return RUNS.find(conn, {"host": host}, also=also, params=wanted, order="created DESC, id DESC", limit=limit)

    def set_run(self, run: str, **fields: Any) -> RunRecord:
        with self._db.write() as conn:
            RUNS.update(conn, (run,), changes.run(_there(RUNS.get(conn, run), "run", run), fields))
            return _there(RUNS.get(conn, run), "run", run)

    # steps

    def start_step(self, run: str, seq: int, name: str) -> StepRecord:
        with self._db.write() as conn:
            now = STEPS.get(conn, run, seq, name)
            step = changes.started(now, (run, seq, name), self._clock())
            if now is None:
                STEPS.insert(conn, step)
            elif step is not now:
                STEPS.update(conn, (run, seq, name), {f: getattr(step, f) for f in STEPS.columns})
            return step

    def finish_step(
        self,
        run: str,
        seq: int,
        name: str,
        outcome: Outcome,
        *,
        summary: str = "",
        evidence: Mapping[str, Any] | None = None,
        bytes: int = 0,  # noqa: A002  # the column's name
    ) -> StepRecord:
        with self._db.write() as conn:
            at = self._clock()
            STEPS.insert(conn, StepRecord(run=run, seq=seq, name=name, started=at))
            step = _there(STEPS.get(conn, run, seq, name), "step", name)
            if step.outcome in (Outcome.done, Outcome.skipped):
                return step
            fields = {
                "finished": at,
                "outcome": outcome,
                "summary": summary,
                "evidence": dict(evidence or {}),
                "bytes": bytes,
            }
            STEPS.update(conn, (run, seq, name), fields)
            return _there(STEPS.get(conn, run, seq, name), "step", name)

    def steps(self, run: str) -> list[StepRecord]:
        with self._db.read() as conn:
            return STEPS.find(conn, {"run": run}, order="seq, started")

    # deployments

    def add_deployment(self, deployment: DeploymentRecord) -> DeploymentRecord:
        with self._db.write() as conn:
            DEPLOYMENTS.insert(conn, deployment)
            return _there(DEPLOYMENTS.get(conn, deployment.id), "deployment", deployment.id)

    def deployment(self, deployment: str) -> DeploymentRecord:
        with self._db.read() as conn:
            return _there(DEPLOYMENTS.get(conn, deployment), "deployment", deployment)

    def find_deployment(self, secret: Secret, hashed: str) -> DeploymentRecord | None:
        with self._db.read() as conn:
            found = DEPLOYMENTS.find(conn, {_SECRET_COLUMN[secret]: hashed}, limit=1)
            return found[0] if found else None

    def deployments(
        self, *, host: str | None = None, run: str | None = None, live: bool = False, limit: int = 100
    ) -> list[DeploymentRecord]:
        also = "ended IS NULL" if live else ""
        with self._db.read() as conn:
            return DEPLOYMENTS.find(
                conn, {"host": host, "run": run}, also=also, order="created DESC, id DESC", limit=limit
            )

    def update_deployment(
        self, deployment: str, change: Callable[[DeploymentRecord], Mapping[str, Any]] | None = None, **fields: Any
    ) -> DeploymentRecord:
        with self._db.write() as conn:
            now = _there(DEPLOYMENTS.get(conn, deployment), "deployment", deployment)
            DEPLOYMENTS.update(conn, (deployment,), changes.combined(now, change, fields))
            return _there(DEPLOYMENTS.get(conn, deployment), "deployment", deployment)

    def beat(self, beats: Iterable[Beat]) -> None:
        with self._db.write(durable=False) as conn:
            for beat in beats:
                now = DEPLOYMENTS.get(conn, beat.deployment)
                if now is None:
                    continue  # removed while its machine was talking
                DEPLOYMENTS.update(conn, (now.id,), changes.beaten(now, beat))
                for line in beat.log:
                    self._event(conn, now.host, "agent", line, run=now.run)

    # history

    def add_event(
        self,
        host: str,
        kind: str,
        text: str,
        *,
        run: str = "",
        data: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        with self._db.write() as conn:
            self._event(conn, host, kind, text, run=run, data=data, key=key)

    def history(
        self,
        host: str | None = None,
        *,
        run: str | None = None,
        kind: str | None = None,
        after: int = 0,
        limit: int = 1000,
    ) -> list[EventRecord]:
        with self._db.read() as conn:
            found = EVENTS.find(
                conn,
                {"host": host, "run": run, "kind": kind},
                also="id > ?",
                params=(after,),
                order="id DESC",
                limit=limit,
            )
            return found[::-1]

    def _event(
        self,
        conn: sqlite3.Connection,
        host: str,
        kind: str,
        text: str,
        *,
        run: str,
        data: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        event = EventRecord(
            id=0, at=self._clock(), host=host, run=run, kind=kind, text=text, data=dict(data or {}), key=key
        )
        EVENTS.insert(conn, event, without=("id",))

    # leases: see SqliteLeases; here with what is admitted in the same transaction

    def admit(
        self,
        run: RunRecord,
        holder: str,
        *,
        guard: Guarding | None = None,
        place: Place | None = None,
    ) -> RunRecord:
        with self._db.write() as conn:
            there = RUNS.get(conn, run.id)
            if there is not None:
                return there
            self._acquire(conn, run.host, run.id, holder, guard)
            RUNS.insert(conn, run)
            if place is not None:
                rollouts.take_place(conn, place, run.host, self._clock())
            return run

    # workers

    def heartbeat(self, worker: str, *, pid: int, hostname: str) -> None:
        now = self._clock()
        with self._db.write(durable=False) as conn:
            if not WORKERS.insert(conn, WorkerRecord(id=worker, pid=pid, hostname=hostname, since=now, seen=now)):
                WORKERS.update(conn, (worker,), {"seen": now})

    def workers(self, *, within: float | None = None) -> list[WorkerRecord]:
        oldest = 0.0 if within is None else self._clock() - within
        with self._db.read() as conn:
            return WORKERS.find(conn, also="seen >= ?", params=(oldest,), order="since, id")

    def forget_worker(self, worker: str) -> None:
        with self._db.write() as conn:
            conn.execute("DELETE FROM workers WHERE id = ?", (worker,))

    # logins

    def refused(self, bmc: str, version: str) -> str | None:
        with self._db.read() as conn:
            login = LOGINS.get(conn, bmc, version)
        return None if login is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(login.at))

    def record_refusal(self, bmc: str, version: str, when: float) -> None:
        with self._db.write() as conn:
            LOGINS.insert(conn, LoginRecord(bmc=bmc, version=version, at=when))

    def clear(self, bmc: str) -> None:
        with self._db.write() as conn:
            conn.execute("DELETE FROM logins WHERE bmc = ?", (bmc,))

    # observations

    def observe(self, host: str, kind: str, data: Mapping[str, Any]) -> bool:
        with self._db.write() as conn:
            now = self._clock()
            found: dict[str, Any] = msgspec.json.decode(
                msgspec.json.encode(data)
            )  # as it reads back: a tuple is a list
            last = OBSERVATIONS.find(conn, {"host": host, "kind": kind}, order="id DESC", limit=1)
            if last and last[0].data == found:
                OBSERVATIONS.update(conn, (last[0].id,), {"seen": now})
                return False
            seen = ObservationRecord(id=0, host=host, kind=kind, data=found, at=now, seen=now)
            return OBSERVATIONS.insert(conn, seen, without=("id",))

    def observation(self, host: str, kind: str) -> ObservationRecord | None:
        found = self.observations(host, kind, limit=1)
        return found[0] if found else None

    def observations(self, host: str, kind: str | None = None, *, limit: int = 100) -> list[ObservationRecord]:
        with self._db.read() as conn:
            return OBSERVATIONS.find(conn, {"host": host, "kind": kind}, order="id DESC", limit=limit)


def _there(record: R | None, what: str, name: str) -> R:
    if record is None:
        raise NotFound(
            f"no {what} {name!r} in the store", hint="`metalimmu run list` and `metalimmu host list` show what there is"
        )
    return record


def _migrate(db: Database, path: Path) -> None:
    """Apply what is missing. Raises StoreError for a file that a newer program made."""
    from sqlite_utils import Database as Tables

    from metalimmu.store.migrations import migrations, names

    def apply(conn: sqlite3.Connection) -> None:
        tables = Tables(conn)
        unknown = sorted({m.name for m in migrations.applied(tables)} - names())
        if unknown:
            raise StoreError(
                f"{path} is newer than this program: it has {', '.join(unknown)}",
                hint="use the metalimmu that made it, or a newer one; this one changed nothing",
            )
        migrations.apply(tables)

    def is_current(conn: sqlite3.Connection) -> bool:
        applied = {m.name for m in migrations.applied(Tables(conn))}
        return applied == names()

    with db.read() as conn:
        current = is_current(conn)
    if not current:
        db.migrate(apply)
