"""What a store knows of itself, and what a restore makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_rig import deployment

from metalimmu.errors import LeaseLost
from metalimmu.lifecycle import Proof
from metalimmu.plan.waves import RolloutState
from metalimmu.store.facts import STEP, UNSURE
from metalimmu.store.rollout_records import RolloutRecord
from metalimmu.store.sqlite import SqliteStore


@pytest.fixture
def now() -> list[float]:
    return [2_000_000_000.0]


@pytest.fixture
def store(tmp_path: Path, now: list[float]) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.sqlite", clock=lambda: now[0])
    yield made
    made.close()


def test_facts_are_kept(store: SqliteStore) -> None:
    assert store.fact("x") is None
    store.set_fact("x", {"a": 1})
    store.set_fact("x", {"b": [2]})
    assert store.fact("x") == {"b": [2]}


def test_a_store_that_was_never_restored(store: SqliteStore) -> None:
    assert store.restored() is None
    assert store.acquire_lease("n1", "r1", "w") == 1


def test_fences_after_a_restore_are_above_all_before(store: SqliteStore, now: list[float]) -> None:
    old = store.acquire_lease("n1", "r1", "w")
    store.release_lease("n2", "r0")
    mark = store.mark_restored(backup_at=1.0, incarnation="i")
    with pytest.raises(LeaseLost):
        store.check_fence("n1", old)
    assert store.take_over("n1", "r1", "w2") == mark.floor + 1
    assert store.acquire_lease("new", "r9", "w") == mark.floor + 1, "a host of which the backup knows nothing too"
    now[0] = 5.0  # a clock that is wrong by decades
    again = store.mark_restored(backup_at=2.0, incarnation="j")
    assert again.floor > mark.floor + STEP - 1
    assert store.restored() == again


def test_live_deployments_get_the_fence_and_ended_ones_keep_theirs(store: SqliteStore) -> None:
    store.add_deployment(deployment("live"))
    store.add_deployment(deployment("over", ended=5.0))
    mark = store.mark_restored(backup_at=1.0, incarnation="i")
    assert store.deployment("live").fence == mark.floor
    assert store.deployment("over").fence != mark.floor


def test_what_was_proven_is_in_doubt_and_says_why(store: SqliteStore) -> None:
    store.update_host("n1", proof=Proof.proven, image="web@1", proof_evidence={"run": "r"})
    store.update_host("n2", proof=Proof.unproven)
    store.heartbeat("w", pid=1, hostname="gone")
    store.mark_restored(backup_at=0.0, incarnation="i")
    one, two = store.host("n1"), store.host("n2")
    assert (one.proof, one.image, one.proof_evidence) == (Proof.unproven, "web@1", {"run": "r"})
    assert one.error is not None
    assert one.error.code == UNSURE
    assert (
        one.error.message == "not heard since this controller was restored from its backup of 1970-01-01 00:00:00 UTC"
    )
    assert two.error is None
    assert [(e.host, e.kind) for e in store.history()] == [("n1", "unproven")]
    assert store.workers() == []


def test_rollouts_wait_for_a_person(store: SqliteStore) -> None:
    """A freeze or a cancellation since the backup is forgotten: nothing that has not begun begins by itself."""
    for name, state in (("o-1", RolloutState.running), ("o-2", RolloutState.stopped), ("o-3", RolloutState.done)):
        store.rollouts.add(RolloutRecord(id=name, verb="reimage", state=state), [])
    store.mark_restored(backup_at=1.0, incarnation="i")
    found = {name: store.rollouts.get(name) for name in ("o-1", "o-2", "o-3")}
    assert {n: str(r.state) for n, r in found.items()} == {"o-1": "paused", "o-2": "stopped", "o-3": "done"}
    assert "restored from a backup" in found["o-1"].reason
