"""What a controller keeps: databases, worker, keys, ramdisks, backups, and secrets that it refers to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from metalimmu.errors import MetalimmuError
from metalimmu.log import redact
from metalimmu.service.doctor.check import Check, fail, few, ok, span, unknown, warn
from metalimmu.service.doctor.probes import Probes


def store(path: Path, names: frozenset[str]) -> Iterator[Check]:
    """`names`: the migrations that this program knows. Changes nothing: neither migrates nor makes a file."""
    if not path.exists():
        yield ok("store", f"{path.name} is made when it is first used")
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as conn:
            applied = {r[0] for r in conn.execute("SELECT name FROM _sqlite_migrations")}
            sound = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as exc:
        yield fail(
            "store", f"{path}: {exc}", "`metalimmu restore` a backup, or `sqlite3 FILE .recover` what can be read"
        )
        return
    unknown_ones, missing = sorted(applied - names), sorted(names - applied)
    if sound != "ok":
        yield fail("store", f"{path} is damaged: {sound}", "`metalimmu restore` a backup, or `sqlite3 FILE .recover`")
    elif unknown_ones:
        yield fail(
            "store",
            f"{path} is newer than this program: it has {few(unknown_ones)}",
            "use the metalimmu that made it, or a newer one; this one changes nothing in it",
        )
    elif missing:
        yield ok(
            "store", f"of an older metalimmu: it is migrated when it is next used ({few(missing)}); back it up first"
        )
    else:
        yield ok("store", f"sound, as new as this program ({len(applied)} migrations)")


def engine(path: Path, known: int | None) -> Iterator[Check]:
    """`known`: the schema version of the DBOS that is installed."""
    if not path.exists():
        yield ok("engine", f"{path.name} is made with the first run")
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as conn:
            row = conn.execute("SELECT version FROM dbos_migrations").fetchone()
            sound = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as exc:
        yield fail(
            "engine", f"{path}: {exc}", "`metalimmu restore` a backup; it holds only the runs that are under way"
        )
        return
    if sound != "ok":
        yield fail("engine", f"{path} is damaged: {sound}", "`metalimmu restore` a backup")
    elif row and known is not None and int(row[0]) > known:
        yield fail(
            "engine",
            f"{path} is newer than this program: its tables are of version {row[0]}, DBOS here knows {known}",
            "use the metalimmu that made it, or a newer one; this one changes nothing in it",
        )
    else:
        yield ok("engine", f"sound, tables of version {row[0] if row else '?'}")


def worker(holder: str, *, free: bool, under_way: int, probes: Probes) -> Iterator[Check]:
    """`holder`: what the lock file says; `free`: whether the lock could be had."""
    if free and under_way:
        yield warn(
            "worker", f"{under_way} runs are under way and nobody executes them", "`metalimmu serve` goes on with them"
        )
    elif free:
        yield ok("worker", "none; the next command that needs one becomes it")
    else:
        pid = holder.rpartition("pid ")[2]
        dead = pid.isdigit() and not probes.alive(int(pid))
        if dead:
            yield warn(
                "worker",
                f"the lock is held, and {holder} is no process here",
                "on a network file system another machine may hold it; otherwise a child of it does: `fuser` on worker.lock names it",
            )
        else:
            yield ok("worker", f"{holder} executes {under_way} runs")


def secrets(refs: Mapping[str, list[str]], read: Callable[[str], object]) -> Iterator[Check]:
    """Each distinct reference is read once; what it holds is neither shown nor kept. `refs`: reference -> who needs it."""
    for ref, users in refs.items():
        name = f"secret: {ref.removeprefix('text:')}"
        try:
            read(ref)
        except MetalimmuError as exc:
            yield fail(name, f"{redact(exc.message)}; needed by {few(users)}", redact(exc.hint))
        else:
            yield ok(name, f"readable; for {few(users)}")


def ramdisks(found: Mapping[str, bool | None], wanted: Mapping[str, int]) -> Iterator[Check]:
    """`found`: flavour -> whether it carries this program's agent, None: damaged. `wanted`: flavour -> hosts that need it."""
    for flavour, hosts in wanted.items():
        if flavour not in found:
            yield fail(
                f"ramdisk: {flavour}",
                f"not built; {hosts} hosts need it",
                f"`metalimmu ramdisk build --flavour {flavour}`",
            )
        elif found[flavour] is None:
            yield fail(f"ramdisk: {flavour}", "cannot be read", f"`metalimmu ramdisk build --flavour {flavour}`")
        elif not found[flavour]:
            yield warn(
                f"ramdisk: {flavour}",
                "carries the agent of another version of metalimmu",
                f"`metalimmu ramdisk build --flavour {flavour}`",
            )
        else:
            yield ok(f"ramdisk: {flavour}", "carries this version's agent")


def backups(last: Mapping[str, Any] | None, every: float | None, now: float) -> Iterator[Check]:
    """`every`: seconds, of site.yaml."""
    found = dict(last or {})
    at = found.get("at")
    if "error" in found:
        yield fail(
            "backup",
            f"the last one failed {span(now - float(found.get('failed_at', now)))} ago: {found['error']}",
            str(found.get("hint", "")),
        )
    elif at is None:
        yield warn(
            "backup",
            "no backup was made yet" if every else "no backup is made by itself",
            "`backup:` in site.yaml, and `metalimmu serve`; or `metalimmu backup FILE` from cron"
            if every is None
            else "is `metalimmu serve` running?",
        )
    elif every is not None and now - float(at) > 2 * every:
        yield warn(
            "backup",
            f"the last one is {span(now - float(at))} old, one each {span(every)} is asked for",
            "is `metalimmu serve` running?",
        )
    else:
        yield ok(
            "backup",
            f"the last one is {span(now - float(at))} old, {found.get('bytes', 0) / 1e6:.1f} MB at {found.get('to', '?')}",
        )


def doubt(hosts: list[str], restored_at: float | None, now: float) -> Iterator[Check]:
    """After a restore."""
    if restored_at is None:
        return
    if hosts:
        yield warn(
            "restore",
            f"restored {span(now - restored_at)} ago; {len(hosts)} hosts have not proven themselves since: {few(hosts)}",
            "they do as they report; `metalimmu prove HOST` asks, `metalimmu reimage HOST` where a later deployment is on it",
        )
    else:
        yield ok("restore", f"restored {span(now - restored_at)} ago; every host has been heard since")


def versions(found: Mapping[str, str]) -> Iterator[Check]:
    missing = [n for n, v in found.items() if not v]
    if missing:
        yield unknown("versions", f"not known: {few(missing)}")
    yield ok("versions", ", ".join(f"{n} {v}" for n, v in found.items() if v))
