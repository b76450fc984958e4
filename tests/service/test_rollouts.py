"""Rollouts on fake BMCs with simulated machines: waves, stops, guards, pause, cancel, and going back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from drive import PACE
from rack import LIMITS, Rack

from metalimmu.errors import GuardRefused, HostsRefused, UsageError
from metalimmu.plan.waves import RolloutState, RowState
from metalimmu.service import rollouts
from metalimmu.service.freezes import freeze, thaw
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import RunStatus
from metalimmu.store.rollout_records import RolloutHost, RolloutRecord

SHORT = {**LIMITS, "check_in": "8s", "phone_home": "6s", "bmc": "5s", "report_again": "5s"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Fleet:
    """A rack whose hosts are in one pool, with a worker."""

    def __init__(self, folder: Path, stack: ExitStack, hosts: int, *, faults: Any = None, **pool: Any) -> None:
        self.rack = Rack(folder, hosts, mib=3, limits=SHORT)
        document = yaml_of(self.rack, "hosts/rack.yaml")
        for i, host in enumerate(document):
            host |= {"pool": "web", "location": {"rack": f"r{i % 3}"}}
        self.rack.write("hosts/rack.yaml", document)
        self.pool(**pool)
        self.rack.power_up(stack, pace=0.2, faults=faults)
        self.site = OpenSite(self.rack.site)
        stack.callback(self.site.close)
        self.worker = Worker(self.site, pace=PACE)
        stack.callback(self.worker.stop)

    def pool(self, **fields: Any) -> None:
        self.rack.write("pools/web.yaml", fields)

    def ask(self, hosts: list[str] | None = None, *, batch: int = 2, **options: Any) -> RolloutRecord:
        image = options.pop("image", None)
        proposals = rollouts.propose(self.site, hosts or self.rack.names, image=image, batch=batch, options=options)
        return rollouts.create(self.site, proposals, options=options)

    def until(self, condition: Callable[[], object], what: str, deadline: float = 120) -> None:
        end = time.monotonic() + deadline
        while not condition():
            self.worker.try_start()
            self.worker.check()
            assert time.monotonic() < end, (what, [(r.host, r.state, r.reason) for r in self.rows()], self.now())
            time.sleep(0.05)

    def finish(self, record: RolloutRecord) -> RolloutRecord:
        self.id = record.id
        self.until(lambda: rollouts.halted(self.site, self.now()), "it never ended")
        return self.now()

    def now(self) -> RolloutRecord:
        return self.site.store.rollouts.get(self.id)

    def rows(self) -> list[RolloutHost]:
        return self.site.store.rollouts.hosts(self.id)

    def states(self) -> dict[str, RowState]:
        return {r.host: r.state for r in self.rows()}

    def in_step(self, step: str, host: str = "node-1") -> bool:
        store = self.site.store
        return any(s.name == step for r in store.runs(host=host, limit=1) for s in store.steps(r.id))

    def proven(self) -> dict[str, str | None]:
        return {n: h.image for n, h in self.site.store.hosts().items() if h.proof == "proven" and not h.quarantine}


def yaml_of(rack: Rack, name: str) -> Any:
    import yaml

    return yaml.safe_load((rack.site / name).read_text())


def spans(fleet: Fleet) -> dict[str, tuple[float, float]]:
    return {r.host: (r.started or 0, r.finished or 0) for r in fleet.site.store.runs() if r.verb == "reimage"}


def test_the_first_host_goes_alone_then_batches(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 4, soak="1s")
    done = fleet.finish(fleet.ask())
    assert done.state is RolloutState.done, done.reason
    assert set(fleet.states().values()) == {RowState.done}
    assert fleet.proven() == dict.fromkeys(fleet.rack.names, "web@1")
    rows = fleet.rows()
    assert [r.wave for r in rows] == [1, 2, 2, 3]
    when = spans(fleet)
    waves = [[when[r.host] for r in rows if r.wave == w] for w in (1, 2, 3)]
    for before, after in pairwise(waves):
        assert min(b for b, _ in after) > max(e for _, e in before) + 1  # its soak lies between

    again = rollouts.propose(fleet.site, fleet.rack.names)
    assert all(p.nothing for p in again)  # proven already: done without a run
    with pytest.raises(GuardRefused, match="nothing to do"):
        rollouts.create(fleet.site, again)


def test_it_stops_at_the_first_failure_and_goes_on_when_told(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 4, faults={"node-1": {"no_report": ""}})
    stopped = fleet.finish(fleet.ask())
    assert stopped.state is RolloutState.stopped
    assert "node-1 failed, max_failures is 1" in stopped.reason
    assert list(fleet.states().values()) == [RowState.failed, *[RowState.waiting] * 3]
    assert fleet.site.store.host("node-1").quarantine
    rollouts.resume(fleet.site, stopped.id)
    ended = fleet.finish(stopped)
    assert ended.state is RolloutState.failed  # one of them did
    assert list(fleet.states().values()) == [RowState.failed, *[RowState.done] * 3]


def test_a_bad_version_goes_back_by_itself(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 3)
    assert fleet.finish(fleet.ask()).state is RolloutState.done
    fleet.rack.fault("node-2", "guest:no-report", "", times=1)
    record = fleet.ask(image="web@2", auto_rollback=True)
    fleet.finish(record)
    ended = fleet.now()
    assert ended.state is RolloutState.failed, ended.reason
    # node-1 went first, alone, and is good; node-2 failed beside node-3, and both of that wave go back.
    assert fleet.states() == {
        "node-1": RowState.done,
        "node-2": RowState.rolled_back,
        "node-3": RowState.rolled_back,
    }
    assert fleet.proven() == {"node-1": "web@2", "node-2": "web@1", "node-3": "web@1"}
    assert "went back" in ended.reason
    why = {r.host: r.reason for r in fleet.rows()}
    assert why["node-2"].startswith("report: ")
    assert why["node-3"] == "another host of its wave failed; it went back"


def test_pause_resume_and_cancel(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 4, faults={"node-1": {"network_cut": "2"}})
    record = fleet.ask()
    fleet.id = record.id
    fleet.until(lambda: fleet.in_step("write"), "it never wrote")
    rollouts.pause(fleet.site, record.id, "lunch")
    assert fleet.finish(record).state is RolloutState.paused  # what is under way was finished
    assert list(fleet.states().values()) == [RowState.done, *[RowState.waiting] * 3]
    with pytest.raises(UsageError):
        rollouts.pause(fleet.site, record.id)
    rollouts.resume(fleet.site, record.id)
    fleet.until(lambda: fleet.in_step("check-in", "node-2"), "it never went on")
    rollouts.cancel(fleet.site, record.id)
    assert fleet.finish(record).state is RolloutState.cancelled
    left = list(fleet.states().values())
    assert set(left) <= {RowState.done, RowState.untouched}
    assert left[-1] is RowState.untouched
    hosts = fleet.site.store.hosts().values()
    assert not any(h.quarantine for h in hosts)
    assert not fleet.site.store.leases()
    with pytest.raises(UsageError, match="ended"):
        rollouts.resume(fleet.site, record.id)


def test_a_freeze_in_mid_wave_lets_hosts_under_way_finish(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 3, faults={"node-1": {"network_cut": "2"}})
    record = fleet.ask()
    fleet.id = record.id
    fleet.until(lambda: fleet.in_step("write"), "it never wrote")
    frozen = freeze(fleet.site, reason="audit")
    fleet.until(lambda: "frozen" in fleet.now().reason, "it does not say that it waits")
    assert list(fleet.states().values()) == [RowState.done, RowState.waiting, RowState.waiting]
    rollouts.pause(fleet.site, record.id)
    with pytest.raises(GuardRefused, match="audit"):
        rollouts.resume(fleet.site, record.id)  # a freeze is honoured by `resume` too
    refused = rollouts.propose(fleet.site, ["node-2", "node-3"])
    assert all("audit" in p.refused for p in refused)
    thaw(fleet.site, frozen.id)
    rollouts.resume(fleet.site, record.id)
    assert fleet.finish(record).state is RolloutState.done


def test_an_interrupted_run_of_a_frozen_host_is_not_resumed_with_its_rollout(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 3, faults={"node-1": {"network_cut": "2"}})
    record = fleet.ask()
    fleet.id = record.id
    fleet.until(lambda: fleet.in_step("write"), "it never wrote")
    fleet.worker.stop()
    rollouts.interrupt(fleet.site, record.id)
    (run,) = fleet.site.store.runs(status=RunStatus.interrupted)
    frozen = freeze(fleet.site, reason="audit", selector="name=node-1")
    with pytest.raises(GuardRefused, match="node-1 is frozen"):
        rollouts.resume(fleet.site, record.id)
    assert fleet.site.store.run(run.id).status is RunStatus.interrupted
    assert fleet.now().state is RolloutState.paused
    thaw(fleet.site, frozen.id)
    rollouts.resume(fleet.site, record.id)
    assert fleet.site.store.run(run.id).status is RunStatus.queued


def test_a_guard_tightened_during_a_run_holds_before_the_power_step(tmp_path: Path, stack: ExitStack) -> None:
    """Nothing was taken away yet: the host is what it was, and nobody is in quarantine."""
    fleet = Fleet(tmp_path, stack, 2, hooks={"before": [{"command": ["sleep", "8"]}]}, min_active=0)
    record = fleet.ask()
    fleet.id = record.id
    fleet.until(lambda: fleet.in_step("drain"), "it never drained")
    fleet.pool(mode="read-only")
    fleet.finish(record)
    assert fleet.now().state is RolloutState.stopped
    assert "read-only" in fleet.now().reason
    assert fleet.rack.machine("node-1").generation == 1
    assert not fleet.site.store.host("node-1").quarantine
    assert {r.status for r in fleet.site.store.runs()} == {RunStatus.failed}


def test_an_image_revoked_in_the_middle_begins_no_more_hosts(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 3, faults={"node-1": {"network_cut": "2"}})
    record = fleet.ask()
    fleet.id = record.id
    fleet.until(lambda: fleet.in_step("write"), "it never wrote")
    fleet.site.catalogue.revoke("web@1", "it leaks")
    assert fleet.finish(record).state is RolloutState.paused
    assert "web@1 is revoked: it leaks" in fleet.now().reason
    assert list(fleet.states().values()) == [RowState.done, RowState.waiting, RowState.waiting]


def test_a_host_that_falls_ill_in_its_soak_stops_the_rollout(tmp_path: Path, stack: ExitStack) -> None:
    """Good for the check of its own run, and bad a little later: it is looked at for the whole soak."""
    ill = tmp_path / "ill"
    check = {"command": ["sh", "-c", f"test ! -e {ill}"], "for": "0s", "every": "1s"}
    fleet = Fleet(tmp_path, stack, 3, soak="30s", health=check)
    record = fleet.ask()
    fleet.id = record.id
    fleet.until(lambda: fleet.states()["node-1"] is RowState.soaking, "it never soaked")
    ill.touch()
    assert fleet.finish(record).state is RolloutState.stopped
    assert list(fleet.states().values()) == [RowState.failed, RowState.waiting, RowState.waiting]
    quarantine = fleet.site.store.host("node-1").quarantine
    assert quarantine is not None
    assert quarantine.reason.startswith("soak: ")


def test_a_host_of_two_rollouts_is_reimaged_by_one(tmp_path: Path, stack: ExitStack) -> None:
    fleet = Fleet(tmp_path, stack, 2)
    first, second = fleet.ask(["node-1"]), fleet.ask(["node-2", "node-1"])
    assert fleet.finish(first).state is RolloutState.done
    assert fleet.finish(second).state is RolloutState.done
    assert sorted(r.host for r in fleet.site.store.runs()) == ["node-1", "node-2"]
    rows = [r for o in (first, second) for r in fleet.site.store.rollouts.hosts(o.id)]
    assert sum("already proven" in r.reason for r in rows) == 1  # of whichever came second


def test_a_single_run_counts_like_a_rollout(tmp_path: Path, stack: ExitStack) -> None:
    """The same guards for a reimage of one host, while a rollout has another one of its rack."""
    from metalimmu.service.planning import plan_host
    from metalimmu.service.runs import submit

    fleet = Fleet(tmp_path, stack, 4, failure_domain=["rack"], faults={"node-1": {"network_cut": "2"}})
    record = fleet.ask(["node-1"])
    fleet.id = record.id
    fleet.until(lambda: fleet.in_step("write"), "it never wrote")
    with pytest.raises(GuardRefused, match="node-1 changes now, and is in rack r0 of pool web too"):
        submit(fleet.site, plan_host(fleet.site, "node-4"))
    assert submit(fleet.site, plan_host(fleet.site, "node-4"), options={"allow_same_domain": True})
    fleet.finish(record)


def test_many_are_asked_again_together(tmp_path: Path, stack: ExitStack, capsys: pytest.CaptureFixture[str]) -> None:
    from metalimmu.cli import many

    fleet = Fleet(tmp_path, stack, 3)
    assert fleet.finish(fleet.ask()).state is RolloutState.done
    fleet.worker.stop()
    with pytest.raises(HostsRefused) as caught:
        many.prove(fleet.site, [*fleet.rack.names, "nobody"])
    assert caught.value.problems[0].startswith("nobody: ")
    assert sorted(capsys.readouterr().out.splitlines()) == [f"node-{i}: proven at web@1" for i in (1, 2, 3)]
