"""`doctor`: what is wrong around a controller."""

from __future__ import annotations

from pathlib import Path

import click

from metalimmu.cli.output import emit, output_option, site_option

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "blue"}


@click.command()
@site_option
@click.option("--all", "every", is_flag=True, help="Also what is in order, in a table.")
@output_option
def doctor(site: Path, every: bool, fmt: str) -> None:
    """Look at ports, addresses, network boot, clock, certificates, disks, secrets, programs and databases; change nothing.

    Each finding says what to do. Exit status 1: something fails.
    """
    from collections import Counter

    from metalimmu.service.doctor.examine import examine
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    try:
        checks = list(examine(opened))
    finally:
        opened.close()
    rows = [{"check": c.name, "verdict": str(c.verdict), "what": c.what, "hint": c.hint} for c in checks]
    counts = Counter(str(c.verdict) for c in checks)
    if fmt in ("json", "yaml", "name"):
        emit(rows, [], fmt, name="check")
    else:
        emit([r for r in rows if every or fmt == "wide" or r["verdict"] != "ok"], ["verdict", "check", "what"], fmt)
        for row in rows:
            if row["hint"]:
                click.echo(f"\n{click.style(row['check'], fg=_COLOURS[row['verdict']], bold=True)}: {row['hint']}")
        said = ", ".join(f"{counts[v]} {v}" for v in _COLOURS if counts[v])
        click.echo(f"\n{said}" + ("" if every or fmt == "wide" else "; --all shows those that are ok"))
    if counts["fail"]:
        raise click.exceptions.Exit(1)
