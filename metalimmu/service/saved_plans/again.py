"""Look again: is everything still as it was planned?

When a plan is applied, all hosts and documents are compared. When a host's turn comes, hours later perhaps, it is looked
at once more, but not the documents: a rollout keeps what was approved, whatever is edited meanwhile. (Guards are asked at
the time of each act, and hold as the documents say them then.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu import structs
from metalimmu.errors import NotFound, PlanDiffers
from metalimmu.plan.differences import (
    Difference,
    guard_differences,
    host_differences,
    of_power,
    unplanned,
    with_power,
)
from metalimmu.plan.guards import Guard
from metalimmu.plan.saved import Content, HostPlan
from metalimmu.plan.waves import ENDED, OPEN, RolloutState
from metalimmu.service.planning import Planner
from metalimmu.store.records import FINAL

if TYPE_CHECKING:
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite
    from metalimmu.store.rollout_records import RolloutRecord

_SHOWN = 5  # differences of one host in one line


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """`plans`: what runs, by host: the saved plans, where power was accepted with the first request of now."""

    differences: tuple[Difference, ...]
    power: tuple[Difference, ...]  # hosts that are started otherwise, beside the differences
    plans: dict[str, Plan]


def look_again(
    site: OpenSite,
    content: Content,
    *,
    options: Mapping[str, Any],
    work: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Again:
    """Observe every host. `work`: the run or rollout that carries out this plan; its hosts are its own."""
    from metalimmu.service.rollouts import propose
    from metalimmu.service.saved_plans.make import guards_of

    found: list[Difference] = list(guard_differences(content.guards, guards_of(site.docs, content.pools)))
    power: list[Difference] = []
    plans: dict[str, Plan] = {}
    busy = _busy(site, work)
    fresh = {
        p.host: p
        for p in propose(
            site,
            [h.host for h in content.hosts],
            verb=content.verb,
            force=content.options.force,
            batch=content.options.batch,
            options=options,
            images={h.host: h.plan.image.ref for h in content.hosts},
            progress=progress,
        )
    }
    for saved in content.hosts:
        now = fresh[saved.host]
        plans[saved.host] = saved.plan
        if saved.host in busy:
            found.append(Difference(host=saved.host, setting="work", planned="", now=busy[saved.host]))
        elif now.planned is None:
            found.append(unplanned(saved.host, now.error))
        else:
            found += (_refused(saved.host, r.guard, r.text) for r in now.refusals if r.guard is not Guard.window)
            differs = host_differences(saved, now.planned)
            found += (d for d in differs if not of_power(d))
            if any(of_power(d) for d in differs):
                power += (d for d in differs if of_power(d))
                plans[saved.host] = with_power(saved.plan, now.planned.plan)
    if not found:  # else others are missing in the waves of now
        found += (_wave(h, fresh[h.host].wave) for h in content.hosts if fresh[h.host].wave != h.wave)
    return Again(differences=tuple(found), power=tuple(power), plans=plans)


def _wave(saved: HostPlan, now: int) -> Difference:
    return Difference(host=saved.host, setting="wave", planned=str(saved.wave), now=str(now))


def _refused(host: str, guard: Guard, text: str) -> Difference:
    return Difference(host=host, setting=f"guards.{guard}", planned="nothing forbids it", now=text)


def _busy(site: OpenSite, work: str) -> dict[str, str]:
    """Hosts that somebody else works on, or will."""
    found: dict[str, str] = {}
    for rollout in site.store.rollouts.find(states=[s for s in RolloutState if s not in ENDED], limit=10_000):
        if rollout.id != work:
            rows = (r for r in site.store.rollouts.hosts(rollout.id) if r.state in OPEN)
            found |= {r.host: f"rollout {rollout.id} of {rollout.by} has it" for r in rows}
    for lease in site.store.leases():
        if lease.run and lease.run != work and _runs(site, lease.run):
            found[lease.host] = f"run {lease.run} of {lease.holder} works on it"
    return found


def _runs(site: OpenSite, run: str) -> bool:
    try:
        return site.store.run(run).status not in FINAL
    except NotFound:  # a person's act on its power
        return True


def next_plan(site: OpenSite, rollout: RolloutRecord, host: str) -> Plan:
    """The saved plan of a host whose turn has come. Raises PlanDiffers, and what planning raises."""
    kept = site.store.plans.of_host(rollout.plan_digest, host)
    if kept is None:
        raise PlanDiffers(
            f"{host}: its plan {rollout.plan_digest[:19]}… is no longer in the store", hint="plan it again"
        )
    saved = structs.decode(kept, HostPlan)
    force = bool(rollout.options.get("force"))
    now = Planner(site).plan(host, image=saved.plan.image.ref, verb=saved.plan.verb, force=force, spec=saved.plan.spec)
    if now.plan.nothing:
        return now.plan
    differs = host_differences(saved, now, documents=False)
    accepted = bool(rollout.options.get("accept_power"))
    wrong = [d for d in differs if not (accepted and of_power(d))]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        text = "; ".join(
            f"{d.setting}: planned {d.planned or 'nothing'}, now {d.now or 'nothing'}" for d in wrong[:_SHOWN]
        )
        raise PlanDiffers(f"{host} is not as it was planned: {text}{more}")
    return with_power(saved.plan, now.plan) if accepted and differs else saved.plan


def by_host(differences: tuple[Difference, ...]) -> Iterator[tuple[str, list[Difference]]]:
    """In their order."""
    found: dict[str, list[Difference]] = {}
    for difference in differences:
        found.setdefault(difference.host, []).append(difference)
    yield from found.items()
