"""`profile list | show | diff | lint | capture | coverage`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metalimmu.cli.output import emit, optional_site_option, output_option, site_option

if TYPE_CHECKING:
    from metalimmu.plan.lint import Report

_REMARK = ("severity", "file", "line", "field", "expected", "got", "write")


@click.group()
def profile() -> None:
    """Profiles: what firmware and settings machines must have."""


@profile.command("list")
@optional_site_option
@output_option
def list_(site: Path | None, fmt: str) -> None:
    """List the site's profiles and those that ship."""
    from metalimmu.service import profiles

    found = profiles.rows(site)
    if fmt in ("table", "wide"):
        match = [" ".join(f"{k}={v}" for k, v in (row["match"] or {}).items()) for row in found]
        found = [row | {"match": m} for row, m in zip(found, match, strict=True)]
    emit(found, ["name", "from", "match", "extends", "settings"], fmt, wide=["description", "file"])


@profile.command()
@optional_site_option
@click.argument("name")
@output_option
def show(site: Path | None, name: str, fmt: str) -> None:
    """Print what profile NAME (or file) asks for in the end, and which profile of its chain says so."""
    from metalimmu.service import profiles

    found = profiles.show(name, site)
    if fmt in ("json", "yaml"):
        emit([found], [], fmt)
        return
    if fmt != "name":
        click.echo(f"{' <- '.join(reversed(found['chain']))}\n", err=True)
    columns = ["setting", "expected", "severity", "owner", "from"]
    emit(found["settings"], columns, fmt, name="setting", wide=["because"])


@profile.command()
@optional_site_option
@click.argument("a")
@click.argument("b")
@output_option
def diff(site: Path | None, a: str, b: str, fmt: str) -> None:
    """Compare two profiles (names or files), setting by setting."""
    import msgspec

    from metalimmu.service import profiles

    found = [msgspec.to_builtins(d) for d in profiles.diff(a, b, site)]
    if not found and fmt in ("table", "wide"):
        click.echo(f"{a} and {b} ask for the same")
        return
    emit(found, ["setting", "change", "a", "b"], fmt, name="setting")


@profile.command()
@optional_site_option
@click.argument("file")
@click.option(
    "--against", metavar="RECORDING|HOST", help="A recorded machine, or a host of the site, which is read now."
)
@output_option
def lint(site: Path | None, file: str, against: str | None, fmt: str) -> None:
    """Check a profile: names, values, ranges, what is read-only or hidden, and the order of writing.

    Exit status: 0 no errors, 1 errors, 2 the document itself is wrong.
    """
    import msgspec

    from metalimmu.service import profiles

    report = profiles.lint(file, site, against)
    if fmt in ("json", "yaml"):
        emit([msgspec.to_builtins(report)], [], fmt)
    elif report.remarks:
        emit([msgspec.to_builtins(r) for r in report.remarks], _REMARK, fmt, name="field")
    _tell(report, against, fmt)
    if report.errors:
        click.get_current_context().exit(1)


def _tell(report: Report, against: str | None, fmt: str) -> None:
    from metalimmu.desired.units import counted

    if not against:
        click.echo(
            "the document has no errors; --against RECORDING|HOST checks it against a machine's registry", err=True
        )
        return
    count = f"{counted(report.checked, 'BIOS setting')} against {report.registry} of {against}"
    remarks = counted(len(report.remarks) - report.errors, "remark")
    click.echo(f"{count}: {counted(report.errors, 'error')}, {remarks}", err=True)
    if report.why_not:
        click.echo(f"wrong values are only remarked: {report.why_not}", err=True)
    if report.order.matters and fmt == "wide":
        click.echo(f"written in this order: {'; then '.join(', '.join(s) for s in report.order.steps)}", err=True)
    elif report.order.matters:
        click.echo(f"written in {len(report.order.steps)} steps, in an order that -o wide and -o json show", err=True)


@profile.command()
@optional_site_option
@click.argument("hosts", nargs=-1)
@click.option(
    "--from", "recordings", multiple=True, type=click.Path(path_type=Path), help="A recording; may be repeated."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file, which must be new."
)
@click.option("--now", is_flag=True, help="Read the hosts' BMCs now instead of taking the last scan's values.")
def capture(
    site: Path | None, hosts: tuple[str, ...], recordings: tuple[Path, ...], out: Path | None, now: bool
) -> None:
    """Write a profile of what HOSTS have in common; what differs is listed in comments. Identity is left out."""
    from metalimmu.errors import UsageError
    from metalimmu.service import profiles

    if out is not None and out.exists():
        raise UsageError(f"{out} is there already", hint="name a new file")
    found = profiles.captured(hosts, recordings, site, now=now)
    if found.unchecked:
        which = ", ".join(found.unchecked[:5])
        click.echo(f"no attribute registry of {which}: read-only attributes may be among the BIOS settings", err=True)
    if out is None:
        click.echo(found.text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("x", encoding="utf-8") as file:
        file.write(found.text)
    click.echo(f"wrote {out}; check it with `metalimmu profile lint {out} --against HOST`")


@profile.command()
@site_option
@click.argument("hosts", nargs=-1)
@click.option("-l", "--selector", metavar="KEY=VALUE,…", help="Labels, and pool, role, rack, model.")
@click.option("--trend", is_flag=True, help="Of the last scans of the whole site, or of exactly this -l.")
@click.option("--uncovered", is_flag=True, help="List the settings that no profile decides, and on which hosts.")
@output_option
def coverage(site: Path, hosts: tuple[str, ...], selector: str | None, trend: bool, uncovered: bool, fmt: str) -> None:
    """Print how many settings of each host a profile decides, as of the last scan."""
    from metalimmu.errors import UsageError
    from metalimmu.service import profiles
    from metalimmu.service.site import OpenSite

    if trend and (hosts or uncovered):
        raise UsageError("--trend is of whole scans", hint="leave the hosts and --uncovered out; -l names a selection")
    opened = OpenSite(site)
    if trend:
        _trend(profiles.trend(opened, selector), fmt)
        return
    found = profiles.coverage_rows(opened, hosts, selector)
    if not found and fmt in ("table", "wide"):
        click.echo("none of these hosts was scanned yet: `metalimmu scan` first", err=True)
    if uncovered:
        emit(profiles.uncovered(found), ["setting", "hosts", "which"], fmt, name="setting")
        return
    sections = ["bios", "firmware", "boot", "secure_boot", "bmc", "hardware"]
    emit(found, ["host", "profile", "covered", "settings", "percent"], fmt, name="host", wide=sections)


def _trend(found: list[dict[str, Any]], fmt: str) -> None:
    from metalimmu.cli.runs import when

    if fmt in ("table", "wide"):
        found = [row | {"at": when(row["at"])} for row in found]
        if not found:
            click.echo(
                "no scan of just these hosts has ended: a trend is of `metalimmu scan` with the same -l", err=True
            )
    emit(found, ["at", "percent", "covered", "settings", "read", "hosts"], fmt, name="scan", wide=["scan"])
