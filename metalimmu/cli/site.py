"""`init`, `check`, `schema`: begin a site, see whether its documents are right, help editors to write them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from metalimmu.cli.output import emit, output_option, site_option

_COLUMNS = ("file", "line", "field", "expected", "got", "write")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write a small commented site into DIR. Files that are there stay as they are."""
    from metalimmu.desired.starter import write_site

    written, kept = write_site(folder)
    for name in written:
        if not name.startswith(".schema/"):
            click.echo(f"wrote {folder / name}")
    for name in kept:
        click.echo(f"kept  {folder / name}: it was there")
    click.echo(f"Next: edit {folder / 'site.yaml'} and {folder / 'hosts'}, then `metalimmu check --site {folder}`")


@click.command()
@site_option
@output_option
def check(site: Path, fmt: str) -> None:
    """Check every document of the site and render every host's config. Touches no machine. Exit status 2: problems."""
    import msgspec

    from metalimmu.desired.check import check as check_site
    from metalimmu.errors import SiteError

    report = check_site(site)
    if fmt in {"json", "yaml"}:
        emit([msgspec.to_builtins(p) for p in report.problems], _COLUMNS, fmt)
    else:
        for problem in report.problems:
            click.echo(problem.file if fmt == "name" else str(problem))
    for remark in report.remarks:
        click.echo(click.style("warning: ", fg="yellow", bold=True) + remark, err=True)
    if report.problems:
        count = "1 problem" if len(report.problems) == 1 else f"{len(report.problems)} problems"
        raise SiteError(f"{count} in the site {site}")
    if fmt in {"table", "wide"}:
        click.echo(f"{_count(report.hosts, 'host')}, {_count(report.roles, 'role')}: no errors")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@click.command()
@click.argument("document", default="site")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def schema(document: str, out: Path | None) -> None:
    """Print the JSON Schema of DOCUMENT: site (default), host, hosts, role, pool, profile, holds, waivers or lock."""
    from metalimmu.desired.schema import schema as schema_of

    text = json.dumps(schema_of(document), indent=2)
    if out is None:
        click.echo(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
