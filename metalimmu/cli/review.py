"""What merging found hosts into documents prints: for `discover --write` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metalimmu.log import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metalimmu.desired.merge import Change, Merged

MOST_LINES = 200


def place(site: Path | None, target: str) -> tuple[Path, str]:
    """Folder and file within it: of the site where there is one, else beside us."""
    path = Path(target)
    if site is not None and not path.is_absolute():
        return site, path.as_posix()
    return path.parent.resolve(), path.name


def say(merged: Merged, folder: Path, *, written: bool = True) -> None:
    """The changes, one per line, on standard error; what a person must decide comes last."""
    order = ("new", "filled", "duplicate", "by hand", "left out", "differs")
    lines = [_line(c) for kind in order for c in merged.changes if c.kind == kind]
    for line in lines[:MOST_LINES]:
        click.echo(redact(line), err=True)
    if len(lines) > MOST_LINES:
        click.echo(f"... and {len(lines) - MOST_LINES} more", err=True)
    click.echo(_summary(merged.changes), err=True)
    for file in merged.files:
        click.echo(f"{'wrote' if written else 'would write'} {folder / file}: review it, then commit", err=True)
    if not merged.files:
        click.echo("nothing to write: the documents say all of this already", err=True)


def _line(change: Change) -> str:
    at = f"{change.file}: " if change.file else ""
    if change.kind == "new":
        return f"new        {change.host} at {change.found}"
    if change.kind == "filled":
        return f"filled     {at}{change.host}.{change.field}: {change.found}"
    if change.kind == "differs":
        there = f"; the document says {change.there}" if change.there else ""
        why = f" ({change.why})" if change.why else ""
        return f"differs    {at}{change.host}.{change.field}: found {change.found}{there}{why}; left as it is"
    if change.kind == "by hand":
        return f"by hand    {at}{change.host}.{change.field}: {change.found} ({change.why})"
    also = f", as {change.there}" if change.there else ""
    return f"{change.kind:<10} {change.host} {change.found}{also}: {change.why}"


def _summary(changes: Iterable[Change]) -> str:
    hosts: dict[str, set[str]] = {}
    for change in changes:
        hosts.setdefault(change.kind, set()).add(change.host)
    return ", ".join(f"{len(names)} {kind}" for kind, names in hosts.items()) or "no host"
