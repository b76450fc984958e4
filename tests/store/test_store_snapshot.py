"""Copies of two databases that fit each other, taken while both are written."""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from metalimmu.errors import StoreError
from metalimmu.store.snapshot import snapshot


def numbers(path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("CREATE TABLE n (n INTEGER, ballast BLOB)")
    conn.execute("INSERT INTO n VALUES (0, randomblob(3000000))")
    return conn


def read(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        (found,) = conn.execute("SELECT n FROM n").fetchone()
        return int(found)


def test_the_second_file_is_never_ahead_of_the_first(tmp_path: Path) -> None:
    """A run writes store, then engine. A copy in which the engine knows more than the store has lost an outcome."""
    store, engine = numbers(tmp_path / "store"), numbers(tmp_path / "engine")
    stop = threading.Event()
    longest = 0.0

    def work() -> None:
        nonlocal longest
        n = 0
        while not stop.is_set():
            n += 1
            begun = time.monotonic()
            store.execute("UPDATE n SET n = ?", (n,))
            engine.execute("UPDATE n SET n = ?", (n,))
            longest = max(longest, time.monotonic() - begun)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        gaps = set()
        for i in range(25):
            copies = tmp_path / f"store-{i}", tmp_path / f"engine-{i}"
            before = time.time()
            moment = snapshot([(tmp_path / "store", copies[0]), (tmp_path / "engine", copies[1])])
            assert before <= moment <= time.time()
            gaps.add(read(copies[0]) - read(copies[1]))
            for copy in copies:
                assert stat.S_IMODE(copy.stat().st_mode) == 0o600
                copy.unlink()
    finally:
        stop.set()
        thread.join(30)
    assert gaps <= {0, 1}, gaps
    assert read(tmp_path / "store") > 25, "the writer stood still"
    store.close()
    engine.close()


def test_what_is_written_while_it_copies_is_not_in_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = numbers(tmp_path / "store")
    from metalimmu.store import snapshot as module

    copy = module._copy

    def slow(source: sqlite3.Connection, target: Path) -> None:
        store.execute("UPDATE n SET n = 5")  # nobody waits for us
        copy(source, target)

    monkeypatch.setattr(module, "_copy", slow)
    snapshot([(tmp_path / "store", tmp_path / "copy")], busy=0.1)
    assert (read(tmp_path / "store"), read(tmp_path / "copy")) == (5, 0)
    store.close()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        snapshot([(tmp_path / "store", tmp_path / "copy")])
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_makes_no_copy(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "store", isolation_level=None)) as conn:
        conn.execute("CREATE TABLE t (a)")
        conn.executemany("INSERT INTO t VALUES (?)", [("x" * 500,) for _ in range(500)])
        conn.execute("CREATE INDEX i ON t (a)")
    with (tmp_path / "store").open("r+b") as file:
        file.seek(4096 * 20)
        file.write(b"\xff" * 4096 * 3)
    with pytest.raises(StoreError) as raised:
        snapshot([(tmp_path / "store", tmp_path / "copy")])
    assert "damaged" in raised.value.message or "malformed" in raised.value.message
    assert raised.value.hint


def test_a_store_that_is_held_for_long_is_said(tmp_path: Path) -> None:
    store = numbers(tmp_path / "store")
    store.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as raised:
        snapshot([(tmp_path / "store", tmp_path / "copy")], busy=0.1)
    assert "fuser" in raised.value.hint
    store.rollback()
    store.close()
