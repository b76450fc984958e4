"""What every store does."""

from __future__ import annotations

import pytest
from store_rig import deployment, run

from metalimmu.errors import LeaseHeld, LeaseLost, NotFound
from metalimmu.lifecycle import IllegalMove, Proof, State
from metalimmu.store.records import Beat, ErrorText, HostRecord, Outcome, Quarantine, RunStatus
from metalimmu.wire.messages import CheckIn, Identity, Progress


def test_an_unknown_host_is_enrolled_and_unproven(store):
    assert store.host("n1") == HostRecord(name="n1")
    assert store.host("n1").state is State.enrolled
    assert store.host("n1").proof is Proof.unproven
    assert store.hosts() == {}


def test_a_host_keeps_what_is_written(store):
    quarantine = Quarantine(reason="write failed", since=5.0, run="r1", evidence={"disks": ["/dev/sda"]})
    error = ErrorText(code="DiskUnsuitable", message="too small", hint="choose another", at=6.0)
    store.update_host(
        "n1",
        state=State.deploying,
        proof="proven",
        proof_evidence={"serial": "SN1", "count": 3},
        quarantine=quarantine,
        error=error,
        efi_entries=("metalimmu web@1",),
        image="web@1",
        power="On",
    )
    got = store.host("n1")
    assert got.quarantine == quarantine
    assert got.error == error
    assert got.proof is Proof.proven
    assert got.proof_evidence == {"serial": "SN1", "count": 3}
    assert got.efi_entries == ("metalimmu web@1",)
    assert got.updated > 0
    assert store.hosts() == {"n1": got}
    assert store.update_host("n1", quarantine=None, error=None).quarantine is None
    assert store.host("n1").image == "web@1"


def test_a_change_sees_the_record_as_it_is(store):
    store.update_host("n1", image="web@1", digest="sha256:1")
    store.update_host("n1", lambda h: {"previous_image": h.image, "previous_digest": h.digest}, image="web@2")
    got = store.host("n1")
    assert (got.image, got.previous_image, got.previous_digest) == ("web@2", "web@1", "sha256:1")


def test_a_change_that_raises_changes_nothing(store):
    store.update_host("n1", image="web@1")

    def bad(_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.update_host("n1", bad, image="web@2")
    with pytest.raises(RuntimeError, match="no"):
        store.update_host("new", bad)
    assert store.host("n1").image == "web@1"
    assert set(store.hosts()) == {"n1"}


def test_the_state_moves_only_along_its_table(store):
    with pytest.raises(IllegalMove, match="enrolled cannot become active"):
        store.update_host("n1", state=State.active)
    store.update_host("n1", state=State.deploying)
    store.update_host("n1", state=State.active)
    assert store.update_host("n1", state=State.active).state is State.active


@pytest.mark.parametrize(
    "fields", [{"colour": "red"}, {"image": 5}, {"efi_entries": "x"}, {"quarantine": {"reason": 1}}]
)
def test_wrong_fields_are_refused(store, fields):
    with pytest.raises(TypeError):
        store.update_host("n1", **fields)
    assert store.hosts() == {}


def test_runs(store):
    first = store.add_run(run("r-1", created=1.0, plan={"steps": ["insert"]}, options={"force": True}))
    assert first.status is RunStatus.queued
    assert store.add_run(run("r-1", host="other")) == first
    store.add_run(run("r-2", created=2.0))
    store.add_run(run("r-3", host="n2", created=3.0))
    assert [r.id for r in store.runs()] == ["r-3", "r-2", "r-1"]
    assert [r.id for r in store.runs(host="n1", limit=1)] == ["r-2"]
    store.set_run("r-2", status=RunStatus.running, worker="w1", started=4.0)
    assert [r.id for r in store.runs(status=RunStatus.running)] == ["r-2"]
    assert [r.id for r in store.runs(status=[RunStatus.running, "queued"])] == ["r-3", "r-2", "r-1"]
    assert store.runs(status=[]) == []
    assert store.run("r-1").options == {"force": True}
    with pytest.raises(NotFound, match="r-9"):
        store.run("r-9")
    with pytest.raises(NotFound):
        store.set_run("r-9", status=RunStatus.running)


def test_a_final_status_stays(store):
    store.add_run(run("r-1"))
    done = store.set_run("r-1", status=RunStatus.succeeded, finished=9.0)
    again = store.set_run("r-1", status=RunStatus.running, started=10.0, finished=11.0, worker="w2")
    assert again.status is RunStatus.succeeded
    assert again.finished == 9.0
    assert again.started == done.started
    store.set_run("r-1", cancel_requested=True)
    assert store.run("r-1").cancel_requested is True


def test_a_step_and_its_attempts(store):
    first = store.start_step("r-1", 1, "insert")
    assert (first.attempts, first.outcome) == (1, Outcome.running)
    second = store.start_step("r-1", 1, "insert")
    assert second.attempts == 2
    assert second.earlier[0].outcome is Outcome.running
    store.finish_step("r-1", 1, "insert", Outcome.failed, summary="the BMC said no")
    third = store.start_step("r-1", 1, "insert")
    assert [a.summary for a in third.earlier] == ["", "the BMC said no"]
    done = store.finish_step("r-1", 1, "insert", Outcome.done, summary="in Cd", evidence={"slot": "Cd"}, bytes=7)
    assert (done.bytes, done.evidence, done.attempts) == (7, {"slot": "Cd"}, 3)
    assert done.seconds > 0
    assert store.start_step("r-1", 1, "insert") == done
    assert store.finish_step("r-1", 1, "insert", Outcome.failed, summary="late") == done
    assert store.steps("r-1") == [done]


def test_a_step_may_be_finished_without_a_start(store):
    store.finish_step("r-1", 2, "eject", Outcome.skipped, summary="already out")
    store.start_step("r-1", 1, "insert")
    assert [s.name for s in store.steps("r-1")] == ["insert", "eject"]
    assert store.start_step("r-1", 2, "eject").outcome is Outcome.skipped


def test_deployments_are_found_by_their_secrets(store):
    made = store.add_deployment(deployment("d-1", created=1.0))
    assert store.add_deployment(deployment("d-1", host="other")) == made
    store.add_deployment(deployment("d-2", host="n2", created=2.0))
    assert store.find_deployment("agent", "token-d-1") == made
    assert store.find_deployment("proof", "proof-d-1") == made
    assert store.find_deployment("media", "media-d-2").id == "d-2"
    assert store.find_deployment("chunk", "chunk-d-2").id == "d-2"
    assert store.find_deployment("media", "token-d-1") is None
    assert [d.id for d in store.deployments()] == ["d-2", "d-1"]
    assert [d.id for d in store.deployments(host="n1")] == ["d-1"]
    assert [d.id for d in store.deployments(run="d-2")] == ["d-2"]
    store.update_deployment("d-2", ended=3.0)
    assert [d.id for d in store.deployments(live=True)] == ["d-1"]
    with pytest.raises(NotFound):
        store.update_deployment("d-9", go=True)


def test_a_deployment_keeps_messages_as_they_were(store):
    made = store.add_deployment(deployment("d-1"))
    assert made.assignment.root_disk.min_size == 10
    said = CheckIn(Identity("SN1", "u"), "x86_64", "uefi", "b1", "1", secure_boot=None)
    got = store.update_deployment("d-1", lambda d: {"boot_ids": (*d.boot_ids, "b1")}, check_in=said)
    assert got == store.deployment("d-1")
    assert got.check_in == said
    assert got.boot_ids == ("b1",)
    assert got.read_back_ok is None
    assert store.update_deployment("d-1", read_back_ok=False).read_back_ok is False


def test_beats_add_bytes_and_become_history(store):
    store.add_deployment(deployment("d-1", media_bytes=5))
    write = Progress("write", 10, 100)
    store.beat(
        [
            Beat(deployment="d-1", seen=50.0, progress=write, media_bytes=1, chunk_bytes=2, log=("one", "two")),
            Beat(deployment="gone", seen=51.0),
        ]
    )
    store.beat([Beat(deployment="d-1", seen=60.0, progress=write, chunk_bytes=3)])
    got = store.deployment("d-1")
    assert (got.media_bytes, got.chunk_bytes) == (6, 5)
    assert (got.last_seen, got.progressed) == (60.0, 50.0)
    store.beat([Beat(deployment="d-1", seen=70.0, progress=Progress("write", 11, 100))])
    assert store.deployment("d-1").progressed == 70.0
    assert [(e.kind, e.text, e.run) for e in store.history("n1")] == [("agent", "one", "d-1"), ("agent", "two", "d-1")]


def test_history_is_in_order_and_can_be_read_on(store):
    for i in range(5):
        store.add_event("n1", "step", f"event {i}", run="r-1", data={"i": i})
    store.add_event("n2", "step", "other")
    found = store.history("n1")
    assert [e.data["i"] for e in found] == [0, 1, 2, 3, 4]
    assert [e.text for e in store.history("n1", limit=2)] == ["event 3", "event 4"]
    assert [e.text for e in store.history("n1", after=found[2].id)] == ["event 3", "event 4"]
    assert len(store.history()) == 6
    assert store.history(run="r-1", kind="proof") == []


def test_an_event_with_a_key_is_written_once(store):
    store.add_event("n1", "proof", "first", key="r-1/prove")
    store.add_event("n1", "proof", "second", key="r-1/prove")
    assert [e.text for e in store.history("n1")] == ["first"]


def test_a_lease_has_one_holder_and_says_who(store):
    assert store.lease("n1") is None
    fence = store.acquire_lease("n1", "r-1", "w1")
    assert store.acquire_lease("n1", "r-1", "w1") == fence
    with pytest.raises(LeaseHeld, match=r"run r-1 works on n1 since 20\d\d-.* \(worker w1\)") as caught:
        store.acquire_lease("n1", "r-2", "w2")
    assert "run cancel r-1" in caught.value.hint
    store.check_fence("n1", fence)
    store.release_lease("n1", "r-2")
    assert [x.host for x in store.leases()] == ["n1"]
    store.release_lease("n1", "r-1")
    assert store.leases() == []
    with pytest.raises(LeaseLost, match="no run holds n1"):
        store.check_fence("n1", fence)
    assert store.acquire_lease("n1", "r-2", "w2") > fence


def test_taking_over_ends_the_older_fence(store):
    old = store.acquire_lease("n1", "r-1", "w1")
    new = store.take_over("n1", "r-1", "w2")
    assert new > old
    with pytest.raises(LeaseLost, match=f"the newest is {new}"):
        store.check_fence("n1", old)
    store.release_lease("n1", "r-1", fence=old)
    store.check_fence("n1", new)
    assert store.acquire_lease("n1", "r-1", "w3") > new
    with pytest.raises(LeaseLost, match="run r-2 no longer holds"):
        store.take_over("n1", "r-2", "w3")
    with pytest.raises(LeaseLost):
        store.take_over("n9", "r-1", "w3")


def test_workers(store, clock):
    store.heartbeat("w1", pid=10, hostname="a")
    store.heartbeat("w2", pid=11, hostname="a")
    clock.now += 100
    store.heartbeat("w1", pid=10, hostname="a")
    assert [w.id for w in store.workers()] == ["w1", "w2"]
    assert [w.id for w in store.workers(within=50)] == ["w1"]
    assert store.workers(within=50)[0].seen > store.workers(within=50)[0].since
    store.forget_worker("w2")
    assert [w.id for w in store.workers()] == ["w1"]


def test_refused_logins_are_remembered_by_version(store):
    assert store.refused("10.0.0.1", "v1") is None
    store.record_refusal("10.0.0.1", "v1", 1_700_000_000.0)
    store.record_refusal("10.0.0.1", "v1", 1_800_000_000.0)
    assert store.refused("10.0.0.1", "v1") == "2023-11-14T22:13:20Z"
    assert store.refused("10.0.0.1", "v2") is None
    assert store.refused("10.0.0.2", "v1") is None
    store.clear("10.0.0.1")
    assert store.refused("10.0.0.1", "v1") is None


def test_observations_are_kept_as_changes(store):
    assert store.observe("n1", "inventory", {"power": "On", "disks": [1, 2]}) is True
    assert store.observe("n1", "inventory", {"disks": (1, 2), "power": "On"}) is False
    assert store.observe("n1", "inventory", {"power": "Off"}) is True
    assert store.observe("n1", "inventory", {"power": "On", "disks": [1, 2]}) is True
    assert store.observe("n1", "media", {"power": "On"}) is True
    found = store.observations("n1", "inventory")
    assert [o.data["power"] for o in found] == ["On", "Off", "On"]
    assert found[2].seen > found[2].at
    assert store.observation("n1", "inventory") == found[0]
    assert store.observation("n2", "inventory") is None
    assert len(store.observations("n1")) == 4
