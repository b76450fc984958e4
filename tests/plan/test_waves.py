"""The order of hosts, their waves, and what `decide` says at each moment."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metalimmu.plan.guards import Freeze, HostRules, PoolRules, Rules, Standing, World
from metalimmu.plan.waves import (
    Finish,
    Member,
    RollBack,
    Rollout,
    RolloutState,
    Row,
    RowState,
    Start,
    Stop,
    Wait,
    decide,
    spread,
    waves,
)

NOW = 1_795_176_000.0
NAMES = ("a", "b", "c", "d")

members = st.lists(
    st.builds(
        Member,
        host=st.from_regex(r"\An[0-9]{1,4}\Z"),
        pool=st.sampled_from(["", "p", "q"]),
        domains=st.frozensets(st.sampled_from(["r1", "r2", "r3"]), max_size=1),
    ),
    unique_by=lambda m: m.host,
    max_size=60,
)


@given(members, st.integers(1, 9))
def test_every_host_has_one_wave_and_the_first_of_a_pool_is_alone(found: list[Member], size: int) -> None:
    made = waves(found, dict.fromkeys(["", "p", "q"], size))
    assert sorted(h for h, _ in made) == sorted(m.host for m in found)
    assert made == waves(found[::-1], dict.fromkeys(["", "p", "q"], size))  # whatever order they were asked in
    counts = Counter(wave for _, wave in made)
    assert sorted(counts) == list(range(1, len(counts) + 1))
    assert [w for _, w in made] == sorted(w for _, w in made)
    pool = {m.host: m.pool for m in found}
    first: dict[str, int] = {}
    for host, wave in made:
        if first.setdefault(pool[host], wave) == wave:
            assert counts[wave] == 1
        assert counts[wave] <= size
        assert len({pool[h] for h, w in made if w == wave}) == 1


@given(st.integers(1, 6), st.integers(1, 8))
def test_neighbours_stand_in_different_domains(racks: int, each: int) -> None:
    found = [Member(host=f"n{r}-{i}", domains=frozenset({f"r{r}"})) for r in range(racks) for i in range(each)]
    order = spread(found)
    rack = [name.split("-")[0] for name in order]
    if racks > 1:
        assert all(a != b for a, b in pairwise(rack))
    assert all(len(set(rack[i : i + racks])) == racks for i in range(0, len(rack), racks))


def world(
    *, changing: tuple[str, ...] = (), freezes: tuple[Freeze, ...] = (), max_hosts: int = 10, **pool: Any
) -> World:
    hosts = {n: HostRules(pool="p", labels={"name": n}) for n in NAMES}
    pools = {"p": PoolRules(hosts=frozenset(NAMES), **pool)}
    return World(
        rules=Rules(hosts=hosts, pools=pools, max_hosts=max_hosts),
        standing=Standing(active=frozenset(NAMES), changing=dict.fromkeys(changing, "r-1"), freezes=freezes),
    )


def rollout(*states: str, state: str = "running", wave: tuple[int, ...] = (1, 2, 2, 3), **options: Any) -> Rollout:
    rows = tuple(
        Row(host=n, wave=w, state=RowState(s), returns=True, after=NOW + 60 if s == "soaking" else 0.0)
        for n, w, s in zip(NAMES, wave, states, strict=True)
    )
    return Rollout(id="o-1", verb="reimage", state=RolloutState(state), rows=rows, **options)


def acts(made: Rollout, w: World | None = None) -> list[Any]:
    return list(decide(made, w or world(), NOW))


def test_the_first_goes_alone() -> None:
    assert acts(rollout("waiting", "waiting", "waiting", "waiting")) == [Start("a")]
    (wait,) = acts(rollout("running", "waiting", "waiting", "waiting"))
    assert wait == Wait("a of wave 1 under way")


def test_a_wave_waits_for_the_soak_of_the_one_before() -> None:
    (wait,) = acts(rollout("soaking", "waiting", "waiting", "waiting"))
    assert wait == Wait("wave 1 must stay well", NOW + 60)


def test_then_the_batch_together() -> None:
    assert acts(rollout("done", "waiting", "waiting", "waiting")) == [Start("b"), Start("c")]
    assert acts(rollout("done", "running", "waiting", "waiting"), world(changing=("b",))) == [Start("c")]


def test_guards_hold_between_the_hosts_of_one_wave() -> None:
    assert acts(rollout("done", "waiting", "waiting", "waiting"), world(max_unavailable=1)) == [Start("b")]
    (wait,) = acts(rollout("done", "running", "waiting", "waiting"), world(max_unavailable=1, changing=("b",)))
    assert "max_unavailable is 1" in wait.reason


def test_it_waits_for_others_and_stops_when_there_are_none() -> None:
    made = rollout("done", "waiting", "waiting", "waiting")
    (wait,) = acts(made, world(max_hosts=1, changing=("elsewhere",)))
    assert isinstance(wait, Wait)
    (stop,) = acts(made, world(min_active=4))
    assert stop == Stop("nothing can go on: b: pool p would have 3 active of 4, min_active is 4")


def test_a_freeze_is_waited_for() -> None:
    frozen = Freeze(id="f", reason="audit", until=NOW + 3600)
    (wait,) = acts(rollout("done", "waiting", "waiting", "waiting"), world(freezes=(frozen,)))
    assert wait.until == NOW + 3600
    assert "audit" in wait.reason


def test_too_many_failures_stop_it_after_those_under_way() -> None:
    (wait,) = acts(rollout("done", "failed", "running", "waiting"))
    assert wait == Wait("it stops: b failed, max_failures is 1; first to be finished: c")
    (stop,) = acts(rollout("done", "failed", "done", "waiting"))
    assert stop == Stop("b failed, max_failures is 1")
    assert acts(rollout("done", "failed", "done", "waiting", max_failures=2)) == [Start("d")]


def test_those_of_the_wave_go_back() -> None:
    found = acts(rollout("done", "failed", "done", "waiting", auto_rollback=True))
    assert found == [RollBack("b"), RollBack("c")]  # not a: its wave was good
    (wait,) = acts(
        rollout("done", "rolling-back", "rolled-back", "waiting", auto_rollback=True), world(changing=("b",))
    )
    assert wait == Wait("going back: b")
    (finish,) = acts(rollout("done", "rolled-back", "rolled-back", "waiting", auto_rollback=True))
    assert finish == Finish(RolloutState.failed, "2 of the wave went back")


def test_a_rollback_does_not_go_back_from_itself() -> None:
    made = rollout("done", "failed", "done", "waiting", auto_rollback=True)
    back = Rollout(id="o-1", verb="rollback", state=made.state, rows=made.rows, auto_rollback=True)
    assert isinstance(acts(back)[0], Stop)


def test_going_back_is_guarded_too() -> None:
    made = rollout("done", "failed", "done", "waiting", auto_rollback=True)
    assert acts(made, world(max_unavailable=1)) == [RollBack("b")]
    frozen = Freeze(id="f", reason="audit", until=NOW + 3600)
    (wait,) = acts(made, world(freezes=(frozen,)))
    assert wait.until == NOW + 3600


def test_paused_and_cancelled() -> None:
    waiting = rollout("done", "running", "waiting", "waiting", state="paused")
    assert acts(waiting) == [Wait("paused; first to be finished: b")]
    ending = rollout("done", "running", "waiting", "waiting", state="cancelling")
    assert acts(ending) == [Wait("cancelled; first to be finished: b")]
    assert acts(rollout("done", "done", "waiting", "waiting", state="cancelling")) == [Finish(RolloutState.cancelled)]


def test_the_end() -> None:
    assert acts(rollout("done", "done", "done", "refused")) == [Finish(RolloutState.done)]
    (finish,) = acts(rollout("done", "failed", "done", "done", max_failures=3))
    assert finish.state is RolloutState.failed
    (finish,) = acts(rollout("done", "done", "done", "done", forgiven=1))
    assert finish.state is RolloutState.failed
