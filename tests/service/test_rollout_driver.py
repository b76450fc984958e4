"""The driver, in simulated time: soaks and clocks, deaths at every write, guards that change in the middle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
import rollout_sim
from rollout_sim import NEW, Died, Sim

from metalimmu.plan.waves import RolloutState, RowState
from metalimmu.store.records import RunStatus


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails by chance."""
    monkeypatch.setattr(rollout_sim, "FAILS", 0.0)
    monkeypatch.setattr(rollout_sim, "DIES", 0.0)
    monkeypatch.setattr(rollout_sim, "MEANWHILE", 0.0)


def site(hosts: int = 4, **host: object) -> Sim:
    """One pool without limits."""
    sim = Sim(1, hosts)
    rules = sim.rules
    names = frozenset(sim.names)
    pool = msgspec.structs.replace(rules.pools["p0"], hosts=names, min_active=None, max_unavailable=None, windows=())
    known = {
        n: msgspec.structs.replace(h, pool="p0", mode="read-write", protected=False, domains=frozenset(), **host)
        for n, h in rules.hosts.items()
    }
    sim.rules = msgspec.structs.replace(rules, hosts=known, pools={"p0": pool}, max_hosts=50)
    return sim


@pytest.fixture
def sim() -> Iterator[Sim]:
    made = site()
    yield made
    made.close()


def ask(sim: Sim, *, soak: float = 0.0, **options: object) -> str:
    name = sim.ask(sim.names, **{"max_failures": 1, **options})
    rows = {n: {"soak": soak} for n in sim.names}
    sim.store.rollouts.set_hosts(name, rows)
    return name


def states(sim: Sim, name: str) -> Counter[RowState]:
    return Counter(r.state for r in sim.store.rollouts.hosts(name))


def until(sim: Sim, name: str, state: RowState, count: int = 1) -> None:
    for _ in range(500):
        sim._tick()
        sim._pick_up()
        if states(sim, name)[state] >= count:
            return
        sim._step(5.0)
    raise AssertionError(states(sim, name))


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_clock_that_jumps_makes_no_soak_longer_or_shorter(sim: Sim, jump: float) -> None:
    name = ask(sim, soak=600.0)
    until(sim, name, RowState.soaking)
    begun = sim.steady
    sim.now += jump
    until(sim, name, RowState.running)  # the next wave
    assert 590 <= sim.steady - begun <= 620


@pytest.mark.parametrize("write", range(1, 16))
def test_it_dies_around_any_write_and_starts_no_host_twice(monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    sim = site()
    try:
        name = ask(sim)
        seen = 0

        def dying() -> None:
            nonlocal seen
            seen += 1
            if seen == write:
                raise Died

        monkeypatch.setattr(sim, "maybe_die", dying)
        sim.run([name], unrest=False)
        assert sim.store.rollouts.get(name).state is RolloutState.done
        assert Counter(r.host for r in sim.store.runs()) == Counter(sim.names)
        assert sim.deaths == 1
        sim.check_end()
    finally:
        sim.close()


def test_a_run_that_a_guard_stops_before_it_writes_is_no_failure(sim: Sim) -> None:
    name = ask(sim)
    sim._tick()
    (run,) = sim.store.runs(status=RunStatus.queued)
    allowed = sim.rules
    closed = {n: msgspec.structs.replace(h, mode="read-only") for n, h in allowed.hosts.items()}
    sim.rules = msgspec.structs.replace(allowed, hosts=closed)
    sim._pick_up()
    sim._step(5.0)
    assert sim.store.run(run.id).status is RunStatus.failed
    sim._tick()
    (row,) = [r for r in sim.store.rollouts.hosts(name) if r.run]
    assert row.state is RowState.waiting
    assert "read-only" in row.reason
    sim._step(60.0)
    sim._tick()
    assert sim.store.rollouts.get(name).state is RolloutState.stopped  # nobody but a person can change that
    sim.rules = allowed
    sim.store.rollouts.set(name, state=RolloutState.running)
    sim.run([name], unrest=False)
    assert sim.store.rollouts.get(name).state is RolloutState.done
    assert sorted(sim.image.values()) == [NEW] * 4
    assert sim.store.rollouts.hosts(name)[0].attempt == 2


def test_a_fault_of_ours_in_planning_fails_one_host(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    name = ask(sim, max_failures=2)
    real = sim.plan

    def broken(rollout, row, *, back):  # type: ignore[no-untyped-def]
        if row.host == sim.names[2]:
            raise ZeroDivisionError("mistake")
        return real(rollout, row, back=back)

    monkeypatch.setattr(sim, "plan", broken)
    sim.driver = sim._driver()
    sim.run([name], unrest=False)
    assert states(sim, name) == {RowState.done: 3, RowState.failed: 1}
    assert any("a fault in metalimmu: ZeroDivisionError" in r.reason for r in sim.store.rollouts.hosts(name))


@pytest.mark.parametrize("back", [False, True])
def test_a_cancel_while_a_host_is_planned_begins_nothing(
    sim: Sim, monkeypatch: pytest.MonkeyPatch, *, back: bool
) -> None:
    name = ask(sim, auto_rollback=True)
    if back:  # the first host fails after it was written
        sim._tick()
        (run,) = sim.store.runs(status=RunStatus.queued)
        sim.picked.add(run.id)
        sim.store.update_host(run.host, state="deploying")
        sim._written(run, sim.plan_of[run.id], 5)
    real = sim.plan

    def slow(rollout, row, *, back):  # type: ignore[no-untyped-def]
        made = real(rollout, row, back=back)
        sim.store.rollouts.set(name, state=RolloutState.cancelling)
        sim.driver.tick()
        return made

    monkeypatch.setattr(sim, "plan", slow)
    sim.driver = sim._driver()
    sim._tick()
    assert sim.store.rollouts.get(name).state is RolloutState.cancelled
    assert sim.store.runs(status=RunStatus.queued) == []
    assert sim.store.leases() == []


def test_a_host_that_soaks_again_is_looked_at_anew(sim: Sim) -> None:
    name = ask(sim, soak=60.0)
    until(sim, name, RowState.soaking)
    sim._tick()
    assert sim.driver._watched
    sim.run([name], unrest=False)
    assert sim.store.rollouts.get(name).state is RolloutState.done
    assert sim.driver._watched == {}
