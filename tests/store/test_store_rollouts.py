"""Rollouts, freezes, what guards count, and a lease that is given only when the guard agrees."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from store_rig import deployment, run

from metalimmu.errors import GuardRefused, LeaseHeld, NotFound, UsageError
from metalimmu.lifecycle import State
from metalimmu.plan.guards import Standing
from metalimmu.plan.push import Push
from metalimmu.plan.waves import RolloutState, RowState
from metalimmu.store import rollouts
from metalimmu.store.ids import attempt_id, freeze_id, rollout_id
from metalimmu.store.records import ErrorText, Quarantine, RunStatus
from metalimmu.store.rollout_records import FreezeRecord, Place, RolloutHost, RolloutRecord
from metalimmu.store.sqlite import SqliteStore
from metalimmu.wire.messages import RunTimeConfig


def row(host: str, wave: int, **fields: Any) -> RolloutHost:
    return RolloutHost(rollout="o-1", host=host, seq=wave, wave=wave, **fields)


def add(store: SqliteStore, *hosts: RolloutHost, **fields: Any) -> None:
    store.rollouts.add(RolloutRecord(id="o-1", verb="reimage", **fields), hosts)


def active(store: SqliteStore, *hosts: str) -> None:
    for host in hosts:
        store.update_host(host, state=State.deploying)
        store.update_host(host, state=State.active)


def test_a_rollout_is_kept_with_its_hosts(store: SqliteStore) -> None:
    add(store, row("b", 2), row("a", 1), options={"max_failures": 2})
    add(store, row("c", 1))  # a second add of the same id changes nothing
    assert [h.host for h in store.rollouts.hosts("o-1")] == ["a", "b"]
    assert store.rollouts.get("o-1").options == {"max_failures": 2}
    assert store.rollouts.counts("o-1") == {RowState.waiting: 2}
    store.rollouts.set("o-1", hosts={"a": {"state": RowState.done}}, reason="x")
    assert store.rollouts.hosts("o-1")[0].since > 0
    assert [r.id for r in store.rollouts.find(states=(RolloutState.running,))] == ["o-1"]
    assert store.rollouts.find(states=()) == []
    with pytest.raises(NotFound):
        store.rollouts.get("o-2")


def test_an_end_stays_and_a_state_that_was_not_expected_changes_nothing(store: SqliteStore) -> None:
    add(store, row("a", 1))
    store.rollouts.set("o-1", expect=(RolloutState.paused,), state=RolloutState.stopped)
    assert store.rollouts.get("o-1").state is RolloutState.running
    store.rollouts.set("o-1", state=RolloutState.cancelled)
    store.rollouts.set("o-1", state=RolloutState.running, hosts={"a": {"state": RowState.done}})
    assert store.rollouts.get("o-1").state is RolloutState.cancelled
    assert store.rollouts.hosts("o-1")[0].state is RowState.waiting


def test_the_scene_is_what_the_next_act_depends_on(store: SqliteStore) -> None:
    states = {
        "a": ("done", 1),
        "b": ("failed", 2),
        "c": ("done", 2),
        "d": ("running", 3),
        "e": ("waiting", 3),
        "f": ("waiting", 4),
    }
    add(store, *(row(n, w, state=RowState(s), run=f"r-{n}") for n, (s, w) in states.items()))
    for name in "bcd":
        store.add_run(run(f"r-{name}", host=name))
    error = ErrorText(code="StepTimeout", message="nothing reported")
    store.set_run("r-d", status=RunStatus.failed, error=error)
    store.update_host("d", quarantine=Quarantine(reason="x", since=1.0, run="r-d"))
    scene = store.rollouts.scene("o-1")
    assert [r.host for r in scene.rows] == ["b", "c", "d", "e"]  # neither the long past nor the future
    assert set(scene.ended) == {"d"}
    assert scene.ended["d"].touched
    assert scene.ended["d"].text == "nothing reported"
    store.rollouts.set_hosts("o-1", {"b": {"forgiven": True}})
    scene = store.rollouts.scene("o-1")
    assert [r.host for r in scene.rows] == ["d", "e"]
    assert scene.forgiven == 1


def test_who_counts_as_active_and_as_changing(store: SqliteStore) -> None:
    active(store, "a", "b", "c", "d", "e")
    store.update_host("b", quarantine=Quarantine(reason="x", since=1.0))
    store.update_host("c", maintenance="new disk")
    store.update_host("d", power="Off")
    store.update_host("e", settles=4e9)
    store.update_host("f", image="web@1")  # enrolled
    store.admit(run("r-1", host="a"), "w")
    store.admit(run("r-2", host="b"), "w")
    store.set_run("r-2", status=RunStatus.succeeded)  # died before it gave the lease back
    found = store.rollouts.standing()
    assert found.active == {"a"}
    assert found.changing == {"a": "r-1"}
    store.update_host("e", settles=1.0)
    assert store.rollouts.standing().active == {"a", "e"}


def test_open_pushes_are_counted_for_as_long_as_a_machine_may_take(store: SqliteStore, clock: Any) -> None:
    now = clock()
    config = RunTimeConfig((), "x")
    for host, state, until in (
        ("a", "waiting", now + 60), ("b", "fetched", now + 60), ("c", "waiting", now - 1), ("d", "applied", now + 60)
    ):  # fmt: skip
        store.add_deployment(deployment(f"r-{host}", host=host))
        made = Push(serial=1, digest="0123456789abcdef", config=config, key="k", spec={}, state=state, until=until)
        store.update_deployment(f"r-{host}", push=made)
    store.add_deployment(deployment("r-e", host="e"))
    found = store.rollouts.standing()
    assert found.pushed == dict.fromkeys("ab", "config push 0123456789ab")
    assert found.changing == {}
    with store._db.read() as conn:
        how = conn.execute(f"EXPLAIN QUERY PLAN {rollouts._PUSHED}", (now,)).fetchall()
    assert "deployments_pushed" in how[0][-1]  # not each deployment that there ever was, in the transaction of a lease


def test_a_refused_lease_leaves_nothing_behind(store: SqliteStore) -> None:
    def refuse(_: Standing) -> None:
        raise GuardRefused("no")

    add(store, row("a", 1))
    place = Place(rollout="o-1", was=RowState.waiting, fields={"state": RowState.running})
    with pytest.raises(GuardRefused, match="no"):
        store.admit(run("r-1", host="a"), "w", guard=refuse, place=place)
    assert store.runs() == []
    assert store.leases() == []
    assert store.rollouts.hosts("o-1")[0].state is RowState.waiting
    with pytest.raises(GuardRefused):
        store.acquire_lease("a", "power off", "w", guard=refuse)
    assert store.leases() == []


def test_the_guard_sees_the_store_before_the_lease(store: SqliteStore) -> None:
    seen: list[Standing] = []
    active(store, "a", "b")
    store.admit(run("r-1", host="a"), "w", guard=seen.append)
    store.admit(run("r-2", host="b"), "w", guard=seen.append)
    store.admit(run("r-2", host="b"), "w", guard=seen.append)  # it is there: asked nothing
    assert [dict(s.changing) for s in seen] == [{}, {"a": "r-1"}]
    with pytest.raises(LeaseHeld, match="r-1"):
        store.admit(run("r-3", host="a"), "w", guard=seen.append)


def test_a_lease_that_a_crash_left_is_taken_over(store: SqliteStore) -> None:
    store.admit(run("r-1", host="a"), "w")
    store.set_run("r-1", status=RunStatus.failed)
    assert store.admit(run("r-2", host="a"), "w", guard=lambda _: None).id == "r-2"
    assert store.lease("a").run == "r-2"  # type: ignore[union-attr]


def test_a_place_is_taken_once_and_not_after_too_many_failures(store: SqliteStore) -> None:
    add(store, row("a", 1), row("b", 1), row("c", 1))
    place = Place(rollout="o-1", was=RowState.waiting, failures=1, fields={"state": RowState.running, "run": "r-1"})
    store.admit(run("r-1", host="a"), "w", place=place)
    assert store.rollouts.hosts("o-1")[0].run == "r-1"
    store.set_run("r-1", status=RunStatus.failed)
    store.release_lease("a", "r-1")
    with pytest.raises(GuardRefused, match="running"):
        store.admit(run("r-2", host="a"), "w", place=place)
    store.rollouts.set_hosts("o-1", {"a": {"state": RowState.failed}})
    with pytest.raises(GuardRefused, match="1 hosts"):
        store.admit(run("r-3", host="b"), "w", place=place)
    store.rollouts.set_hosts("o-1", {"a": {"forgiven": True}})
    assert store.admit(run("r-3", host="b"), "w", place=place).id == "r-3"


@pytest.mark.parametrize("state", sorted(set(RolloutState) - {RolloutState.running}))
def test_no_place_is_taken_in_a_rollout_that_does_not_run(store: SqliteStore, state: RolloutState) -> None:
    add(store, row("a", 1))
    store.rollouts.set("o-1", state=state)
    place = Place(rollout="o-1", was=RowState.waiting, fields={"state": RowState.running, "run": "r-1"})
    with pytest.raises(GuardRefused, match=f"is {state} by now"):
        store.admit(run("r-1", host="a"), "w", place=place)
    assert store.runs() == []
    assert store.leases() == []


def test_freezes(store: SqliteStore) -> None:
    for name, until in (("f-1", None), ("f-2", 4e9), ("f-3", 5.0)):
        store.rollouts.freeze(FreezeRecord(id=name, reason="audit", by="ann", until=until))
    assert {f.id for f in store.rollouts.freezes()} == {"f-1", "f-2"}
    assert {f.id for f in store.rollouts.standing().freezes} == {"f-1", "f-2"}
    assert store.rollouts.thaw("f-1", "bob").ended_by == "bob"
    assert {f.id for f in store.rollouts.standing().freezes} == {"f-2"}
    assert len(store.rollouts.freezes(ended=True)) == 3
    with pytest.raises(UsageError, match="ended"):
        store.rollouts.thaw("f-1", "bob")
    with pytest.raises(NotFound):
        store.rollouts.thaw("f-9", "bob")


def test_names() -> None:
    assert rollout_id(0.0).startswith("o-19700101-")
    assert freeze_id(0.0).startswith("f-19700101-")
    one = attempt_id("o-20261120-1aaaaaaaa", "n1", 1)
    assert one == attempt_id("o-20261120-1aaaaaaaa", "n1", 1)
    assert one.startswith("r-20261120-")
    others = {attempt_id("o-20261120-1aaaaaaaa", h, a) for h in ("n1", "n11") for a in (1, 2, 11)}
    assert len(others) == 6


MOST = 3


def at_most(standing: Standing) -> None:
    if len(standing.changing) >= MOST:
        raise GuardRefused("full")


def test_threads_together_never_pass_a_guard(store: SqliteStore) -> None:
    wrong: list[int] = []

    def work(me: int) -> None:
        done = 0
        while done < 15:
            name = f"r-{me}-{done}"
            try:
                store.admit(run(name, host=f"h{me}"), "w", guard=at_most)
            except GuardRefused:
                continue
            if (now := len(store.rollouts.standing().changing)) > MOST:
                wrong.append(now)
            store.set_run(name, status=RunStatus.succeeded)
            store.release_lease(f"h{me}", name)
            done += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert wrong == []
    assert len(store.runs(limit=1000)) == 8 * 15


PERSON = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from store_rig import run
from test_store_rollouts import at_most
from metalimmu.errors import GuardRefused
from metalimmu.store.records import RunStatus
from metalimmu.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
me, done = sys.argv[2], 0
while done < int(sys.argv[3]):
    name = f"r-{me}-{done}"
    try:
        store.admit(run(name, host=me), me, guard=at_most)
    except GuardRefused:
        continue
    found = len(store.rollouts.standing().changing)
    store.set_run(name, status=RunStatus.succeeded, options={"seen": found})
    store.release_lease(me, name)
    done += 1
store.close()
"""


def test_people_in_several_processes_never_pass_a_guard(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    here = str(Path(__file__).parent)
    people = [
        subprocess.Popen(
            [sys.executable, "-c", PERSON, str(path), f"h{i}", "20", here], stderr=subprocess.PIPE, text=True
        )
        for i in range(5)
    ]
    for person in people:
        _, err = person.communicate(timeout=180)
        assert person.returncode == 0, err
    store = SqliteStore(path)
    seen = [r.options["seen"] for r in store.runs(limit=1000)]
    store.close()
    assert len(seen) == 100
    assert max(seen) <= MOST
