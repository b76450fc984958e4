"""The tables, as named migrations that only go forward. A migration that was ever released never changes.

To change a table: add a function at the end. A database that has a migration which is not in this file was made by a
newer program and is refused.
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
