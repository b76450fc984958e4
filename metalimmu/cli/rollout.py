"""`plan`, `reimage` and `rollback` of many hosts: the table, the question, the rollout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit
from metalimmu.cli.targets import confirmed

if TYPE_CHECKING:
    from metalimmu.service.rollouts import Proposal
    from metalimmu.service.site import OpenSite

_MOST = 60  # lines of the table before the question; `plan` prints all


def show_plan(
    site: OpenSite,
    names: Sequence[str],
    *,
    image: str | None = None,
    force: bool = False,
    batch: str | int | None = None,
    fmt: str = "table",
    **given: Any,
) -> None:
    """In which waves they would go. Writes nothing."""
    proposals = _propose(site, names, image=image, force=force, batch=batch, **given)
    if fmt in ("json", "yaml"):
        emit([as_data(p) for p in proposals], [], fmt)
        return
    print_proposals(proposals, fmt)
    if fmt != "name":
        _print_totals(site, proposals)


def go(
    site: OpenSite,
    names: Sequence[str],
    *,
    verb: str,
    image: str | None,
    force: bool,
    yes: bool,
    confirm: int | None,
    no_wait: bool,
    batch: str | int | None,
    skip_refused: bool,
    reason: str | None,
    hold: bool = False,
    **flags: Any,
) -> None:
    """Propose, ask, create, and carry it out. Raises HostsRefused, UsageError, StepFailed."""
    from metalimmu.cli.reimage import check_worker, work
    from metalimmu.service import rollouts
    from metalimmu.service.rollback import write_hold

    check_worker(site, no_wait=no_wait)
    options = {k: v for k, v in {**flags, "reason": reason, "force": force}.items() if v}
    proposals = _propose(site, names, verb=verb, image=image, force=force, batch=batch, options=options)
    going = [p for p in proposals if p.goes]
    print_proposals(proposals, "table", most=_MOST)
    _print_totals(site, proposals)
    _refuse(proposals, skip=skip_refused and bool(going))
    if not going:
        return
    confirmed(site, len(going), "will be erased", yes=yes, confirm=confirm)
    record = rollouts.create(site, proposals, verb=verb, options=options)
    click.echo(f"rollout {record.id}")
    if hold:
        for p in going:
            click.echo(f"held: {write_hold(site, p.host, p.plan.image.ref if p.plan else '', reason or '')}")
    if not no_wait:
        work(site, record.id)


def _propose(site: OpenSite, names: Sequence[str], **given: Any) -> list[Proposal]:
    from metalimmu.service.rollouts import propose

    with looking(names) as looked:
        return propose(site, names, progress=looked, **given)


@contextmanager
def looking(names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Tells how far it is, where somebody looks and it takes long; call what it gives once for each host."""
    bar = sys.stderr.isatty() and len(names) > 4
    done = 0

    def looked(_host: str) -> None:
        nonlocal done
        done += 1
        if bar:
            click.echo(f"\rlooking at hosts: {done} of {len(names)}", nl=False, err=True)

    try:
        yield looked
    finally:
        if bar:
            click.echo("\r" + " " * 60 + "\r", nl=False, err=True)


def _refuse(proposals: Sequence[Proposal], *, skip: bool) -> None:
    from metalimmu.errors import HostsRefused

    left = [p for p in proposals if p.refused]
    if not left or skip:
        return
    if len(left) < len(proposals):
        raise HostsRefused(
            f"{len(left)} of {len(proposals)} hosts are refused", problems=tuple(f"{p.host}: {_why(p)}" for p in left)
        )
    hint = left[0].refusals[0].hint if left[0].refusals else left[0].hint
    raise HostsRefused(
        "every host is refused" if len(left) > 1 else "the host is refused",
        problems=tuple(f"{p.host}: {_why(p)}" for p in left),
        hint=hint,
    )


def _why(proposal: Proposal) -> str:
    """The name stands beside it already."""
    said = [proposal.error] if proposal.error else [r.text for r in proposal.refusals]
    return "; ".join(s.removeprefix(f"{proposal.host}: ").removeprefix(f"{proposal.host} ") for s in said)


def print_proposals(proposals: Sequence[Proposal], fmt: str, *, most: int | None = None) -> None:
    rows = [_row(p) for p in proposals[:most]]
    emit(rows, ["wave", "host", "now", "wanted", "boots", "MB", "minutes", "note"], fmt, name="host", wide=["pool"])
    if most is not None and len(proposals) > most and fmt != "name":
        click.echo(f"… and {len(proposals) - most} more; `metalimmu plan` prints all")


def _row(p: Proposal) -> dict[str, Any]:
    made = p.plan
    known = made is not None and not made.nothing
    return {
        "wave": p.wave or "",
        "host": p.host,
        "now": made.previous if made else "",
        "wanted": made.image.ref if made else "",
        "boots": made.boots if made and known else "",
        "MB": f"{made.transfer / 1e6:.0f}" if made and known else "",
        "minutes": f"{made.seconds / 60:.0f}" if made and known else "",
        "note": f"REFUSED: {_why(p)}" if p.refused else "nothing to do" if p.nothing else _warned(p),
        "pool": p.pool,
    }


def _warned(p: Proposal) -> str:
    found = p.plan.warnings if p.plan else ()
    return f"{len(found)} notes: `metalimmu plan {p.host}`" if len(found) > 2 else ""


def as_data(p: Proposal) -> dict[str, Any]:
    return {
        "host": p.host,
        "wave": p.wave,
        "pool": p.pool,
        "refused": p.refused,
        "hint": p.refusals[0].hint if p.refusals else p.hint,
        "plan": p.plan.encode() if p.plan else None,
    }


def _print_totals(site: OpenSite, proposals: Sequence[Proposal]) -> None:
    from metalimmu.service.rollouts import held_back

    click.echo(totals(proposals))
    for line in held_back(site, proposals):
        click.echo(line)


def totals(proposals: Sequence[Proposal]) -> str:
    """One sentence on the whole. Time: each wave as long as its slowest host, and its soak."""
    going = [p for p in proposals if p.goes and p.plan is not None]
    slowest: dict[int, float] = {}
    for p in going:
        slowest[p.wave] = max(slowest.get(p.wave, 0.0), (p.plan.seconds if p.plan else 0.0) + p.soak)
    boots = sum(p.plan.boots for p in going if p.plan)
    moved = sum(p.plan.transfer for p in going if p.plan)
    minutes = sum(slowest.values()) / 60
    others = [
        f"{count} {word}"
        for word, count in (
            ("refused", sum(bool(p.refused) for p in proposals)),
            ("with nothing to do", sum(p.nothing for p in proposals)),
        )
        if count
    ]
    if not going:
        return f"\nno host goes: {', '.join(others)}"
    text = f"\n{len(going)} hosts in {len(slowest)} waves: {boots} boots, {moved / 1e6:.1f} MB, about {minutes:.0f} min"
    return text + (f"; {', '.join(others)}" if others else "")
