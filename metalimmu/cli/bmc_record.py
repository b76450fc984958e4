"""`bmc record`: the answers of a real BMC in a folder, without what is nobody's business."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalimmu.cli.output import site_option

if TYPE_CHECKING:
    from metalimmu.bmc.record import Recorded


@click.command()
@site_option
@click.argument("host")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--most", type=click.IntRange(1, 100_000), default=10_000, show_default=True, help="Resources, at most.")
@click.option("--entries", type=click.IntRange(0), default=50, show_default=True, help="Kept of each log.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, help="Then it ends."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def record(site: Path, host: str, folder: Path, most: int, entries: int, minutes: float, quiet: bool) -> None:
    """Record the BMC of HOST into FOLDER, in DMTF's mockup format, reading only.

    Serial numbers, UUIDs, MAC and IP addresses, host and user names, places, certificates, keys and passwords are replaced: the
    same value by the same other value everywhere, with no way back. Look through the folder all the same before it goes out.
    """
    from metalimmu.service.record import record as recorded
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    try:
        made = recorded(
            opened,
            host,
            folder,
            most=most,
            entries=entries,
            seconds=minutes * 60,
            progress=None if quiet else _progress,
        )
    finally:
        opened.close()
    _say(made, quiet=quiet)


def _progress(read: int, left: int) -> None:
    click.echo(f"\r{read} read, {left} to read ", nl=False, err=True)


def _say(made: Recorded, *, quiet: bool) -> None:
    if not quiet:
        click.echo("\r", nl=False, err=True)
    whole = "" if made.complete else ", not complete: a limit was reached"
    click.echo(f"{made.resources} resources in {made.folder}{whole}; {made.seconds:.0f} s.")
    for kind, count in made.replaced.items():
        click.echo(f"  replaced: {count} {kind}")
    for uri, why in made.skipped[:5]:
        click.echo(f"  left out: {uri}: {why}")
    if len(made.skipped) > 5:
        click.echo(f"  and {len(made.skipped) - 5} more: see {made.folder / 'README'}")
    click.echo(f"Replay it: metalimmu lab fleet --bmcs 0 --recording {made.folder}")
