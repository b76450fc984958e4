"""How commands print: one function for all formats, and the options they share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("table", "wide", "json", "yaml", "name")


def output_option(function: F) -> F:
    """`-o/--output`: how to print. Passed as `fmt`."""
    return click.option("-o", "--output", "fmt", type=click.Choice(FORMATS), default="table", help="How to print.")(
        function
    )


def site_option(function: F) -> F:
    """`--site DIR`, also after the verb. Passed as `site`: the folder with site.yaml."""

    def chosen(ctx: click.Context, _param: click.Parameter, value: str | None) -> Path:
        return find_site(value or (ctx.find_root().params.get("site")))

    return click.option(
        "--site", "site", metavar="DIR", callback=chosen, help="Folder with site.yaml (METALIMMU_SITE)."
    )(function)


def optional_site_option(function: F) -> F:
    """`--site DIR` for what works without a site too. Passed as `site`: the folder with site.yaml, or None."""

    def chosen(ctx: click.Context, _param: click.Parameter, value: str | None) -> Path | None:
        from metalimmu.errors import UsageError

        given = value or ctx.find_root().params.get("site")
        try:
            return find_site(given)
        except UsageError:
            if given:
                raise
            return None

    return click.option(
        "--site",
        "site",
        metavar="DIR",
        callback=chosen,
        help="Folder with site.yaml, if there is one (METALIMMU_SITE).",
    )(function)


def find_site(given: str | None) -> Path:
    """The folder named, or the nearest one upwards that has a site.yaml. Raises UsageError."""
    from metalimmu.errors import UsageError

    if given:
        if not (Path(given) / "site.yaml").is_file():
            raise UsageError(f"{given} has no site.yaml", hint=f"`metalimmu init {given}` makes a site")
        return Path(given).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "site.yaml").is_file():
            return folder
    raise UsageError(
        "no site.yaml here or above", hint="`metalimmu init DIR` makes a site; --site DIR or METALIMMU_SITE names one"
    )


def emit(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    fmt: str,
    *,
    name: str = "name",
    wide: Sequence[str] = (),
    shows: Mapping[str, Callable[[Any], str]] | None = None,
    out: TextIO | None = None,
) -> None:
    """Print rows. `columns` are the table's; `wide` has more for -o wide; json and yaml print all of each row. `shows`: how
    a table words what programs read as it is, such as bytes. `out` is standard output unless given.
    """
    from metalimmu.log import redacted

    if fmt == "json":
        click.echo(json.dumps(redacted(list(rows)), indent=2, ensure_ascii=False), out)
    elif fmt == "yaml":
        import yaml

        click.echo(yaml.safe_dump(redacted(list(rows)), sort_keys=False, allow_unicode=True), out, nl=False)
    elif fmt == "name":
        for row in rows:
            click.echo(str(row[name]), out)
    else:
        worded = [_worded(row, shows or {}) for row in rows]
        _table(worded, [*columns, *(wide if fmt == "wide" else ())], out or sys.stdout)


def _worded(row: dict[str, Any], shows: Mapping[str, Callable[[Any], str]]) -> dict[str, Any]:
    return {k: shows[k](v) if k in shows and v is not None else v for k, v in row.items()}


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str], out: TextIO) -> None:
    """Plain aligned text: it can be cut and grepped, and costs nothing to import. Control characters of a BMC are made visible."""
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) if cells else len(c) for i, c in enumerate(columns)]
    head = "  ".join(c.upper().replace("_", " ").ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip()
    click.echo(click.style(head, bold=True) if out.isatty() else head, out)
    for line in cells:
        click.echo("  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip(), out)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ",".join(_cell(v) for v in value) or "-"
    return "".join(ch if ch.isprintable() else f"\\x{ord(ch):02x}" for ch in str(value))
