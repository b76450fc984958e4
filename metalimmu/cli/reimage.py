"""`plan`, `reimage`, `rollback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli import saved
from metalimmu.cli.output import output_option, site_option
from metalimmu.cli.targets import batch_option, chosen, confirmed, targets
from metalimmu.log import redact

if TYPE_CHECKING:
    from metalimmu.observed.types import WriteRequest
    from metalimmu.plan.types import Plan, PlanStep
    from metalimmu.service.site import OpenSite
    from metalimmu.service.worker import Worker


def _image_option(function: Any) -> Any:
    return click.option("--image", metavar="NAME@VERSION", help="Another image than the role's.")(function)


def _method_option(function: Any) -> Any:
    words = ["auto", "virtual-media", "uefi-http", "pxe", "onie", "two-slot"]
    help_ = "Boot the ramdisk so, whatever the role says (one host); onie, two-slot: of a switch."
    return click.option("--method", type=click.Choice(words), help=help_)(function)


def _one_only(method: str | None, *, many: bool) -> None:
    """Raises UsageError."""
    from metalimmu.errors import UsageError

    if method and many:
        raise UsageError(
            "--method is for one host, now", hint="for several, and for saved plans, set `boot:` in their role"
        )


@click.command()
@site_option
@targets
@_image_option
@_method_option
@click.option("--force", is_flag=True, help="Plan it even where the host is proven at this image.")
@batch_option
@saved.saving
@output_option
def plan(
    site: Path,
    hosts: tuple[str, ...],
    selector: str | None,
    image: str | None,
    method: str | None,
    force: bool,
    batch: str | int | None,
    fmt: str,
    **given: Any,
) -> None:
    """Print what a reimage would do: changes, requests to BMCs, boots, time and bytes. Writes nothing.

    Of several hosts it prints in which waves they would go, and which would be refused. With --out it is saved: as a
    whole, with a digest that can be signed (`approve`), to be carried out by `apply`.
    """
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    if given["file"]:
        saved.show(opened, given["file"], hosts, fmt)
        return
    names = chosen(opened, hosts, selector, "plan")
    _one_only(method, many=bool(given["out"] or selector or len(names) > 1))
    if given["out"]:
        saved.save(opened, names, image=image, force=force, batch=batch, **given)
        return
    saved.only_with_out(given)
    verb = "rollback" if given["rollback"] else "reimage"
    planner = saved.planner(opened, from_memory=given["from_memory"])
    if selector or len(names) > 1:
        from metalimmu.cli import rollout

        rollout.show_plan(opened, names, verb=verb, image=image, force=force, batch=batch, fmt=fmt, planner=planner)
        return
    made = saved.one(opened, planner, names[0], verb=verb, image=image, force=force, method=method)
    if fmt in ("json", "yaml"):
        from metalimmu.cli.output import emit

        emit([made.encode()], [], fmt)
    else:
        print_plan(made)
        _print_refusals(opened, made)


def _print_refusals(site: OpenSite, made: Plan) -> None:
    """What would be said if it were asked for now."""
    from metalimmu.service.guarding import Guards, act

    if not made.nothing:
        for refusal in Guards(site).refusals(act(made.verb, made.host, {})):
            click.echo(f"  REFUSED   {refusal.text} ({refusal.hint})")


def _write_options(function: Any) -> Any:
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask; for up to guards.max_hosts hosts."),
        click.option("--confirm", type=int, metavar="N", help="Do not ask, if it is exactly N hosts."),
        click.option("--allow-protected", is_flag=True, help="Go on for a protected host; needs --reason."),
        click.option("--allow-same-domain", is_flag=True, help="Several of one failure domain at once."),
        click.option("--reason", metavar="TEXT", help="Kept in the history."),
        click.option("--no-wait", is_flag=True, help="Queue it for a running worker and return."),
        batch_option,
        click.option("--max-failures", type=click.IntRange(1), help="Stop at so many; default: the site's guards."),
        click.option("--skip-refused", is_flag=True, help="Go on without hosts that are refused."),
    ):
        function = option(function)
    return function


def _as_many(options: dict[str, Any]) -> bool:
    """Are options of rollouts given? Then one host is a rollout too: a script need not count its hosts."""
    return bool(options["batch"] or options["max_failures"] or options["skip_refused"])


@click.command()
@site_option
@targets
@_image_option
@_method_option
@click.option("--force", is_flag=True, help="Reimage even where the host is proven at this image.")
@click.option("--auto-rollback", is_flag=True, help="When it stops: hosts of that wave go back to what they had.")
@_write_options
def reimage(
    site: Path,
    hosts: tuple[str, ...],
    selector: str | None,
    image: str | None,
    method: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Erase hosts, write their image, boot it, and prove that it runs.

    Several hosts go in waves: the first alone, then batches; it stops by itself at --max-failures. A host that is
    already proven at this image is left alone. Killed or interrupted at any point, it goes on with `run resume`.
    """
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    names = chosen(opened, hosts, selector, "reimage")
    many = bool(selector or len(names) > 1 or options["auto_rollback"] or _as_many(options))
    _one_only(method, many=many)
    if many:
        from metalimmu.cli import rollout

        rollout.go(opened, names, image=image, force=force, verb="reimage", **options)
    else:
        _go(opened, names[0], image=image, method=method, force=force, verb="reimage", **options)


@click.command()
@site_option
@targets
@click.option("--hold", is_flag=True, help="Write holds.yaml, so that the site says what the host runs.")
@_write_options
def rollback(site: Path, hosts: tuple[str, ...], selector: str | None, hold: bool, **options: Any) -> None:
    """Reimage hosts to the image that they had before."""
    from metalimmu.errors import UsageError
    from metalimmu.service.planning import rollback_image
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    names = chosen(opened, hosts, selector, "rollback")
    if hold and not options["reason"]:
        raise UsageError("--hold needs --reason TEXT: a hold without a reason outlives whoever made it")
    if not hold:
        click.echo(
            "note: the roles stay as they are, so the next plan brings back what they want (--hold keeps the image)"
        )
    if selector or len(names) > 1 or _as_many(options):
        from metalimmu.cli import rollout

        rollout.go(opened, names, image=None, force=False, verb="rollback", hold=hold, **options)
    else:
        image = rollback_image(opened, names[0])
        _go(opened, names[0], image=image, force=False, verb="rollback", hold=hold, **options)


def _go(
    site: OpenSite,
    host: str,
    *,
    image: str | None,
    force: bool,
    verb: str,
    yes: bool,
    confirm: int | None,
    allow_protected: bool,
    allow_same_domain: bool,
    reason: str | None,
    no_wait: bool,
    hold: bool = False,
    method: str | None = None,
    **_of_many: Any,
) -> None:
    from metalimmu.plan import kinds
    from metalimmu.service.guarding import Guards, act
    from metalimmu.service.planning import check_seen, plan_host
    from metalimmu.service.rollback import write_hold
    from metalimmu.service.runs import submit

    made = plan_host(site, host, image=image, verb=verb, force=force, method=method)
    if made.nothing:
        click.echo(made.why)
        return
    given = {"allow_protected": allow_protected, "allow_same_domain": allow_same_domain, "reason": reason}
    options = {k: v for k, v in given.items() if v}
    Guards(site).check(act(verb, host, options))
    check_seen(made)
    check_worker(site, no_wait=no_wait)
    print_plan(made)
    if confirm is not None:
        confirmed(site, 1, "will be erased", yes=yes, confirm=confirm)
    elif not yes:
        two_slot = f"Install {made.image.ref} beside what {host} runs, and restart it?"
        click.confirm(f"\n{two_slot if made.method == 'two-slot' else kinds.question(host, made.image)}", abort=True)
    record = submit(site, made, options=options)
    click.echo(f"run {record.id}")
    if hold:  # now: an interrupted run is finished by `run resume`, and the site must say so then too
        click.echo(f"held: {write_hold(site, host, made.image.ref, reason or '')}")
    if not no_wait:
        work(site, record.id)


def check_worker(site: OpenSite, *, no_wait: bool) -> None:
    """Raises UsageError where `--no-wait` would leave it to nobody."""
    from metalimmu.errors import UsageError
    from metalimmu.service.runs import nobody_works

    if no_wait and nobody_works(site):
        raise UsageError(
            "--no-wait leaves the run to this site's worker, and there is none",
            hint="leave --no-wait out: this process is the worker then",
        )


def work(site: OpenSite, run: str, *, cancelled: bool = False) -> None:
    """Execute a run or a rollout, or wait for the worker that does; then say how it ended. Raises StepFailed when it failed.

    `cancelled`: of a rollout that is just what was asked for.
    """
    from metalimmu.cli import rollout_watch, watch
    from metalimmu.plan.waves import RolloutState
    from metalimmu.service.rollouts import PREFIX
    from metalimmu.service.worker import Worker

    eye = rollout_watch if run.startswith(PREFIX) else watch
    worker = Worker(site)
    try:
        if not worker.try_start():
            click.echo(f"waiting: {worker.holder()} is this site's worker and executes the run")
        for other in worker.resumed:
            if other != run and not _is_part(site, other, run):
                click.echo(f"also going on with run {other}, whose worker died")
        eye.follow(site, run, tick=lambda: _tick(worker))
        _others(worker, run)
    except KeyboardInterrupt:
        _interrupted(site, worker, run)
        raise
    finally:
        worker.stop()
    if not (cancelled and site.store.rollouts.get(run).state is RolloutState.cancelled):
        eye.ended(site, run)


def _is_part(site: OpenSite, run: str, rollout: str) -> bool:
    return site.store.run(run).options.get("rollout") == rollout


def _tick(worker: Worker) -> None:
    worker.check()
    worker.try_start()


def _others(worker: Worker, run: str) -> None:
    """Whoever is the worker ends when all is done that others have left to it."""
    import time

    others = [r for r in worker.under_way() if r != run]
    if others:
        click.echo(f"still executing {', '.join(others)} for others; Ctrl-C leaves them to the next worker")
    while worker.under_way():
        worker.check()
        time.sleep(0.3)


def _interrupted(site: OpenSite, worker: Worker, run: str) -> None:
    """Only our own run is left: those of other processes are taken over by whoever waits for them."""
    from metalimmu.service import rollouts, runs

    if not worker.elected:
        click.echo(f"\nno longer watching; another process executes run {run}", err=True)
        return
    many = run.startswith(rollouts.PREFIX)
    (rollouts if many else runs).interrupt(site, run)
    left = "machines are left as they are, and wait" if many else "the machine is left as it is, and waits"
    click.echo(f"\ninterrupted; {left}. `metalimmu run resume {run}` finishes it", err=True)


def print_plan(made: Plan) -> None:
    click.echo(f"{made.verb} {made.host}: {made.why}")
    if made.nothing:
        return
    click.echo(f"  image     {made.previous or 'unknown'} -> {made.image.ref}  ({made.image.digest[:19]}…)")
    slot = f", slot {made.slot.id}" if made.method == "virtual-media" and made.slot else ""
    click.echo(f"  method    {made.method}{slot}" + (f": {made.method_why}" if made.method_why else ""))
    if made.ways:
        click.echo(f"            else {', '.join(w.method for w in made.ways)}, as long as nothing was written")
    click.echo(
        f"  boots     {made.boots}    time about {_span(made.seconds)}    transfer about {made.transfer / 1e6:.1f} MB of {made.image.all_bytes / 1e6:.1f} MB"
    )
    for finding in made.findings:
        if finding.setting == "image":
            continue  # said above
        actual = finding.actual or "unknown"
        click.echo(
            f"  {finding.setting:<9} {finding.word}: {actual}"
            + (f", expected {finding.expected}" if finding.word != "match" else "")
        )
    for warning in made.warnings:
        click.echo(f"  note      {warning}")
    click.echo("  steps")
    for step in made.steps:
        click.echo(f"    {step.name:<10} {step.title:<34} about {step.seconds:.0f} s, at most {_most(step)}")
        for call in step.calls:
            click.echo(f"               {redact(call)}")
        for request in step.requests:
            click.echo(f"               {_request(request)}")
        for request in step.if_needed:
            click.echo(f"               if needed: {_request(request)}")


def _most(step: PlanStep) -> str:
    return f"{_span(step.stall)} without progress" if step.stall else _span(step.limit)


def _request(request: WriteRequest) -> str:
    if request.method == "SSH":
        return f"ssh {request.path}: {request.body.get('command', '')}"
    body = json.dumps(request.body) if request.body else ""
    return f"{request.method} {request.path} {body}".rstrip()


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
