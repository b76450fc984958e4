"""`report` and `metrics`: the last scans for people, and for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from metalimmu.cli.output import site_option


@click.command()
@site_option
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option(
    "-l", "--selector", metavar="KEY=VALUE,…", help="Labels, and pool, role, rack, model, image, state, proof."
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
def report(site: Path, hosts: tuple[str, ...], selector: str | None, out: Path) -> None:
    """Write a report as one HTML file: the fleet by state, what drifted, since when, outliers, coverage.

    It is about the named hosts, those of the selector, or all. Nothing is read from a BMC.
    """
    from metalimmu.service.report import html
    from metalimmu.service.site import OpenSite

    text = html(OpenSite(site), hosts=hosts or None, selector=selector)
    out.write_text(text, encoding="utf-8")
    click.echo(f"wrote {out}")


@click.command()
@site_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write them to this file, all or nothing.")
def metrics(site: Path, out: Path | None) -> None:
    """Print the metrics of the last scans, for Prometheus (`metalimmu serve` serves them)."""
    from metalimmu.service.metrics import text, write
    from metalimmu.service.site import OpenSite
    from metalimmu.triggers.news import collected

    content = text(collected(OpenSite(site)))
    if out is None:
        click.echo(content, nl=False)
    else:
        write(out, content)
