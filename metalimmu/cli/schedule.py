"""`schedule list | start | pause | resume`: what a site does by itself, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalimmu.cli.output import emit, output_option, site_option

if TYPE_CHECKING:
    from metalimmu.service.scans.record import Progress
    from metalimmu.store.scan_records import ScanRecord


@click.group()
def schedule() -> None:
    """Schedules of the site: `schedules:` in site.yaml, run by `metalimmu serve`."""


@schedule.command("list")
@site_option
@output_option
def list_(site: Path, fmt: str) -> None:
    """List schedules, when they start next, and how the last turn ended."""
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers.listing import rows

    found = rows(OpenSite(site))
    if not found and fmt in ("table", "wide"):
        click.echo("no schedules: write `schedules: {NAME: {cron: ...}}` into site.yaml", err=True)
    emit(found, ["name", "cron", "timezone", "next", "last", "outcome"], fmt, wide=["splay", "window", "scope", "scan"])


@schedule.command()
@site_option
@click.argument("name")
def start(site: Path, name: str) -> None:
    """Start a turn of schedule NAME now, here, and wait for its end."""
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers import turns

    _say(turns.start(OpenSite(site), name, progress=_progress))


@schedule.command()
@site_option
@click.argument("name")
@click.option("--reason", required=True, help="Why; shown by `schedule list`.")
def pause(site: Path, name: str, reason: str) -> None:
    """Start no more turns of schedule NAME until `schedule resume`. A turn under way goes on."""
    from metalimmu.service.runs import who
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers import turns

    opened = OpenSite(site)
    turns.state(opened, name)
    opened.store.triggers.pause_schedule(name, reason, who())
    click.echo(f"schedule {name} is paused")


@schedule.command()
@site_option
@click.argument("name")
def resume(site: Path, name: str) -> None:
    """End the pause of schedule NAME. What was due meanwhile is not caught up."""
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers import turns

    opened = OpenSite(site)
    turns.state(opened, name)
    opened.store.triggers.resume_schedule(name)
    click.echo(f"schedule {name} goes on")


@schedule.command(hidden=True)
@site_option
@click.argument("name")
@click.argument("due", type=float)
def turn(site: Path, name: str, due: float) -> None:
    """Run the claimed turn of schedule NAME: what `serve` starts as a process of its own."""
    from metalimmu.errors import NotFound
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers import turns

    opened = OpenSite(site)
    found = next((t for t in opened.store.triggers.turns(name, unfinished=True) if t.due == due), None)
    if found is None:
        raise NotFound(f"schedule {name} has no unfinished turn of {due}", hint="`metalimmu schedule list`")
    _say(turns.run(opened, found))


def _progress(progress: Progress) -> None:
    if progress.done == progress.total or progress.done % 100 == 0:
        click.echo(f"{progress.done} of {progress.total} hosts read", err=True)


def _say(scan: ScanRecord | None) -> None:
    if scan is not None:
        states = scan.counts.get("states", {})
        click.echo(f"scan {scan.id}: " + ", ".join(f"{n} {state}" for state, n in states.items()))
