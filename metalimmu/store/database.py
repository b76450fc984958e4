"""One SQLite file, used by many threads and several processes: connections, transactions, errors.

One connection writes, under a lock; readers borrow from a small pool, so a hundred waiting workflows do not cost a
hundred page caches. WAL: readers and the writer do not wait for each other.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from metalimmu.errors import StoreError

BUSY = 30.0  # seconds to wait for another process's transaction

_IDLE_READERS = 4


class Database:
    """`read()` and `write()` give a connection for one transaction. All errors of SQLite come out as StoreError."""

    def __init__(self, path: Path, *, busy: float = BUSY) -> None:
        self.path = path
        self._busy = busy
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        with translated(path):
            _create(path)
            self._writer = self._open()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Several statements in here see one and the same state."""
        with translated(self.path):
            conn = self._borrow()
            try:
                conn.execute("BEGIN")
                yield conn
            finally:
                conn.rollback()
                self._give_back(conn)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction, rolled back when the block raises. Not durable: a power cut may lose it, a kill does not."""
        if not self._lock.acquire(timeout=self._busy):
            raise StoreError(
                f"{self.path}: no turn to write within {self._busy:g} s",
                hint="the disk of the state directory is very slow, or another metalimmu process holds the store",
            )
        try:
            with translated(self.path):
                if self._closed:
                    raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
                conn = self._writer
                conn.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                conn.execute("BEGIN IMMEDIATE")
                try:
                    yield conn
                    conn.execute("COMMIT")
                except BaseException:
                    conn.rollback()
                    raise
        finally:
            self._lock.release()

    def migrate(self, apply: Callable[[sqlite3.Connection], None]) -> None:
        """Under the write lock of the file, so of two processes that open a new store one waits for the other."""
        with self.write() as conn:
            apply(conn)

    def _borrow(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _give_back(self, conn: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= _IDLE_READERS:
            conn.close()
        else:
            self._idle.append(conn)

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(self.path, timeout=self._busy, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(conn, time.monotonic() + self._busy)
            conn.execute("PRAGMA cache_size=-1024")  # KiB
        except BaseException:
            conn.close()
            raise
        return conn


def _create(path: Path) -> None:
    """Readable by its owner only: run-time config may hold password hashes. SQLite gives -wal and -shm the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _use_wal(conn: sqlite3.Connection, deadline: float) -> None:
    """SQLite does not use its busy time limit for this change: two processes that open a new file get an error at once."""
    while True:
        try:
            conn.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite and of the file system, as StoreError with what to do."""
    try:
        yield
    except sqlite3.Error as exc:
        name = getattr(exc, "sqlite_errorname", "") or ""
        raise StoreError(f"{path}: {exc}", hint=_hint(name, str(exc), path)) from exc
    except OSError as exc:
        raise StoreError(f"{path}: {exc.strerror or exc}", hint=_hint("SQLITE_CANTOPEN", "", path)) from exc


def _hint(name: str, text: str, path: Path) -> str:
    folder = path.parent
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"another process has held {path.name} for long: `fuser {path}` names it"
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return f"free space on the disk of {folder} (`df {folder}`), or look at the disk's health; nothing was lost"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"give this user read and write permission to {folder} and all files in it"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"keep a copy of {folder}, then recover what can be read with `sqlite3 {path} .recover`, or restore a backup"
    if "closed" in text:
        return "the program is shutting down"
    return ""
