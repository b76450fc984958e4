"""Saved plans on SQLite; see protocol_plans.PlanStore."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from metalimmu.plan.waves import ENDED
from metalimmu.store.database import Database
from metalimmu.store.protocol_plans import Memories, PlanRecord
from metalimmu.store.rows import Rows

PLANS = Rows(PlanRecord, "saved_plans", ("digest",))

HOSTS = "SELECT name, state, proof, image, digest, quarantine FROM hosts"
LOOKS = """SELECT host, data, seen FROM observations
            WHERE id IN (SELECT max(id) FROM observations WHERE kind = ? GROUP BY host)"""
SECONDS = """SELECT r.host, json_group_object(s.name, s.finished - s.started) FROM steps s
              JOIN (SELECT id, host, max(created) FROM runs WHERE status = 'succeeded' GROUP BY host) r ON r.id = s.run
              WHERE s.finished > s.started GROUP BY r.id"""
_OVER = f"""DELETE FROM saved_plan_hosts WHERE digest IN (SELECT plan_digest FROM rollouts
            WHERE plan_digest <> '' AND state IN ({", ".join(f"'{s}'" for s in sorted(ENDED))}))"""  # noqa: S608  # our words


class SqlitePlans:
    def __init__(self, db: Database) -> None:
        self._db = db

    def keep(self, record: PlanRecord, hosts: Iterable[tuple[str, bytes]]) -> PlanRecord:
        rows = [(record.digest, name, zlib.compress(plan, 1)) for name, plan in hosts]
        with self._db.write() as conn:
            conn.execute(_OVER)
            if PLANS.insert(conn, record):
                conn.executemany("INSERT INTO saved_plan_hosts (digest, host, plan) VALUES (?, ?, ?)", rows)
            return PLANS.get(conn, record.digest) or record

    def get(self, digest: str) -> PlanRecord | None:
        with self._db.read() as conn:
            return PLANS.get(conn, digest)

    def of_host(self, digest: str, host: str) -> bytes | None:
        with self._db.read() as conn:
            sql = "SELECT plan FROM saved_plan_hosts WHERE digest = ? AND host = ?"
            row = conn.execute(sql, (digest, host)).fetchone()
        return None if row is None else zlib.decompress(row[0])

    def memories(self, look: str) -> Memories:
        with self._db.read() as conn:
            return Memories(
                hosts={row[0]: row[1:] for row in conn.execute(HOSTS)},
                looks={row[0]: row[1:] for row in conn.execute(LOOKS, (look,))},
                seconds=dict(conn.execute(SECONDS).fetchall()),
            )
