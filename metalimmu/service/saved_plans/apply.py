"""Verify a saved plan, look again, and carry it out exactly as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.desired.units import seconds
from metalimmu.errors import NotFound, PlanDiffers, PlanError
from metalimmu.plan.differences import Difference
from metalimmu.plan.guards import stamp
from metalimmu.plan.saved import Content, Saved
from metalimmu.service.rollouts import Proposal, create
from metalimmu.service.runs import submit, who
from metalimmu.service.saved_plans.again import Again, look_again
from metalimmu.service.saved_plans.approvals import Approvals, Signers, read, require
from metalimmu.service.saved_plans.make import approvals_wanted
from metalimmu.store.ids import plan_id
from metalimmu.store.protocol_plans import PlanRecord

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

CLOCK = 300.0  # seconds by which the clocks of two machines may differ
_LINES = 200  # differences that an error lists


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that may be carried out now."""

    saved: Saved
    approvals: Approvals
    again: Again
    options: dict[str, Any]


def verify(site: OpenSite, saved: Saved, *, now: float | None = None) -> None:
    """Site and time. Raises PlanError."""
    content = saved.content
    moment = time.time() if now is None else now
    if content.site != site.docs.site.name:
        raise PlanError(
            f"the plan is for the site {content.site}, this is {site.docs.site.name}",
            hint="--site DIR names another site",
        )
    newest = _newest(site)
    if newest > moment + CLOCK:
        raise PlanError(
            f"it is {stamp(moment)} by this machine's clock, and the newest event of the site is of {stamp(newest)}",
            hint="set the clock (`timedatectl`): by a wrong one a plan would not expire",
        )
    if content.created > moment + CLOCK:
        raise PlanError(
            f"the plan was made at {stamp(content.created)}, and it is {stamp(moment)} by this machine's clock",
            hint="set the clock of the machine that is wrong (`timedatectl`), then make a new plan",
        )
    if moment > content.expires:
        raise PlanError(f"the plan of {stamp(content.created)} has expired at {stamp(content.expires)}")


def _newest(site: OpenSite) -> float:
    """When the last thing happened. An approver's checkout has no store, and gets none."""
    if not (site.state / "store.sqlite").exists():
        return 0.0
    return max((e.at for e in site.store.history(limit=1)), default=0.0)


def approved(site: OpenSite, saved: Saved, file: Path) -> Approvals:
    """Whose signatures count; those that are wanted must. Raises NotApproved, PlanError, ToolError."""
    wanted, pools = approvals_wanted(site.docs, saved.content.pools)
    found = read(file, saved.digest, Signers(site.folder))
    require(saved, found, wanted, pools)
    return found


def work_of(saved: Saved) -> str:
    """The id of the run or rollout that carries out this plan: always the same one."""
    kind = "o" if as_rollout(saved.content) else "r"
    return plan_id(kind, saved.digest, saved.content.created)


def as_rollout(content: Content) -> bool:
    """A run can neither go back by itself nor be soaked beside others."""
    return len(content.hosts) > 1 or content.options.auto_rollback


def applied(site: OpenSite, saved: Saved) -> PlanRecord | None:
    """How the plan was applied, if it was."""
    record = site.store.plans.get(saved.digest)
    if record is None:
        return None
    try:
        if record.work.startswith("o-"):
            site.store.rollouts.get(record.work)
        else:
            site.store.run(record.work)
    except NotFound:
        return None  # whoever applied it died just then
    return record


def check(
    site: OpenSite,
    saved: Saved,
    file: Path,
    *,
    accept_power: bool = False,
    now: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Checked:
    """Everything that must hold. Raises PlanError, PlanDiffers with every difference, NotApproved."""
    verify(site, saved, now=now)
    if record := applied(site, saved):
        raise PlanError(
            f"the plan was applied at {stamp(record.applied)} by {record.by}: {record.work}",
            hint=f"`metalimmu run show {record.work}` says how it went; a plan is carried out once",
        )
    signed = approved(site, saved, file)
    content = saved.content
    options = {
        **content.options.given(),
        "plan": saved.digest,
        "planned_by": content.author.name,
        "approved_by": list(signed.people),
        **({"accept_power": True} if accept_power else {}),
    }
    again = look_again(site, content, options=options, work=work_of(saved), progress=progress)
    _refuse(site, content, again, accept_power=accept_power)
    return Checked(saved=saved, approvals=signed, again=again, options=options)


def _refuse(site: OpenSite, content: Content, again: Again, *, accept_power: bool) -> None:
    differences = (*again.differences, *(() if accept_power else again.power))
    if differences:
        hosts = {d.host for d in differences}
        hint = ""
        if not again.differences:
            hint = "only power has changed since: --accept-power starts these machines as they are now"
        raise PlanDiffers(_differs(len(hosts), content), problems=lines(differences), hint=hint)
    wanted, pools = approvals_wanted(site.docs, content.pools)
    if again.power and wanted:
        raise PlanDiffers(
            f"--accept-power is not for pools that want approvals ({', '.join(pools)}): nobody approved that",
            problems=lines(again.power),
        )


def _differs(count: int, content: Content) -> str:
    return (
        f"the plan of {stamp(content.created)} no longer fits {count} of {len(content.hosts)} hosts: nothing was done"
    )


def lines(differences: Iterable[Difference]) -> tuple[str, ...]:
    every = [str(d) for d in differences]
    more = (f"… and {len(every) - _LINES} more",) if len(every) > _LINES else ()
    return (*every[:_LINES], *more)


def proposals(content: Content) -> list[Proposal]:
    """As if they had just been planned, in the waves of the plan."""
    found = [
        Proposal(host=h.host, plan=h.plan, planned=h, pool=h.pool, wave=h.wave, soak=_soak(content, h.pool))
        for h in content.hosts
    ]
    return [*found, *(Proposal(host=r.host, error=r.reason, hint=r.hint) for r in content.refused)]


def _soak(content: Content, pool: str) -> float:
    try:
        return seconds(str(content.guards.pools.get(pool, {}).get("soak", "0s")))
    except ValueError:
        return 0.0


def carry_out(site: OpenSite, checked: Checked) -> str:
    """Queue it. Returns the id of the rollout or run. Raises GuardRefused, LeaseHeld, ImageExists.

    Asked twice it starts nothing twice: the id comes from the plan's digest.
    """
    saved, content = checked.saved, checked.saved.content
    work = work_of(saved)
    plans = {h.host: msgspec.structs.replace(h, plan=checked.again.plans[h.host]) for h in content.hosts}
    head = msgspec.to_builtins(msgspec.structs.replace(content, hosts=()))
    site.store.plans.keep(
        PlanRecord(
            digest=saved.digest, head=head, approvals=checked.approvals.text, by=who(), applied=time.time(), work=work
        ),
        ((name, msgspec.json.encode(plan)) for name, plan in plans.items()),
    )
    if not as_rollout(content):
        [only] = plans.values()
        return submit(site, only.plan, options=checked.options, run=work).id
    record = create(
        site,
        proposals(msgspec.structs.replace(content, hosts=tuple(plans.values()))),
        verb=content.verb,
        options=checked.options,
        plan_digest=saved.digest,
        rollout=work,
    )
    return record.id
