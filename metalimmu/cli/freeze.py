"""`freeze on | off | status`."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from metalimmu.cli.output import emit, output_option, site_option


@click.group()
def freeze() -> None:
    """Change nothing for a while: no host of it is begun, by whomever and whatever. What is under way is finished."""


@freeze.command()
@site_option
@click.option("-l", "--selector", metavar="KEY=VALUE,…", help="Only these hosts; without it the whole site.")
@click.option("--reason", required=True, metavar="TEXT", help="What others read who are refused.")
@click.option("--until", metavar="TIME", help="4h, or '2026-11-30 06:00' (UTC); without it until `freeze off`.")
def on(site: Path, selector: str | None, reason: str, until: str | None) -> None:
    """Begin a freeze."""
    from metalimmu.plan.guards import stamp
    from metalimmu.service import freezes
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    made = freezes.freeze(opened, reason=reason, selector=selector, until=_moment(until) if until else None)
    count, total = len(freezes.hosts_of(opened, made)), len(opened.docs.hosts)
    end = f"until {stamp(made.until)}" if made.until else "until `metalimmu freeze off`"
    click.echo(f"{made.id}: {count} of {total} hosts are frozen {end}")


@freeze.command()
@site_option
@click.argument("name", required=False, metavar="[FREEZE]")
@click.option("--all", "every", is_flag=True, help="All that hold.")
def off(site: Path, name: str | None, every: bool) -> None:
    """End a freeze. With several, say which."""
    from metalimmu.errors import UsageError
    from metalimmu.service import freezes
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    held = opened.store.rollouts.freezes()
    if name is None and len(held) > 1 and not every:
        raise UsageError(
            "there are several: " + ", ".join(f"{f.id} ({f.reason})" for f in held), hint="name one, or --all"
        )
    for ended in freezes.thaw(opened, name):
        click.echo(f"{ended.id} has ended: {ended.reason}")


@freeze.command()
@site_option
@click.option("--all", "every", is_flag=True, help="Those that have ended too.")
@output_option
def status(site: Path, every: bool, fmt: str) -> None:
    """List freezes."""
    from metalimmu.plan.guards import stamp
    from metalimmu.service import freezes
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    found = opened.store.rollouts.freezes(ended=every)
    rows = [
        {
            "id": f.id,
            "selector": f.selector or "the whole site",
            "hosts": len(freezes.hosts_of(opened, f)),
            "since": stamp(f.since),
            "until": stamp(f.until) if f.until else "",
            "by": f.by,
            "reason": f.reason,
            "ended": f"{stamp(f.ended)} by {f.ended_by}" if f.ended else "",
        }
        for f in found
    ]
    if not rows and fmt in ("table", "wide"):
        click.echo("nothing is frozen")
        return
    columns = ["id", "selector", "hosts", "since", "until", "by", "reason", *(["ended"] if every else [])]
    emit(rows, columns, fmt, name="id")


def _moment(text: str) -> float:
    """Seconds since 1970. Raises BadParameter."""
    import datetime as dt

    from metalimmu.desired.units import seconds

    if re.fullmatch(r"[0-9]{1,9}(s|m|h|d)", text):
        return time.time() + seconds(text)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time: write 4h, or '2026-11-30 06:00'") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
