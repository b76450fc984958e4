"""Fences only rise: whatever is asked in whatever order, by threads and by processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalimmu.errors import LeaseHeld, LeaseLost
from metalimmu.store.sqlite import SqliteStore

RUNS = st.sampled_from(["r-1", "r-2", "r-3"])
HOLDERS = st.sampled_from(["w1", "w2"])
ACTS = st.lists(st.tuples(st.sampled_from(["acquire", "take_over", "release"]), RUNS, HOLDERS), max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_a_fence_is_never_given_twice(tmp_path_factory, acts):
    store = SqliteStore(tmp_path_factory.mktemp("leases") / "store.sqlite")
    owner: tuple[str, str] | None = None  # the model: run and holder
    newest = 0
    try:
        for act, run, holder in acts:
            if act == "release":
                store.release_lease("n1", run)
                owner = None if owner and owner[0] == run else owner
                continue
            try:
                fence = (
                    store.acquire_lease("n1", run, holder) if act == "acquire" else store.take_over("n1", run, holder)
                )
            except LeaseHeld:
                assert act == "acquire"
                assert owner is not None
                assert owner[0] != run
                continue
            except LeaseLost:
                assert act == "take_over"
                assert owner is None or owner[0] != run
                continue
            if act == "acquire" and owner == (run, holder):
                assert fence == newest
            else:
                assert fence == newest + 1
            newest, owner = fence, (run, holder)
            store.check_fence("n1", newest)
            for older in range(1, newest):
                with pytest.raises(LeaseLost):
                    store.check_fence("n1", older)
    finally:
        store.close()


def test_many_threads_never_share_a_host(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite")
    inside = threading.Lock()
    fences: list[int] = []
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            done = 0
            while done < 10:
                try:
                    fence = store.acquire_lease("n1", name, name)
                except LeaseHeld:
                    continue
                assert inside.acquire(blocking=False), "two hold the lease at once"
                store.check_fence("n1", fence)
                fences.append(fence)
                inside.release()
                store.release_lease("n1", name, fence=fence)
                done += 1
        except BaseException as exc:  # told to the test's own thread
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(f"r-{i}",)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    store.close()
    assert failures == []
    assert fences == sorted(fences)
    assert len(set(fences)) == 80


WORKER = """
import sys
from pathlib import Path
from metalimmu.errors import LeaseHeld
from metalimmu.store.sqlite import SqliteStore
name = sys.argv[2]
store = SqliteStore(Path(sys.argv[1]))
done = 0
while done < 25:
    try:
        fence = store.acquire_lease("n1", name, name)
    except LeaseHeld:
        continue
    store.check_fence("n1", fence)
    store.add_event("n1", "fence", str(fence), run=name)
    store.release_lease("n1", name, fence=fence)
    done += 1
store.close()
"""


def test_several_processes_open_a_new_store_and_share_its_fences(tmp_path):
    path = tmp_path / "new" / "store.sqlite"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), f"r-{i}"], stderr=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    for each in workers:
        _, err = each.communicate(timeout=120)
        assert each.returncode == 0, err
    store = SqliteStore(path)
    fences = [int(e.text) for e in store.history("n1")]
    store.close()
    assert fences == list(range(1, 101))
