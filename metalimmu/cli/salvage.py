"""`salvage list | show | get | rm`: files of systems that were overwritten."""

from __future__ import annotations

from pathlib import Path

import click

from metalimmu.cli.output import emit, output_option, site_option

run_option = click.option("--run", metavar="RUN", help="Of this run; without it of the newest that saved anything.")


@click.group()
def salvage() -> None:
    """Files of old systems, saved before their disk was overwritten (`salvage:` of the role)."""


@salvage.command("list")
@site_option
@click.argument("host", required=False)
@output_option
def list_(site: Path, host: str | None, fmt: str) -> None:
    """List what was saved, the newest first."""
    from metalimmu.plan.guards import stamp
    from metalimmu.service.site import OpenSite

    found = OpenSite(site).store.salvages(host=host)
    rows = [
        {
            "host": r.host,
            "volume": r.name,
            "image": r.image,
            "bytes": r.bytes,
            "at": stamp(r.at),
            "run": r.run,
            "sha256": r.sha256,
        }
        for r in found
    ]
    if not rows and fmt in ("table", "wide"):
        click.echo("nothing was salvaged")
        return
    emit(rows, ["host", "volume", "image", "bytes", "at", "run"], fmt, wide=["sha256"], name="host")


@salvage.command()
@site_option
@click.argument("host")
@run_option
@output_option
def show(site: Path, host: str, run: str | None, fmt: str) -> None:
    """List the files in the archives of a host."""
    from metalimmu.plan.guards import stamp
    from metalimmu.service import salvages
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    rows = [
        {"volume": r.name, "file": f"/{f.name}", "bytes": f.size, "changed": stamp(f.mtime)}
        for r in salvages.find(opened, host, run)
        for f in salvages.files(opened, r)
        if f.isreg()
    ]
    emit(rows, ["volume", "file", "bytes", "changed"], fmt, name="file")


@salvage.command()
@site_option
@click.argument("host")
@run_option
@click.option("--out", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Where to; default: here.")
@click.option("--extract", is_flag=True, help="The files themselves, in DIR/HOST/VOLUME, instead of the archives.")
def get(site: Path, host: str, run: str | None, out: Path, extract: bool) -> None:
    """Copy the archives of a host."""
    from metalimmu.service import salvages
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    for record in salvages.find(opened, host, run):
        if extract:
            target = out / record.host / record.name
            click.echo(f"{target}: {salvages.extract(opened, record, target)} files")
        else:
            click.echo(salvages.take(opened, record, out))


@salvage.command()
@site_option
@click.argument("host")
@run_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(site: Path, host: str, run: str | None, yes: bool) -> None:
    """Remove the archives of a host's run for good."""
    from metalimmu.service import salvages
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    found = salvages.find(opened, host, run)
    names = ", ".join(r.name for r in found)
    if not yes:
        click.confirm(f"Remove {names} of {host} ({found[0].run})?", abort=True)
    for record in found:
        salvages.remove(opened, record)
    click.echo(f"removed: {names}")
