"""Copies of several SQLite files as they were at one moment, while others go on writing.

The writers of the first file are held for about a millisecond (`BEGIN IMMEDIATE`); meanwhile a read transaction begins on
every file. These transactions are what is copied, at leisure: in a write-ahead log a reader keeps nobody from writing.

Why the copies fit each other: a run writes into the store first (a step's outcome) and into the engine after that (its
checkpoint), never the other way round. While the store stands still the engine's reader begins; so at that instant both
files had exactly these contents, and what is copied is what `kill -9` at that instant would have left. Whatever came
between two writes of a run is therefore a case that its resumption knows.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from metalimmu.errors import StoreError
from metalimmu.store.database import BUSY, translated


def snapshot(pairs: Sequence[tuple[Path, Path]], *, busy: float = BUSY) -> float:
    """Copy each first file to its second one, which must not be there; returns the moment (seconds since 1970).

    The writers of the first pair's file are held while the moment is taken. Raises StoreError, also when a copy is damaged.
    """
    with ExitStack() as stack:
        sources = []
        for source, _ in pairs:
            with translated(source):
                sources.append(stack.enter_context(closing(_open(source, busy))))
        with translated(pairs[0][0]), closing(_open(pairs[0][0], busy)) as gate:
            gate.execute("BEGIN IMMEDIATE")
            try:
                for conn in sources:
                    conn.execute("BEGIN")
                    conn.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the transaction begins with a read
                moment = time.time()
            finally:
                gate.rollback()
        for conn, (_, target) in zip(sources, pairs, strict=True):
            _copy(conn, target)
    return moment


def _open(path: Path, busy: float) -> sqlite3.Connection:
    """Raises sqlite3.Error for a file that is not there, instead of making one."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=busy, isolation_level=None)


def _copy(source: sqlite3.Connection, target: Path) -> None:
    with translated(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(target, isolation_level=None)) as out:
            source.backup(out)  # inside the source's open transaction: it copies what that one sees
            out.execute("PRAGMA journal_mode=DELETE")  # one file, whole in itself
            found = out.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(
            f"{target.name} is damaged: {found}",
            hint="no backup was made; `sqlite3 FILE .recover` reads what can be read, or restore an older backup",
        )
