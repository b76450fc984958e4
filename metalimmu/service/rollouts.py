"""One verb over many hosts: propose, create, pause, resume, cancel. `rollout_driver` carries it out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from metalimmu.desired import times
from metalimmu.desired.units import seconds, share
from metalimmu.errors import GuardRefused, MetalimmuError, UsageError
from metalimmu.plan import waves
from metalimmu.plan.guards import Guard, Refusal, stamp, to_spare
from metalimmu.plan.waves import HALTED, Member, RolloutState, RowState
from metalimmu.service.brownfield.many import Logins, each, one_by_one
from metalimmu.service.guarding import Guards, act, refused
from metalimmu.service.planning import Planner, rollback_image
from metalimmu.service.runs import pin_image, who
from metalimmu.store.ids import rollout_id
from metalimmu.store.records import RunStatus
from metalimmu.store.rollout_records import RolloutHost, RolloutRecord

if TYPE_CHECKING:
    from metalimmu.plan.saved import HostPlan
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import RunRecord

PREFIX = "o-"  # of ids of rollouts
PLANNERS = 8  # hosts that are looked at together, and logins that may be refused; the BMCs' budget holds beside that


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What is to be done with one host: a plan, or why there is none."""

    host: str
    plan: Plan | None = None
    planned: HostPlan | None = None  # the same, with what a saved plan keeps beside it
    error: str = ""  # it could not be planned
    hint: str = ""
    refusals: tuple[Refusal, ...] = ()
    pool: str = ""
    wave: int = 0  # 0: nothing is done
    soak: float = 0.0  # seconds, after its wave

    @property
    def nothing(self) -> bool:
        return self.plan is not None and self.plan.nothing

    @property
    def refused(self) -> str:
        """Why it is left out; empty: it is not."""
        return self.error or "; ".join(r.text for r in self.refusals)

    @property
    def goes(self) -> bool:
        return not self.refused and not self.nothing


def propose(
    site: OpenSite,
    hosts: Sequence[str],
    *,
    verb: str = "reimage",
    image: str | None = None,
    force: bool = False,
    batch: str | int | None = None,
    options: Mapping[str, Any] | None = None,
    images: Mapping[str, str] | None = None,
    planner: Planner | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Proposal]:
    """Plan every host, without a write, ask the guards, and put those that go in waves. In the order of the waves.

    A host that a guard refuses for now only (others are under way, its window is closed) is not refused here: it waits.
    `images`: which image each host is to have, instead of `image`.
    """
    logins = Logins(PLANNERS)
    planner = planner or Planner(site)
    site.docs, site.store, site.catalogue, site.budget  # noqa: B018  # opened once, before the threads

    def plan(host: str) -> HostPlan:
        with logins.one():
            wanted = images[host] if images else rollback_image(site, host) if verb == "rollback" else image
            return planner.plan(host, image=wanted, verb=verb, force=force)

    found: dict[str, HostPlan | MetalimmuError] = {}
    for host, result in each(hosts, plan, workers=PLANNERS) if planner.asks else one_by_one(hosts, plan):
        found[host] = result
        progress(host)
    guards = Guards(site)
    idle = guards.world().idle()  # what is under way will end
    proposals = []
    for host in hosts:
        planned = found[host]
        rules = idle.rules.hosts.get(host)
        pool = rules.pool or "" if rules else ""
        if isinstance(planned, MetalimmuError):
            proposals.append(Proposal(host=host, error=planned.message, hint=planned.hint, pool=pool))
            continue
        said = () if planned.plan.nothing else guards.refusals(act(verb, host, options or {}), idle)
        said = tuple(r for r in said if r.guard is not Guard.window)
        proposals.append(
            Proposal(
                host=host,
                plan=planned.plan,
                planned=planned,
                refusals=said,
                pool=pool,
                soak=_soak(site, pool, planned.plan),
            )
        )
    return in_waves(site, proposals, batch=batch)


def in_waves(site: OpenSite, proposals: Sequence[Proposal], *, batch: str | int | None = None) -> list[Proposal]:
    """Those that go, in their order and with their wave; then the others."""
    going = {p.host: p for p in proposals if p.goes}
    ordered = [replace(going[host], wave=wave) for host, wave in waves_of(site, list(going), batch=batch)]
    return [*ordered, *(p for p in proposals if not p.goes)]


def waves_of(site: OpenSite, hosts: Sequence[str], *, batch: str | int | None = None) -> list[tuple[str, int]]:
    """(host, wave), in their order."""
    rules = Guards(site).rules().hosts
    members = [Member(host=h, pool=rules[h].pool or "", domains=rules[h].domains) for h in hosts]
    counts = Counter(m.pool for m in members)
    return waves.waves(members, {pool: _batch(site, pool, batch, count) for pool, count in counts.items()})


def _batch(site: OpenSite, pool: str, given: str | int | None, here: int) -> int:
    """Hosts of a wave: what was asked for, else the pool's, else the site's; a percentage is of the pool."""
    guards = site.docs.site.guards
    known = site.docs.pools.get(pool)
    amount = given or (known.batch if known else None) or guards.batch or max(1, guards.max_hosts)
    of = sum(h.pool == pool for h in site.docs.hosts.values()) if known else here
    return max(1, share(amount, of))


def held_back(site: OpenSite, proposals: Sequence[Proposal]) -> list[str]:
    """A sentence for each pool whose windows are closed, and for each that lets fewer hosts go at once than its waves
    have: it then takes longer.
    """
    guards = Guards(site)
    world = guards.world().idle()
    sizes = Counter((p.pool, p.wave) for p in proposals if p.goes and p.host in world.standing.active)
    found = []
    for name, pool in world.rules.pools.items():
        most = max((count for (of, _), count in sizes.items() if of == name), default=0)
        spare = to_spare(pool, world)
        if spare is not None and spare < most:
            found.append(f"pool {name} has {spare} of {len(pool.hosts)} to spare: its waves go {spare} at a time")
    for name in sorted({p.pool for p in proposals if p.goes and p.pool}):
        opens = times.opens(world.rules.pools[name].windows, time.time())
        if opens is not None:
            found.append(f"pool {name} is outside of its maintenance windows: nothing begins before {stamp(opens)}")
    return found


def create(
    site: OpenSite,
    proposals: Sequence[Proposal],
    *,
    verb: str = "reimage",
    options: Mapping[str, Any] | None = None,
    plan_digest: str = "",
    rollout: str = "",
) -> RolloutRecord:
    """Queue it for the site's worker. Raises GuardRefused when no host is left, ImageExists.

    `rollout`: its id, where it must be one and the same however often it is asked for.
    `options`: max_failures, auto_rollback, allow_same_domain, allow_protected, reason, force.
    """
    going = [p for p in proposals if p.goes and p.plan is not None]
    if not going:
        left = [p for p in proposals if p.refused]
        if left and left[0].refusals:
            raise refused(left[0].refusals)
        raise GuardRefused(left[0].error if left else "there is nothing to do", hint=left[0].hint if left else "")
    for plan in {p.plan.image.ref: p.plan for p in going if p.plan is not None}.values():
        pin_image(site, plan)
    wanted = {"max_failures": site.docs.site.guards.max_failures, **(options or {})}
    record = RolloutRecord(
        id=rollout or rollout_id(), verb=verb, options=wanted, by=who(), plan_digest=plan_digest, created=time.time()
    )
    rows = [_row(site, record.id, i, p) for i, p in enumerate(proposals)]
    return site.store.rollouts.add(record, rows)


def _row(site: OpenSite, rollout: str, seq: int, proposal: Proposal) -> RolloutHost:
    plan = proposal.plan
    state, reason = RowState.waiting, ""
    if proposal.refused:
        state, reason = RowState.refused, proposal.refused
    elif proposal.nothing and plan is not None:
        state, reason = RowState.done, plan.why
    return RolloutHost(
        rollout=rollout,
        host=proposal.host,
        seq=seq,
        wave=proposal.wave,
        pool=proposal.pool,
        state=state,
        reason=reason,
        image=plan.image.ref if plan else "",
        digest=plan.image.digest if plan else "",
        before_image=plan.previous if plan else None,
        before_digest=plan.previous_digest if plan else None,
        soak=_soak(site, proposal.pool, plan),
    )


def _soak(site: OpenSite, pool: str, plan: Plan | None) -> float:
    """Seconds. Where the run itself soaks, as a step of its own, the rollout need not do it again."""
    known = site.docs.pools.get(pool)
    if known is None or (plan is not None and any(s.name == "soak" for s in plan.steps)):
        return 0.0
    return seconds(known.soak)


def find(site: OpenSite, name: str) -> RolloutRecord | None:
    """None: that is no rollout's id. Raises NotFound."""
    return site.store.rollouts.get(name) if name.startswith(PREFIX) else None


def pause(site: OpenSite, rollout: str, reason: str = "") -> RolloutRecord:
    """No host is begun any more; those under way finish."""
    why = f"paused by {who()}" + (f": {reason}" if reason else "")
    before = site.store.rollouts.get(rollout)
    found = site.store.rollouts.set(rollout, expect=(RolloutState.running,), state=RolloutState.paused, reason=why)
    if before.state is not RolloutState.running or found.state is not RolloutState.paused:
        raise UsageError(
            f"rollout {rollout} is {before.state}: there is nothing to pause", hint=f"`metalimmu run show {rollout}`"
        )
    return found


def resume(site: OpenSite, rollout: str) -> RolloutRecord:
    """Go on where it was paused, interrupted or stopped; failures that stopped it are left behind.

    Raises UsageError; GuardRefused while every host that is left is frozen, or one whose run was interrupted.
    """
    store = site.store.rollouts
    record = store.get(rollout)
    rows = store.hosts(rollout)
    if record.state in waves.ENDED:
        raise UsageError(f"rollout {rollout} has ended ({record.state})", hint="start a new one")
    if record.state is RolloutState.cancelling:
        raise UsageError(f"rollout {rollout} is being cancelled", hint=f"`metalimmu run watch {rollout}`")
    interrupted = list(_interrupted(site, rows))
    _refuse_frozen(site, record, rows, interrupted)
    stopped = record.state is RolloutState.stopped
    forgiven = {r.host: {"forgiven": True} for r in rows if stopped and r.state in waves.WENT_WRONG}
    for run in interrupted:
        site.store.set_run(run.id, status=RunStatus.queued)
    states = (RolloutState.paused, RolloutState.stopped, RolloutState.running)
    return store.set(rollout, expect=states, hosts=forgiven, state=RolloutState.running, reason=f"resumed by {who()}")


def _refuse_frozen(
    site: OpenSite, record: RolloutRecord, rows: Sequence[RolloutHost], interrupted: Sequence[RunRecord]
) -> None:
    guards = Guards(site)
    world = guards.world()

    def frozen(verb: str, host: str, options: Mapping[str, Any]) -> tuple[Refusal, ...]:
        found = guards.refusals(act(verb, host, options), world)
        return tuple(r for r in found if r.guard is Guard.freeze)

    for run in interrupted:  # as `runs.resume` does
        if said := frozen(run.verb, run.host, run.options):
            raise refused(said)
    left = [frozen(record.verb, r.host, record.options) for r in rows if r.state in waves.OPEN]
    if left and all(left):
        raise refused(left[0])


def cancel(site: OpenSite, rollout: str) -> RolloutRecord:
    """Begin nothing more; what is in an unsafe step is finished, what is not yet in one ends untouched."""
    store = site.store.rollouts
    found = store.get(rollout)
    if found.state in waves.ENDED:
        raise UsageError(
            f"rollout {rollout} has ended ({found.state})", hint="`metalimmu run list` shows those under way"
        )
    for run in _interrupted(site, store.hosts(rollout)):
        site.store.set_run(run.id, status=RunStatus.queued)  # it is finished by whoever is the worker
    return store.set(rollout, state=RolloutState.cancelling, reason=f"cancelled by {who()}")


def interrupt(site: OpenSite, rollout: str) -> None:
    """Ctrl-C: leave machines as they are, for `resume`; no worker takes them up by itself."""
    store = site.store.rollouts
    store.set(rollout, expect=(RolloutState.running,), state=RolloutState.paused, reason=f"interrupted by {who()}")
    for row in store.hosts(rollout):
        if row.state in waves.BUSY and row.run:
            site.store.set_run(row.run, status=RunStatus.interrupted)  # one that has ended stays so


def _interrupted(site: OpenSite, rows: Sequence[RolloutHost]) -> Iterator[RunRecord]:
    for row in rows:
        if row.state in waves.BUSY and row.run:
            run = site.store.run(row.run)
            if run.status is RunStatus.interrupted:
                yield run


def halted(site: OpenSite, record: RolloutRecord) -> bool:
    """Does nothing happen any more, until somebody says so?"""
    if record.state in HALTED:
        return True
    if record.state is not RolloutState.paused:
        return False
    counts = site.store.rollouts.counts(record.id)
    return not any(counts.get(s) for s in waves.BUSY)
