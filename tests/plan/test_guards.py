"""Each guard: what it refuses, with which numbers, and what it lets through."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from metalimmu.desired.schedules import MaintenanceWindow
from metalimmu.plan.guards import (
    Act,
    Freeze,
    Guard,
    HostRules,
    PoolRules,
    Refusal,
    Rules,
    Stage,
    Standing,
    World,
    domains,
    refusals,
    to_spare,
)

NOON = 1_795_176_000.0  # Friday 2026-11-20 12:00:00 UTC
NAMES = [f"n{i}" for i in range(1, 6)]
RUN = "r-1"


def world(
    *,
    active: int = 5,
    changing: tuple[str, ...] = (),
    freezes: tuple[Freeze, ...] = (),
    max_hosts: int = 10,
    host: dict[str, Any] | None = None,
    **pool: Any,
) -> World:
    """Five hosts of one pool, of which the first `active` serve."""
    hosts = {
        n: HostRules(pool="web", labels={"rack": f"r{i % 2}"}, domains=frozenset({f"rack r{i % 2}"} if i else {}))
        for i, n in enumerate(NAMES)
    }
    hosts["n1"] = msgspec.structs.replace(hosts["n1"], **(host or {}))
    pools = {"web": PoolRules(hosts=frozenset(NAMES), **pool)}
    standing = Standing(
        active=frozenset(NAMES[:active]),
        changing=dict.fromkeys(changing, RUN),
        freezes=freezes,
        halted={"o-1": "paused"},
    )
    return World(rules=Rules(hosts=hosts, pools=pools, max_hosts=max_hosts), standing=standing)


def said(w: World, host: str = "n1", verb: str = "reimage", now: float = NOON, **act: Any) -> tuple[Refusal, ...]:
    return refusals(Act(host=host, verb=verb, **act), w, now)


def guards(w: World, host: str = "n1", verb: str = "reimage", **act: Any) -> list[str]:
    return [str(r.guard) for r in said(w, host, verb, **act)]


def test_nothing_forbids_it() -> None:
    assert said(world()) == ()


def test_a_host_that_the_site_no_longer_has() -> None:
    assert guards(world(), "gone") == [Guard.site]


@pytest.mark.parametrize("verb", ["reimage", "rollback", "power off", "power reset", "power on"])
def test_read_only_stops_every_verb_and_every_stage(verb: str) -> None:
    for stage in Stage:
        assert guards(world(host={"mode": "read-only"}), verb=verb, stage=stage) == [Guard.mode]


def test_a_protected_host() -> None:
    w = world(host={"protected": True})
    assert guards(w) == [Guard.protected]
    assert guards(w, allow_protected=True) == []
    assert guards(w, verb="power off") == [Guard.protected]
    assert guards(w, verb="power on") == []


def test_min_active_counts_what_would_be_left() -> None:
    assert guards(world(min_active=4)) == []
    (refusal,) = said(world(min_active=5))
    assert refusal.text == "n1: pool web would have 4 active of 5, min_active is 5"
    assert "pool=web" in refusal.hint
    assert guards(world(min_active=4, changing=("n2",))) == [Guard.min_active]  # n2 is away already
    assert guards(world(min_active=4, active=4)) == [Guard.min_active]


def test_a_host_that_is_not_active_costs_nothing() -> None:
    w = world(min_active=5, max_unavailable=0, active=4)
    assert guards(w, "n5") == []
    assert Guard.min_active in guards(w, "n1")


@pytest.mark.parametrize(
    ("limit", "away", "refused"), [(1, (), False), (1, ("n2",), True), (2, ("n2",), False), (0, (), True)]
)
def test_max_unavailable(limit: int, away: tuple[str, ...], refused: bool) -> None:
    found = guards(world(max_unavailable=limit, changing=away))
    assert (Guard.max_unavailable in found) is refused


@pytest.mark.parametrize(
    ("active", "limits", "spare"),
    [
        (5, {}, None),
        (5, {"min_active": 3}, 2),
        (4, {"min_active": 3, "max_unavailable": 1}, 0),
        (5, {"min_active": 3, "max_unavailable": 1}, 1),
        (1, {"min_active": 3}, 0),
    ],
)
def test_how_many_a_pool_has_to_spare(active: int, limits: dict[str, int], spare: int | None) -> None:
    w = world(active=active, **limits)
    assert to_spare(w.rules.pools["web"], w) == spare


def test_a_percentage_is_said_as_it_was_written() -> None:
    (refusal,) = said(world(max_unavailable=0, max_said="5%"))
    assert refusal.text.endswith("max_unavailable is 0 (5%)")


def test_max_hosts_counts_all_runs_of_the_site() -> None:
    assert guards(world(max_hosts=2, changing=("n2",))) == []
    (refusal,) = said(world(max_hosts=2, changing=("n2", "elsewhere")))
    assert refusal.text == "n1: 2 hosts change now, guards.max_hosts is 2"


def test_one_failure_domain_at_a_time() -> None:
    w = world(changing=("n3",))  # n3 and n5 are in rack r0, n2 and n4 in r1
    (refusal,) = said(w, "n5")
    assert refusal.text == "n5: n3 changes now, and is in rack r0 too"
    assert RUN in refusal.hint
    assert guards(w, "n2") == []
    assert guards(w, "n5", allow_same_domain=True) == []
    assert guards(w, "n5", verb="power on") == []


def test_domains_are_racks_leaves_and_labels() -> None:
    labels = {"rack": "r1", "zone": "z"}
    assert domains("web", labels, ["leaf-1a", "leaf-1b"], ["rack", "leaves"], None) == {
        "rack r1",
        "leaf leaf-1a",
        "leaf leaf-1b",
    }
    assert domains("web", labels, [], ["rack"], ["zone"]) == {
        "zone z of pool web"
    }  # the pool's own keys, among its hosts
    assert domains("web", labels, [], ["rack"], []) == frozenset()
    assert domains(None, labels, [], ["cage"], None) == frozenset()


def test_a_freeze() -> None:
    whole = Freeze(id="f-1", reason="audit", by="ann")
    racks = Freeze(id="f-2", reason="power works", by="bob", selector="rack=r1", until=NOON + 3600)
    (refusal,) = said(world(freezes=(whole,)))
    assert "until somebody ends it" in refusal.text
    assert "audit" in refusal.text
    assert "freeze off f-1" in refusal.hint
    w = world(freezes=(racks,))
    assert guards(w, "n3") == []
    (refusal,) = said(w, "n2")
    assert refusal.until == NOON + 3600
    assert said(w, "n2", now=NOON + 3601) == ()
    assert guards(w, "n2", stage=Stage.power) == []  # under way: it finishes
    assert guards(w, "n2", verb="power on") == []
    assert guards(w, "n2", verb="power off") == [Guard.freeze]


def test_maintenance_windows() -> None:
    night = MaintenanceWindow(start="22:00", end="04:00", timezone="Europe/Amsterdam")
    (refusal,) = said(world(windows=(night,)))
    assert refusal.guard is Guard.window
    assert refusal.until == NOON + 9 * 3600  # 22:00 in Amsterdam is 21:00 UTC in November
    assert "2026-11-20 21:00:00Z" in refusal.text
    assert guards(world(windows=(night,)), now=NOON + 10 * 3600) == []
    assert guards(world(windows=(night,)), now=NOON + 15.5 * 3600) == [Guard.window]
    assert guards(world(windows=(night,)), stage=Stage.power) == []  # what was begun is finished
    assert guards(world(windows=(night,)), verb="power off") == []
    assert guards(world(windows=(night,)), verb="rollback", returning=True) == []
    noon = MaintenanceWindow(start="11:00", end="13:00", days=["fri"])
    assert guards(world(windows=(night, noon))) == []


def test_approvals() -> None:
    w = world(approvals=1)
    for verb in ("reimage", "rollback"):
        (refusal,) = said(w, verb=verb)
        assert refusal.text == "n1: pool web wants a saved plan, signed by its author and 1 other"
        assert guards(w, verb=verb, approved=1) == [Guard.approvals]
        assert guards(w, verb=verb, approved=2) == []
    assert guards(w, returning=True) == []
    assert guards(w, stage=Stage.power) == []
    assert guards(w, verb="power reset") == []


def test_a_config_push_cannot_be_approved() -> None:
    (refusal,) = said(world(approvals=1), verb="config push")
    assert refusal.text == "n1: pool web wants approvals, and a config push has no plan that could be signed"
    assert "a reimage brings the config" in refusal.hint
    assert guards(world(), verb="config push") == []


def test_a_halted_rollout_begins_nothing() -> None:
    assert guards(world(), rollout="o-1") == [Guard.rollout]
    assert guards(world(), rollout="o-1", stage=Stage.power) == []
    assert guards(world(), rollout="o-2") == []


def test_before_power_the_host_itself_is_counted_as_away() -> None:
    """Its own lease is among those that change; whether it served is what the caller remembers."""
    w = world(min_active=4, max_unavailable=1, changing=("n1",))
    assert guards(w, stage=Stage.power, costs=True) == []
    worse = world(min_active=4, max_unavailable=1, changing=("n1",), active=4)  # n5 broke in the meantime
    assert guards(worse, stage=Stage.power, costs=True) == [Guard.min_active, Guard.max_unavailable]
    assert guards(worse, stage=Stage.power, costs=False) == []


def test_all_that_forbids_is_said_at_once() -> None:
    w = world(host={"mode": "read-only", "protected": True}, min_active=5, freezes=(Freeze(id="f", reason="x"),))
    assert guards(w) == [Guard.mode, Guard.protected, Guard.freeze, Guard.min_active]


def test_a_config_push_under_way_counts_but_the_machine_goes_on() -> None:
    def pushed(**more: Any) -> World:
        w = world(**more)
        return msgspec.structs.replace(
            w, standing=msgspec.structs.replace(w.standing, pushed={"n3": "config push abc"})
        )

    (refusal,) = said(pushed(max_hosts=1))
    assert refusal.guard is Guard.max_hosts
    assert guards(pushed(), "n5", verb="config push") == [Guard.failure_domain]
    assert said(pushed(), "n5")[0].hint == "wait for config push abc, or --allow-same-domain"
    assert guards(pushed(max_hosts=1), "n3") == []  # its own
    assert guards(pushed(min_active=4)) == []
    assert said(pushed(max_hosts=1).idle()) == ()


def test_the_idle_world_takes_those_under_way_for_done() -> None:
    w = world(min_active=4, changing=("n2", "n3"))
    assert guards(w) == [Guard.min_active]
    assert said(w.idle()) == ()
