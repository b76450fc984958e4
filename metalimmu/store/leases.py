"""One lease per host, with a fence that only rises: two workers never drive one BMC.

Functions on a connection inside a transaction.
"""

from __future__ import annotations

import sqlite3
import time

import msgspec

from metalimmu.errors import LeaseHeld, LeaseLost
from metalimmu.store.facts import floor
from metalimmu.store.records import FINAL, LeaseRecord
from metalimmu.store.rows import Rows

LEASES = Rows(LeaseRecord, "leases", ("host",))
UNUSED = 30.0  # seconds after which a lease that has no run, and was not renewed, was left by a crash


def acquire(conn: sqlite3.Connection, host: str, run: str, holder: str, now: float) -> int:
    lease = LEASES.get(conn, host)
    if lease is not None and lease.run is not None:
        if lease.run != run:
            raise held(lease)
        if lease.holder == holder:
            return lease.fence  # the caller was killed after this was written, before it knew
    return _give(conn, lease, LeaseRecord(host=host, fence=0, run=run, holder=holder, since=now))


def take_over(conn: sqlite3.Connection, host: str, run: str, holder: str, now: float) -> int:
    lease = LEASES.get(conn, host)
    if lease is None or lease.run != run:
        raise lost(host, lease, f"run {run} no longer holds the lease of {host}")
    return _give(conn, lease, LeaseRecord(host=host, fence=0, run=run, holder=holder, since=now))


def check(conn: sqlite3.Connection, host: str, fence: int) -> None:
    lease = LEASES.get(conn, host)
    if lease is None or lease.run is None or lease.fence != fence:
        raise lost(host, lease, f"fence {fence} of {host} is no longer valid")


def renew(conn: sqlite3.Connection, host: str, fence: int, now: float) -> None:
    check(conn, host, fence)
    LEASES.update(conn, (host,), {"since": now})


def release(conn: sqlite3.Connection, host: str, run: str, fence: int | None) -> None:
    lease = LEASES.get(conn, host)
    if lease is not None and lease.run == run and fence in (None, lease.fence):
        LEASES.update(conn, (host,), {"run": None, "holder": ""})


def release_dead(conn: sqlite3.Connection, host: str, now: float) -> None:
    """A crash between lease and run, or between a run's end and its release, leaves a lease that nobody uses."""
    lease = LEASES.get(conn, host)
    if lease is None or lease.run is None:
        return
    row = conn.execute("SELECT status FROM runs WHERE id = ?", (lease.run,)).fetchone()
    if row[0] in FINAL if row else now - lease.since > UNUSED:
        release(conn, host, lease.run, None)


def held(lease: LeaseRecord) -> LeaseHeld:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(lease.since))
    return LeaseHeld(
        f"run {lease.run} works on {lease.host} since {since} (worker {lease.holder})",
        hint=f"wait for it (`metalimmu run watch {lease.run}`) or `metalimmu run cancel {lease.run}`",
    )


def lost(host: str, lease: LeaseRecord | None, what: str) -> LeaseLost:
    if lease is None or lease.run is None:
        return LeaseLost(f"{what}: no run holds {host} now", hint="start the verb again")
    return LeaseLost(
        f"{what}: the newest is {lease.fence}, of run {lease.run} (worker {lease.holder})",
        hint=f"watch that one with `metalimmu run watch {lease.run}`",
    )


def _give(conn: sqlite3.Connection, before: LeaseRecord | None, wanted: LeaseRecord) -> int:
    """The row is never deleted, so the fence survives every release."""
    fence = max(before.fence if before else 0, floor(conn)) + 1
    if before is None:
        LEASES.insert(conn, msgspec.structs.replace(wanted, fence=fence))
    else:
        fields = {"fence": fence, "run": wanted.run, "holder": wanted.holder, "since": wanted.since}
        LEASES.update(conn, (wanted.host,), fields)
    return fence
