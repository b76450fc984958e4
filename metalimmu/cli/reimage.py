"""`plan`, `reimage`, `rollback`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import output_option, site_option

if TYPE_CHECKING:
    from metalimmu.observed.types import WriteRequest
    from metalimmu.plan.types import Plan, PlanStep
    from metalimmu.service.site import OpenSite
    from metalimmu.service.worker import Worker


def _image_option(function: Any) -> Any:
    return click.option("--image", metavar="NAME@VERSION", help="Another image than the role's.")(function)


@click.command()
@site_option
@click.argument("host")
@_image_option
@click.option("--force", is_flag=True, help="Plan it even where the host is proven at this image.")
@output_option
def plan(site: Path, host: str, image: str | None, force: bool, fmt: str) -> None:
    """Print what a reimage of HOST would do: changes, requests to the BMC, boots, time and bytes. Writes nothing."""
    from metalimmu.service.planning import plan_host
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    made = plan_host(opened, host, image=image, force=force)
    if fmt in ("json", "yaml"):
        from metalimmu.cli.output import emit

        emit([made.encode()], [], fmt)
    else:
        _print_plan(made)


def _write_options(function: Any) -> Any:
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option("--allow-protected", is_flag=True, help="Go on for a protected host; needs --reason."),
        click.option("--reason", metavar="TEXT", help="Kept in the history."),
        click.option("--no-wait", is_flag=True, help="Queue it for a running worker and return."),
    ):
        function = option(function)
    return function


@click.command()
@site_option
@click.argument("host")
@_image_option
@click.option("--force", is_flag=True, help="Reimage even where the host is proven at this image.")
@_write_options
def reimage(site: Path, host: str, image: str | None, force: bool, **options: Any) -> None:
    """Erase HOST, write its image, boot it, and prove that it runs.

    A host that is already proven at this image is left alone. Killed or interrupted at any point, the run goes on
    with `metalimmu run resume`.
    """
    from metalimmu.service.site import OpenSite

    _go(OpenSite(site), host, image=image, force=force, verb="reimage", **options)


@click.command()
@site_option
@click.argument("host")
@click.option("--hold", is_flag=True, help="Write holds.yaml, so that the site says what the host runs.")
@_write_options
def rollback(site: Path, host: str, hold: bool, **options: Any) -> None:
    """Reimage HOST to the image that it had before."""
    from metalimmu.errors import UsageError
    from metalimmu.service.planning import rollback_image
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    if hold and not options["reason"]:
        raise UsageError("--hold needs --reason TEXT: a hold without a reason outlives whoever made it")
    image = rollback_image(opened, host)
    _go(opened, host, image=image, force=False, verb="rollback", hold=hold, **options)
    wanted = opened.spec(host).image
    if not hold and wanted not in (None, image):
        click.echo(f"note: the role wants {wanted}; the next plan will bring it back (--hold keeps {image})")


def _go(
    site: OpenSite,
    host: str,
    *,
    image: str | None,
    force: bool,
    verb: str,
    yes: bool,
    allow_protected: bool,
    reason: str | None,
    no_wait: bool,
    hold: bool = False,
) -> None:
    from metalimmu.errors import UsageError
    from metalimmu.service.planning import check_guards, plan_host
    from metalimmu.service.rollback import write_hold
    from metalimmu.service.runs import nobody_works, submit

    made = plan_host(site, host, image=image, verb=verb, force=force)
    if made.nothing:
        click.echo(made.why)
        return
    check_guards(made, allow_protected=allow_protected, reason=reason)
    if no_wait and nobody_works(site):
        raise UsageError(
            "--no-wait leaves the run to this site's worker, and there is none",
            hint="leave --no-wait out: this process is the worker then",
        )
    _print_plan(made)
    if not yes:
        click.confirm(f"\nErase {host} and write {made.image.ref}?", abort=True)
    record = submit(site, made, options={"reason": reason} if reason else {})
    click.echo(f"run {record.id}")
    if hold:  # now: an interrupted run is finished by `run resume`, and the site must say so then too
        click.echo(f"held: {write_hold(site, host, made.image.ref, reason or '')}")
    if not no_wait:
        work(site, record.id)


def work(site: OpenSite, run: str) -> None:
    """Execute, or wait for the worker that does; then say how it ended. Raises StepFailed when the run failed."""
    from metalimmu.cli.watch import ended, follow
    from metalimmu.service.worker import Worker

    worker = Worker(site)
    try:
        if not worker.try_start():
            click.echo(f"waiting: {worker.holder()} is this site's worker and executes the run")
        for other in worker.resumed:
            if other != run:
                click.echo(f"also going on with run {other}, whose worker died")
        record = follow(site, run, tick=lambda: _tick(worker))
        _others(worker, run)
    except KeyboardInterrupt:
        _interrupted(site, worker, run)
        raise
    finally:
        worker.stop()
    ended(site, record)


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
    from metalimmu.service.runs import interrupt

    if not worker.elected:
        click.echo(f"\nno longer watching; another process executes run {run}", err=True)
        return
    interrupt(site, run)
    click.echo(
        f"\ninterrupted; the machine is left as it is, and waits. `metalimmu run resume {run}` finishes it", err=True
    )


def _print_plan(made: Plan) -> None:
    click.echo(f"{made.verb} {made.host}: {made.why}")
    if made.nothing:
        return
    click.echo(f"  image     {made.previous or 'unknown'} -> {made.image.ref}  ({made.image.digest[:19]}…)")
    click.echo(f"  method    {made.method}, slot {made.slot.id if made.slot else '-'}")
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
        for request in step.requests:
            click.echo(f"               {_request(request)}")
        for request in step.if_needed:
            click.echo(f"               if needed: {_request(request)}")


def _most(step: PlanStep) -> str:
    return f"{_span(step.stall)} without progress" if step.stall else _span(step.limit)


def _request(request: WriteRequest) -> str:
    body = json.dumps(request.body) if request.body else ""
    return f"{request.method} {request.path} {body}".rstrip()


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
