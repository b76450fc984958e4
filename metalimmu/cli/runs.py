"""`run list | show | watch | pause | cancel | resume`, of runs and of rollouts (`o-…`), and `history`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit, output_option, site_option

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite
    from metalimmu.store.rollout_records import RolloutRecord


def when(moment: float | None) -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment)) if moment else "-"


@click.group()
def run() -> None:
    """Runs: one execution of a workflow each; and rollouts (o-…), which are runs over many hosts."""


@run.command("list")
@site_option
@click.option("--host", help="Only this host's.")
@click.option("--limit", default=20, show_default=True)
@output_option
def list_(site: Path, host: str | None, limit: int, fmt: str) -> None:
    """List runs and rollouts, the newest first."""
    from metalimmu.service.site import OpenSite

    store = OpenSite(site).store
    rows: list[dict[str, Any]] = [
        {
            "id": r.id,
            "verb": r.verb,
            "host": r.host,
            "status": str(r.status),
            "at": r.created,
            "created": when(r.created),
            "seconds": r.finished - r.started if r.finished and r.started else None,
            "by": r.options.get("by"),
            "error": r.error.message if r.error else "",
        }
        for r in store.runs(host=host, limit=limit)
    ]
    if host is None:
        rows += [
            {
                "id": o.id,
                "verb": o.verb,
                "host": f"{sum(store.rollouts.counts(o.id).values())} hosts",
                "status": str(o.state),
                "at": o.created,
                "created": when(o.created),
                "seconds": o.finished - o.created if o.finished else None,
                "by": o.by,
                "error": o.reason,
            }
            for o in store.rollouts.find(limit=limit)
        ]
    rows = sorted(rows, key=lambda r: r.pop("at"), reverse=True)[:limit]
    columns = ["id", "verb", "host", "status", "created", "seconds", "error"]
    emit(rows, columns, fmt, name="id", wide=["by"], shows={"seconds": "{:.0f}".format})


@run.command()
@site_option
@click.argument("run_id")
@output_option
def show(site: Path, run_id: str, fmt: str) -> None:
    """Show a run: its steps, how long each took, and its evidence (-o json: all of it). Of a rollout: its timeline."""
    import msgspec

    from metalimmu.cli.watch import summary
    from metalimmu.service.rollouts import find
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    if rollout := find(opened, run_id):
        _show_rollout(opened, rollout, fmt)
        return
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


def _show_rollout(site: OpenSite, rollout: RolloutRecord, fmt: str) -> None:
    import msgspec

    from metalimmu.cli.rollout_watch import timeline

    if fmt in ("json", "yaml"):
        hosts = [msgspec.to_builtins(r) for r in site.store.rollouts.hosts(rollout.id)]
        emit([{**msgspec.to_builtins(rollout), "hosts": hosts}], [], fmt)
    else:
        timeline(site, rollout)


@run.command()
@site_option
@click.argument("run_id")
def watch(site: Path, run_id: str) -> None:
    """Follow a run or a rollout that another process executes."""
    from metalimmu.cli import rollout_watch
    from metalimmu.cli import watch as run_watch
    from metalimmu.errors import StepFailed
    from metalimmu.service.rollouts import find
    from metalimmu.service.runs import nobody_works
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)

    def tick() -> None:
        if nobody_works(opened):
            raise StepFailed(
                f"nobody executes run {run_id}: its worker is gone",
                hint=f"`metalimmu run resume {run_id}` goes on with it",
            )

    if find(opened, run_id):
        rollout_watch.follow(opened, run_id, tick=tick)
        rollout_watch.ended(opened, run_id)
    else:
        run_watch.follow(opened, run_id, tick=tick)
        run_watch.ended(opened, run_id)


@run.command()
@site_option
@click.argument("rollout_id")
@click.option("--reason", default="", metavar="TEXT", help="Shown to who looks at it.")
def pause(site: Path, rollout_id: str, reason: str) -> None:
    """Begin no more hosts of a rollout; those under way are finished."""
    from metalimmu.errors import UsageError
    from metalimmu.service import rollouts
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    if rollouts.find(opened, rollout_id) is None:
        raise UsageError(f"{rollout_id} is a run of one host, and has nothing to pause", hint="`run cancel` ends it")
    rollouts.pause(opened, rollout_id, reason)
    click.echo(f"{rollout_id} is paused; `metalimmu run resume {rollout_id}` goes on")


@run.command()
@site_option
@click.argument("run_id")
def cancel(site: Path, run_id: str) -> None:
    """End a run at its next safe point: media is ejected, the override cleared, a touched host goes into quarantine.

    Of a rollout no host is begun any more: those that are being written are finished, the others stay as they are.
    """
    from metalimmu.cli.reimage import work
    from metalimmu.service import rollouts, runs
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    if rollouts.find(opened, run_id):
        rollouts.cancel(opened, run_id)
        click.echo(f"cancel of {run_id} is asked; what is being written is finished")
        work(opened, run_id, cancelled=True)
        return
    record = runs.cancel(opened, run_id)
    click.echo(f"cancel of run {record.id} of {record.host} is asked")
    work(opened, run_id)


@run.command()
@site_option
@click.argument("run_id")
def resume(site: Path, run_id: str) -> None:
    """Go on with a run that was interrupted or whose controller died; with a rollout also where it stopped."""
    from metalimmu.cli.reimage import work
    from metalimmu.service import rollouts, runs
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    if rollouts.find(opened, run_id):
        rollouts.resume(opened, run_id)
    else:
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
