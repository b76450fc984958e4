"""`run list | show | watch | cancel | resume` and `history`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from metalimmu.cli.output import emit, output_option, site_option


def when(moment: float | None) -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment)) if moment else "-"


@click.group()
def run() -> None:
    """Runs: one execution of a workflow each."""


@run.command("list")
@site_option
@click.option("--host", help="Only this host's.")
@click.option("--limit", default=20, show_default=True)
@output_option
def list_(site: Path, host: str | None, limit: int, fmt: str) -> None:
    """List runs, the newest first."""
    from metalimmu.service.site import OpenSite

    rows = [
        {
            "id": r.id,
            "verb": r.verb,
            "host": r.host,
            "status": str(r.status),
            "created": when(r.created),
            "seconds": f"{r.finished - r.started:.0f}" if r.finished and r.started else "",
            "by": r.options.get("by"),
            "error": r.error.message if r.error else "",
        }
        for r in OpenSite(site).store.runs(host=host, limit=limit)
    ]
    emit(rows, ["id", "verb", "host", "status", "created", "seconds", "error"], fmt, name="id", wide=["by"])


@run.command()
@site_option
@click.argument("run_id")
@output_option
def show(site: Path, run_id: str, fmt: str) -> None:
    """Show a run: its steps, how long each took, and its evidence (-o json: all of it)."""
    import msgspec

    from metalimmu.cli.watch import summary
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    record = opened.store.run(run_id)
    if fmt in ("json", "yaml"):
        emit(
            [{**msgspec.to_builtins(record), "steps": [msgspec.to_builtins(s) for s in opened.store.steps(run_id)]}],
            [],
            fmt,
        )
        return
    click.echo(
        f"{record.id}: {record.verb} of {record.host}, {record.status}, begun {when(record.started)}, ended {when(record.finished)}"
    )
    summary(opened, record)
    if record.error:
        click.echo(f"\nerror: {record.error.message}\nhint:  {record.error.hint}")


@run.command()
@site_option
@click.argument("run_id")
def watch(site: Path, run_id: str) -> None:
    """Follow a run that another process executes."""
    from metalimmu.cli.watch import ended, follow
    from metalimmu.errors import StepFailed
    from metalimmu.service.runs import nobody_works
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)

    def tick() -> None:
        if nobody_works(opened):
            raise StepFailed(
                f"nobody executes run {run_id}: its worker is gone",
                hint=f"`metalimmu run resume {run_id}` goes on with it",
            )

    ended(opened, follow(opened, run_id, tick=tick))


@run.command()
@site_option
@click.argument("run_id")
def cancel(site: Path, run_id: str) -> None:
    """End a run at its next safe point: media is ejected, the override cleared, a touched host goes into quarantine."""
    from metalimmu.cli.reimage import work
    from metalimmu.service import runs
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    record = runs.cancel(opened, run_id)
    click.echo(f"cancel of run {record.id} of {record.host} is asked")
    work(opened, run_id)


@run.command()
@site_option
@click.argument("run_id")
def resume(site: Path, run_id: str) -> None:
    """Go on with a run that was interrupted or whose controller died."""
    from metalimmu.cli.reimage import work
    from metalimmu.service import runs
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    runs.resume(opened, run_id)
    work(opened, run_id)


@click.command()
@site_option
@click.argument("host")
@click.option("--limit", default=200, show_default=True, help="The newest so many.")
@output_option
def history(site: Path, host: str, limit: int, fmt: str) -> None:
    """Print what happened to HOST and what scans saw change on it, the newest last."""
    from metalimmu.service.scans.history import history as told
    from metalimmu.service.site import OpenSite

    rows = [{**r, "at": when(r["at"])} for r in told(OpenSite(site), host, limit)]
    emit(rows, ["at", "kind", "text"], fmt, name="at", wide=["run"])
