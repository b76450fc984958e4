"""The tables, as named migrations that only go forward. A migration that was ever released never changes.

To change a table: add a function at the end. A database that has a migration which is not in this file was made by a
newer program and is refused. One file, long as it is: the order of the functions is the order in which they run.
"""

from __future__ import annotations

from typing import Any

from sqlite_utils import Migrations

migrations = Migrations("metalimmu")


def names() -> frozenset[str]:
    return frozenset(m.name for m in migrations._migrations)  # noqa: SLF001  # sqlite-utils has no public list


@migrations()
def m001_hosts(db: Any) -> None:
    db["hosts"].create(
        {
            "name": str,
            "state": str,
            "proof": str,
            "proof_evidence": str,
            "proven_at": float,
            "image": str,
            "digest": str,
            "previous_image": str,
            "previous_digest": str,
            "power": str,
            "power_at": float,
            "error": str,
            "quarantine": str,
            "maintenance": str,
            "efi_entries": str,
            "updated": float,
        },
        pk="name",
    )
    db["leases"].create({"host": str, "fence": int, "run": str, "holder": str, "since": float}, pk="host")


@migrations()
def m002_runs(db: Any) -> None:
    db["runs"].create(
        {
            "id": str,
            "verb": str,
            "host": str,
            "plan": str,
            "options": str,
            "status": str,
            "created": float,
            "started": float,
            "finished": float,
            "error": str,
            "worker": str,
            "cancel_requested": int,
        },
        pk="id",
    )
    db["runs"].create_index(["host", "created"])
    db["runs"].create_index(["status", "created"])
    db["steps"].create(
        {
            "run": str,
            "seq": int,
            "name": str,
            "attempts": int,
            "started": float,
            "finished": float,
            "outcome": str,
            "summary": str,
            "evidence": str,
            "bytes": int,
            "earlier": str,
        },
        pk=("run", "seq", "name"),
    )
    db["workers"].create({"id": str, "pid": int, "hostname": str, "since": float, "seen": float}, pk="id")


@migrations()
def m003_deployments(db: Any) -> None:
    db["deployments"].create(
        {
            "id": str,
            "run": str,
            "host": str,
            "token_hash": str,
            "proof_hash": str,
            "media_hash": str,
            "chunk_hash": str,
            "assignment": str,
            "fence": int,
            "config": str,
            "config_digest": str,
            "proof_by": str,
            "stage": str,
            "go": int,
            "went": float,
            "stop": str,
            "intent": str,
            "intent_at": float,
            "check_in": str,
            "checked_in": float,
            "boot_ids": str,
            "last_seen": float,
            "progress": str,
            "progressed": float,
            "report": str,
            "read_back_ok": int,
            "written": float,
            "failure": str,
            "refusal": str,
            "refused_at": float,
            "system": str,
            "system_ok": int,
            "system_why": str,
            "system_at": float,
            "media_bytes": int,
            "chunk_bytes": int,
            "created": float,
            "ended": float,
        },
        pk="id",
    )
    for secret in ("token_hash", "proof_hash", "media_hash", "chunk_hash"):
        db["deployments"].create_index([secret], unique=True)
    db["deployments"].create_index(["host", "created"])
    db["deployments"].create_index(["run"])
    db["deployments"].create_index(["ended"])


@migrations()
def m004_history(db: Any) -> None:
    db["events"].create(
        {
            "id": int,
            "at": float,
            "host": str,
            "run": str,
            "kind": str,
            "text": str,
            "data": str,
            "key": str,
        },
        pk="id",
    )
    db["events"].create_index(["host", "id"])
    db["events"].create_index(["run", "id"])
    db["events"].create_index(["key"], unique=True)
    db["observations"].create({"id": int, "host": str, "kind": str, "data": str, "at": float, "seen": float}, pk="id")
    db["observations"].create_index(["host", "kind", "id"])
    db["logins"].create({"bmc": str, "version": str, "at": float}, pk=("bmc", "version"))


@migrations()
def m005_scans(db: Any) -> None:
    """Values and findings as changes over time. Names and texts are interned: a fleet says the same few words.

    `value_now` and `value_log` have the same columns; a value that changed moves to the log. `before_seen` is when the
    value before it was last seen; null: nothing was known before. `value` null: the setting is not there.
    """
    db["scans"].create(
        {
            "id": str,
            "trigger": str,
            "scope": str,
            "hosts": int,
            "hosts_digest": str,
            "created": float,
            "finished": float,
            "counts": str,
            "summary": str,
        },
        pk="id",
    )
    for sql in (
        "CREATE TABLE scan_lists (digest TEXT PRIMARY KEY, hosts BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE scan_done (scan TEXT, host TEXT, PRIMARY KEY (scan, host)) WITHOUT ROWID",
        """CREATE TABLE scan_hosts (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, read_at REAL, tried_at REAL,
           streak INTEGER NOT NULL DEFAULT 0, failure TEXT, values_digest BLOB, findings_digest BLOB,
           state TEXT NOT NULL DEFAULT 'unknown', about TEXT NOT NULL DEFAULT '{}', stale TEXT)""",
        "CREATE TABLE settings (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL)",
        "CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL)",
        """CREATE TABLE value_now (host INTEGER, setting INTEGER, since REAL, before_seen REAL, value INTEGER,
           PRIMARY KEY (host, setting)) WITHOUT ROWID""",
        """CREATE TABLE value_log (host INTEGER, setting INTEGER, since REAL, before_seen REAL, value INTEGER,
           PRIMARY KEY (host, setting, since)) WITHOUT ROWID""",
        "CREATE INDEX value_now_changed ON value_now (since) WHERE before_seen IS NOT NULL",
        "CREATE INDEX value_log_changed ON value_log (since) WHERE before_seen IS NOT NULL",
        """CREATE TABLE findings (id INTEGER PRIMARY KEY, host INTEGER, setting INTEGER, word TEXT, expected INTEGER,
           actual INTEGER, reason INTEGER, source INTEGER, severity TEXT, owner INTEGER, profile INTEGER,
           first_seen REAL, seen REAL)""",
        "CREATE INDEX findings_host ON findings (host)",
        "CREATE INDEX findings_drift ON findings (word, id) WHERE word <> 'match'",
        """CREATE TABLE findings_log (id INTEGER PRIMARY KEY, host INTEGER, setting INTEGER, word TEXT, expected INTEGER,
           actual INTEGER, reason INTEGER, source INTEGER, severity TEXT, owner INTEGER, profile INTEGER,
           first_seen REAL, seen REAL, fixed_at REAL, ended TEXT)""",
        "CREATE INDEX findings_log_host ON findings_log (host, setting)",
        "CREATE INDEX findings_log_fixed ON findings_log (fixed_at) WHERE word <> 'match'",
        """CREATE TABLE blames (host TEXT, setting TEXT, at REAL, kind TEXT, who TEXT, what TEXT, why TEXT, entries TEXT,
           PRIMARY KEY (host, setting, at)) WITHOUT ROWID""",
        "CREATE TABLE bmc_memory (vendor TEXT, model TEXT, firmware TEXT, data TEXT, PRIMARY KEY (vendor, model, firmware)) WITHOUT ROWID",
        "CREATE TABLE registries (vendor TEXT, model TEXT, bios TEXT, at REAL, data BLOB, PRIMARY KEY (vendor, model, bios)) WITHOUT ROWID",
    ):
        db.execute(sql)


@migrations()
def m020_triggers(db: Any) -> None:
    db["schedules"].create(
        {"name": str, "definition": str, "since": float, "paused": str, "paused_by": str, "paused_at": float}, pk="name"
    )
    db["turns"].create(
        {
            "schedule": str,
            "due": float,
            "begins": float,
            "ends": float,
            "closes": float,
            "claimed": float,
            "claimed_by": str,
            "scan": str,
            "finished": float,
            "error": str,
        },
        pk=("schedule", "due"),
    )
    db["alert_states"].create(
        {
            "alert": str,
            "cause": str,
            "kind": str,
            "since": float,
            "revision": int,
            "about": str,
            "hosts": str,
            "was": int,
        },
        pk=("alert", "cause"),
    )
    db["alert_number"].insert({"number": 0})
    db["outbox"].create(
        {
            "id": int,
            "key": str,
            "alert": str,
            "kind": str,
            "body": str,
            "created": float,
            "attempts": int,
            "next_at": float,
            "held_until": float,
            "sent": float,
            "dropped": float,
            "error": str,
        },
        pk="id",
    )
    db["outbox"].create_index(["key"], unique=True)
    db["outbox"].create_index(["sent", "dropped", "next_at"])


@migrations()
def m030_rollouts(db: Any) -> None:
    db["rollouts"].create(
        {
            "id": str,
            "verb": str,
            "state": str,
            "reason": str,
            "options": str,
            "by": str,
            "plan_digest": str,
            "created": float,
            "finished": float,
        },
        pk="id",
    )
    db["rollouts"].create_index(["state", "created"])
    db["rollout_hosts"].create(
        {
            "rollout": str,
            "host": str,
            "seq": int,
            "wave": int,
            "pool": str,
            "state": str,
            "since": float,
            "after": float,
            "run": str,
            "attempt": int,
            "reason": str,
            "image": str,
            "digest": str,
            "before_image": str,
            "before_digest": str,
            "soak": float,
            "forgiven": int,
        },
        pk=("rollout", "host"),
    )
    db["rollout_hosts"].create_index(["rollout", "state", "wave"])
    db["rollout_hosts"].create_index(["rollout", "wave"])
    db["freezes"].create(
        {
            "id": str,
            "reason": str,
            "by": str,
            "selector": str,
            "since": float,
            "until": float,
            "ended": float,
            "ended_by": str,
        },
        pk="id",
    )
    db["hosts"].add_column("settles", float)
    db.execute("CREATE INDEX leases_held ON leases (host) WHERE run IS NOT NULL")


@migrations()
def m040_facts(db: Any) -> None:
    """`facts`: what the store knows of itself. `superseded`: a newer fence than ours that a machine has seen."""
    db["facts"].create({"key": str, "value": str}, pk="key")
    db["deployments"].add_column("superseded", int)


@migrations()
def m050_health(db: Any) -> None:
    """`health`: what the site's checks said of a host; see records.HealthRecord."""
    db["hosts"].add_column("health", str)


@migrations()
def m060_plans(db: Any) -> None:
    db["saved_plans"].create(
        {"digest": str, "head": str, "approvals": str, "by": str, "applied": float, "work": str}, pk="digest"
    )
    db.execute(
        "CREATE TABLE saved_plan_hosts (digest TEXT, host TEXT, plan BLOB, PRIMARY KEY (digest, host)) WITHOUT ROWID"
    )


@migrations()
def m070_config(db: Any) -> None:
    """Run-time config after the deployment, and agents that wait for their turn; see records.DeploymentRecord."""
    for column in ("config_key", "config_seen", "host_key"):
        db["deployments"].add_column(column, str, not_null_default="")
    for column, kind in (("config_at", float), ("config_seen_at", float), ("push", str), ("queued", float)):
        db["deployments"].add_column(column, kind)


@migrations()
def m080_half_read(db: Any) -> None:
    """Hosts that are read, and never all of them; see scan_records.HostScan."""
    for column in ("gaps", "dark"):
        db["scan_hosts"].add_column(column, int, not_null_default=0)


@migrations()
def m081_netboot(db: Any) -> None:
    """Boots from the network: how a deployment's machine is started, and machines that ask and are nobody's."""
    db["deployments"].add_column("method", str, not_null_default="virtual-media")
    db["deployments"].add_column("offered", float)
    db["deployments"].add_column("asked", int, not_null_default=0)
    db["deployments"].add_column("asked_at", float)
    db["discovered"].create(
        {
            "mac": str,
            "uuid": str,
            "serial": str,
            "vendor": str,
            "product": str,
            "firmware": str,
            "architecture": str,
            "via": str,
            "address": str,
            "why": str,
            "first_seen": float,
            "last_seen": float,
            "times": int,
        },
        pk="mac",
    )
    db["discovered"].create_index(["last_seen"])


@migrations()
def m085_salvages(db: Any) -> None:
    """Archives with files of old systems; see salvage_records.SalvageRecord."""
    db["salvages"].create(
        {"host": str, "run": str, "name": str, "image": str, "bytes": int, "sha256": str, "at": float},
        pk=("run", "name"),
    )
    db["salvages"].create_index(["host", "at"])


@migrations()
def m088_kinds(db: Any) -> None:
    """Deployments that are booted and not written: installers, live systems, ISOs; see records.DeploymentRecord."""
    db["deployments"].add_column("kind", str, not_null_default="disk")
    db["deployments"].add_column("answers_hash", str, not_null_default="")
    db["deployments"].add_column("fetched", str, not_null_default="{}")
    db["deployments"].add_column("fetches", int, not_null_default=0)
    db["deployments"].add_column("finished", float)
    db["deployments"].create_index(["answers_hash"])


@migrations()
def m090_switches(db: Any) -> None:
    """Deployments of switches; see switch_records.SwitchRecord."""
    text = (
        "id",
        "run",
        "host",
        "secret_hash",
        "method",
        "image",
        "digest",
        "serial",
        "base_mac",
        "mgmt_mac",
        "platform",
    )
    texts = (*text, "config", "config_digest", "before", "asked_from", "refused", "reported", "slot", "intent", "stop")
    numbers = ("size", "fence", "installs", "armed", "asked", "bytes", "delivered", "failures")
    times = (
        "asked_at",
        "delivered_at",
        "refused_at",
        "ztp_at",
        "config_at",
        "reported_at",
        "intent_at",
        "created",
        "ended",
    )
    columns = {**dict.fromkeys(texts, str), **dict.fromkeys(numbers, int), **dict.fromkeys(times, float)}
    db["switch_deployments"].create(columns, pk="id")
    db["switch_deployments"].create_index(["secret_hash"], unique=True)
    db["switch_deployments"].create_index(["host", "created"])


@migrations()
def m094_open_pushes(db: Any) -> None:
    """Guards count them in the transaction of a lease; the words are those of rollouts._PUSHED."""
    db.execute(
        "CREATE INDEX deployments_pushed ON deployments (host) WHERE json_extract(push, '$.state') IN ('waiting', 'fetched')"
    )
