"""What can happen to a file: kill -9, a full disk, damage, a newer program, another process that holds it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from store_rig import deployment, run

from metalimmu.errors import StoreError
from metalimmu.store import leases, sqlite
from metalimmu.store.fakes import FailingStore
from metalimmu.store.ids import run_id
from metalimmu.store.records import HostRecord
from metalimmu.store.rows import Rows
from metalimmu.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "store.sqlite"


def opened(path, **given) -> SqliteStore:
    return SqliteStore(path, **given)


def integrity(path) -> str:
    conn = sqlite3.connect(path)
    try:
        return conn.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        conn.close()


def test_every_record_has_its_columns(path):
    store = opened(path)
    tables = [v for v in (*vars(sqlite).values(), *vars(leases).values()) if isinstance(v, Rows)]
    assert len(tables) == 9
    with store._db.read() as conn:
        for rows in tables:
            have = {r[1] for r in conn.execute(f"PRAGMA table_info({rows.table})")}
            assert have == set(rows.columns), rows.table
    store.close()


def test_the_file_is_private_and_uses_wal(path):
    store = opened(path)
    store.update_host("n1", image="web@1")
    assert {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()} == {
        "store.sqlite": 0o600,
        "store.sqlite-wal": 0o600,
        "store.sqlite-shm": 0o600,
    }
    with store._db.read() as conn:
        assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    store.close()


def test_what_was_written_is_there_after_opening_again(path):
    store = opened(path)
    store.add_run(run("r-1"))
    made = store.add_deployment(deployment("d-1"))
    store.close()
    again = opened(path)
    assert again.run("r-1").verb == "reimage"
    assert again.deployment("d-1") == made
    again.close()


def test_a_newer_database_is_refused_and_left_alone(path):
    opened(path).close()
    conn = sqlite3.connect(path)
    with conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('metalimmu', 'm999_future', '')"
        )
    conn.close()
    with pytest.raises(StoreError, match="newer than this program: it has m999_future") as caught:
        opened(path)
    assert "newer" in caught.value.hint
    assert integrity(path) == "ok"


def test_an_older_database_is_brought_up_to_date(path):
    from sqlite_utils import Database

    from metalimmu.store.migrations import migrations

    path.parent.mkdir()
    old = Database(path)
    migrations.apply(old, stop_before="m003_deployments")
    old["hosts"].insert(
        {
            "name": "n1",
            "state": "active",
            "proof": "proven",
            "proof_evidence": "{}",
            "efi_entries": "[]",
            "updated": 1.0,
        }
    )
    old.close()
    store = opened(path)
    assert store.host("n1").state == "active"
    store.add_deployment(deployment("d-1"))
    store.close()


KILLED = """
import sys
from pathlib import Path
from metalimmu.store.records import Outcome
from metalimmu.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
i = len(store.steps("r-1"))
while True:
    store.start_step("r-1", i, "s")
    store.finish_step("r-1", i, "s", Outcome.done, summary="x" * 500)
    store.update_host("n1", image=f"web@{i}")
    print(i, flush=True)
    i += 1
"""


def test_kill_9_while_writing_loses_nothing_that_was_said(path):
    for _ in range(5):
        victim = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
        last = -1
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            line = victim.stdout.readline()
            assert line, "the writer ended by itself"
            last = int(line)
        victim.send_signal(signal.SIGKILL)
        rest = victim.stdout.read().split()
        victim.wait()
        victim.stdout.close()
        last = int(rest[-1]) if rest else last
        assert integrity(path) == "ok"
        store = opened(path)
        assert len(store.steps("r-1")) >= last + 1
        assert store.steps("r-1")[last].outcome == "done"
        assert int(store.host("n1").image.removeprefix("web@")) >= last
        store.close()


FULL = """
import resource, sys
from pathlib import Path
from metalimmu.errors import StoreError
from metalimmu.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
store.update_host("n1", image="web@1")
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    for i in range(10_000):
        store.add_event("n1", "fill", "x" * 1000)
except StoreError as exc:
    print(exc.message, "|", exc.hint)
assert store.host("n1").image == "web@1"
before = len(store.history("n1", limit=100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add_event("n1", "fill", "space again")
assert len(store.history("n1", limit=100_000)) == before + 1
store.close()
print("went on")
"""


def test_a_full_disk_is_said_and_survived(path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "free space on the disk" in first
    assert second == "went on"
    assert integrity(path) == "ok"


def test_a_locked_store_says_so_and_works_again(path):
    store = opened(path, busy=0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.host("n1").image is None
    with pytest.raises(StoreError, match="locked") as caught:
        store.update_host("n1", image="web@1")
    assert "fuser" in caught.value.hint
    other.execute("ROLLBACK")
    other.close()
    store.update_host("n1", image="web@1")
    store.close()


def test_waiting_for_the_own_lock_has_a_limit(path):
    store = opened(path, busy=0.2)
    inside, leave = threading.Event(), threading.Event()

    def slow(_):
        inside.set()
        leave.wait(20)
        return {}

    holder = threading.Thread(target=store.update_host, args=("n1", slow))
    holder.start()
    inside.wait(20)
    with pytest.raises(StoreError, match=r"no turn to write within 0\.2 s"):
        store.update_host("n2", image="web@1")
    leave.set()
    holder.join()
    store.close()


def test_a_read_only_store_says_what_to_do(path):
    store = opened(path)
    store._db._writer.execute("PRAGMA query_only=1")
    with pytest.raises(StoreError, match="readonly") as caught:
        store.update_host("n1", image="web@1")
    assert "permission" in caught.value.hint
    store.close()


def test_a_path_that_cannot_be_a_file(tmp_path):
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(StoreError) as caught:
        opened(tmp_path / "state" / "store.sqlite")
    assert "permission" in caught.value.hint


@pytest.mark.parametrize("damage", ["garbage", "page"])
def test_a_damaged_file_is_named_with_a_way_out(path, damage):
    store = opened(path)
    for i in range(200):
        store.add_event("n1", "x", "y" * 500, key=str(i))
    store.close()
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data = bytearray(b"this is no database" * 500)
    else:
        data[4096:-4096] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreError) as caught:
        opened(path).history("n1")
    assert ".recover" in caught.value.hint


def test_a_closed_store_says_so(path):
    store = opened(path)
    store.close()
    for act in (store.hosts, lambda: store.update_host("n1", image="x")):
        with pytest.raises(StoreError, match="closed"):
            act()


def test_a_hundred_threads_write_and_read(path):
    store = opened(path)
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for n in range(5):
                store.update_host(f"n{i}", lambda h: {"proof_evidence": {"n": h.proof_evidence.get("n", 0) + 1}})
                store.update_host("all", lambda h: {"proof_evidence": {"n": h.proof_evidence.get("n", 0) + 1}})
                assert store.host(f"n{i}").proof_evidence == {"n": n + 1}
        except BaseException as exc:  # told to the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(100)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(100)
    assert failures == []
    assert store.host("all").proof_evidence == {"n": 500}
    assert len(store._db._idle) <= 4
    store.close()


def test_ten_thousand_hosts_are_read_quickly(path):
    store = opened(path)
    with store._db.write() as conn:
        for i in range(10_000):
            sqlite.HOSTS.insert(conn, HostRecord(name=f"n{i:05d}", proof_evidence={"serial": f"S{i}"}))
    start = time.process_time()
    found = store.hosts()
    spent = time.process_time() - start
    assert len(found) == 10_000
    assert found["n00007"].proof_evidence == {"serial": "S7"}
    assert spent < 0.5, f"{spent:.2f} s of CPU"
    store.close()


def test_ids_sort_by_time_and_are_not_guessed_alike():
    early, late = run_id(1_795_160_000.0), run_id(1_795_160_000.5)
    assert early < late
    assert early.startswith("r-20261120-")
    assert len(early) == len("r-20261120-") + 9
    assert len({run_id(1_795_160_000.0) for _ in range(50)}) > 45


def test_the_failing_store_fails_when_told_to(path):
    inner = opened(path)
    store = FailingStore(inner, only=frozenset({"update_host"}))
    store.update_host("n1", image="web@1")
    store.broken = True
    with pytest.raises(StoreError, match="full"):
        store.update_host("n1", image="web@2")
    assert store.host("n1").image == "web@1"
    assert store.calls == ["update_host"]
    inner.close()
