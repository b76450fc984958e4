"""`drift`, `drift show | accept | export`: what scans have found, without asking any BMC."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from metalimmu.cli.output import emit, find_site, optional_site_option, output_option, site_option
from metalimmu.cli.scan import FAIL_ON, SEVERITIES, to_file

if TYPE_CHECKING:
    from metalimmu.plan.causes import Drift
    from metalimmu.service.scans.drift import Life
    from metalimmu.service.site import OpenSite

_FORMATS = ("table", "wide", "json", "yaml", "name", "csv", "html", "junit")
# A page, and a list of tests, have groups of their own; a page is about what holds now.
_NOT_WITH = {"html": ("since", "group_by"), "junit": ("group_by",)}
_SELECTOR = "Only these hosts: labels, pool, role, rack, model, ..."


@click.group(invoke_without_command=True)
@optional_site_option
@click.option("-l", "--selector", metavar="KEY=VALUE,...", help=_SELECTOR)
@click.option("--since", metavar="7d", help="What began since then, and what was fixed since then.")
@click.option("--group-by", type=click.Choice(["cause", "setting", "host"]), help="One line for what belongs together.")
@click.option("--fail-on", type=click.Choice(SEVERITIES), default="info", show_default=True, help=FAIL_ON)
@click.option("--max-unknown", metavar="N|N%", help="Exit with 4 where more hosts than that could not be read.")
@click.option("-o", "--output", "fmt", type=click.Choice(_FORMATS), default="table", help="How to print.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.pass_context
def drift(ctx: click.Context, /, site: Path | None, out: Path | None, fmt: str, **options: Any) -> None:
    """Print what differs from the profiles, by what the last scans have read.

    A cause is one setting that went from the same value to the same value at the same time, by the same account or event.
    Exit status: 0 no drift, 3 drift of --fail-on or worse that is not waived, 4 more unknown hosts than --max-unknown.
    """
    from metalimmu.errors import UsageError

    if ctx.invoked_subcommand:
        return
    ignored = [f"--{name.replace('_', '-')}" for name in _NOT_WITH.get(fmt, ()) if options[name]]
    if ignored:
        said = f"{' and '.join(ignored)} cannot be with -o {fmt}"
        raise UsageError(said, hint="leave it out, or print it as table, json or csv")
    with to_file(out) as stream:
        code = _drift(find_site(str(site) if site else None), fmt, stream, **options)
    if code:
        raise click.exceptions.Exit(code)


def _drift(
    site: Path,
    fmt: str,
    out: TextIO,
    *,
    selector: str | None,
    since: str | None,
    group_by: Any,
    fail_on: Any,
    max_unknown: str | None,
) -> int:
    """The exit status."""
    from metalimmu.cli import drift_formats
    from metalimmu.plan.causes import grouped
    from metalimmu.service.scans.drift import drifts, hosts_of
    from metalimmu.service.scans.result import max_unknown as parsed
    from metalimmu.service.site import OpenSite

    limit = parsed(max_unknown) if max_unknown else None
    opened = OpenSite(site)
    hosts = hosts_of(opened, None, selector)
    found = sorted(drifts(opened, hosts=hosts, since=_since(since)), key=lambda d: (d.host, d.setting, d.since))
    if fmt == "html":
        from metalimmu.service.report import html

        out.write(html(opened, hosts=sorted(hosts), selector=selector))
    elif fmt == "junit":
        drift_formats.write_junit(found, hosts, out)
    elif group_by:
        _causes(grouped(found, group_by), group_by, fmt, out)
    elif fmt == "csv":
        drift_formats.write_csv([_row(d) for d in found], out)
    else:
        columns = ["host", "severity", "setting", "word", "expected", "actual", "since", "state"]
        wide = ["before", "by", "seen", "owner", "profile", "reason"]
        emit([_row(d) for d in found], columns, fmt, name="host", wide=wide, out=out)
    if not found and fmt in ("table", "wide"):
        click.echo(_why_none(opened, hosts), err=True)
    return drift_formats.status(opened, found, hosts, fail_on=fail_on, limit=limit)


def _why_none(site: OpenSite, hosts: Collection[str]) -> str:
    states = {h.state for h in site.store.known_hosts(hosts)}
    if not states:
        return "none of these hosts was scanned yet: `metalimmu scan`"
    if states <= {"no-profile", "unknown"}:
        return (
            "no host here has a profile to drift from: `metalimmu profile capture HOST` writes one from a good machine"
        )
    return "no drift is known of these hosts; `metalimmu scan` looks again"


def _since(text: str | None) -> float | None:
    """`7d`, `12h`, or a day as YYYY-MM-DD. Raises UsageError."""
    from datetime import UTC, datetime

    from metalimmu.desired import units
    from metalimmu.errors import UsageError

    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - units.seconds(text)
    except (ValueError, KeyError, IndexError) as exc:
        raise UsageError(f"--since {text!r} is no time", hint="write 7d, 12h, 30m or 2027-03-31") from exc


def _row(d: Drift) -> dict[str, Any]:
    from metalimmu.cli.runs import when

    return {
        "host": d.host,
        "severity": d.severity,
        "setting": d.setting,
        "word": d.word,
        "expected": d.expected,
        "actual": d.actual,
        "since": when(d.since),
        "state": _state(d),
        "seen": when(d.seen),
        "fixed": when(d.fixed_at) if d.fixed_at else None,
        "before": d.before,
        "by": d.blame,
        "waived": d.waived,
        "owner": d.owner,
        "profile": d.profile,
        "reason": d.reason,
        "source": d.source,
    }


def _state(d: Drift) -> str:
    from metalimmu.cli.runs import when

    if d.fixed_at:
        return f"fixed {when(d.fixed_at)}"
    if d.waived:
        return f"waived {d.waived}"
    return f"not read since {when(d.seen)}" if d.stale else ""


def _causes(causes: list[Any], by: str, fmt: str, out: TextIO) -> None:
    from metalimmu.cli.drift_formats import write_csv
    from metalimmu.cli.runs import when
    from metalimmu.service.scans.outliers import few

    rows = [
        {
            "cause": c.title,
            "severity": c.severity,
            "hosts": len(c.hosts),
            "findings": len(c.drifts),
            "first": when(c.first),
            "last": when(c.last),
            "by": c.blame,
            "which": few(c.hosts),
            "all": list(c.hosts),
        }
        for c in causes
    ]
    columns = ["hosts", "severity", "cause", "first", "which"]
    if by == "host":
        columns = ["cause", "severity", "findings", "first", "last"]
    if fmt == "csv":
        write_csv(rows, out)
    else:
        emit(rows, columns, fmt, name="cause", wide=["last", "by"], out=out)


@drift.command()
@site_option
@click.argument("host")
@click.argument("setting")
@output_option
def show(site: Path, host: str, setting: str, fmt: str) -> None:
    """Print the life of a SETTING of HOST: each value, when it was first and last seen, who changed it, what was waived."""
    import msgspec

    from metalimmu.service.scans.drift import show as life_of
    from metalimmu.service.site import OpenSite

    life = life_of(OpenSite(site), host, setting)
    if fmt == "json":
        emit([msgspec.to_builtins(life)], [], fmt)
        return
    rows = sorted(_values(life) + _findings(life), key=lambda r: r["first seen"])
    if fmt in ("table", "wide"):
        click.echo(f"{host}: {life.setting}")
    emit(rows, ["first seen", "last seen", "what", "value", "detail"], fmt, name="value")
    for waiver, lapsed in life.waivers:
        state = f"no longer holds: {lapsed}" if lapsed else "holds"
        click.echo(
            f"waiver of {waiver.since or '-'} by {waiver.by or '-'} until {waiver.until} ({waiver.reason}) {state}"
        )
    for blame in life.blames:
        _quote(blame)


def _values(life: Life) -> list[dict[str, Any]]:
    from metalimmu.cli.runs import when
    from metalimmu.plan.values import text
    from metalimmu.service.scans.drift import blame_of

    blamed = {b.at: f"by {blame_of(b).words}: {b.why}" for b in life.blames}
    return [
        {
            "first seen": when(v.since),
            "last seen": when(v.seen),
            "what": "value",
            "value": text(v.value) if v.present else "(not there)",
            "detail": blamed.get(v.since, ""),
        }
        for v in life.values
    ]


def _findings(life: Life) -> list[dict[str, Any]]:
    from metalimmu.cli.runs import when
    from metalimmu.service.scans.drift import blame_of

    changed = {v.since for v in life.values}  # who did it is said there
    staged = {b.at: f"by {blame_of(b).words}: {b.why}" for b in life.blames if b.at not in changed}
    rows = []
    for f in life.findings:
        now = "" if f.fixed_at is None else f"{f.ended} {when(f.fixed_at)}"
        by = staged.get(f.first_seen, "")
        waived = f"waived {f.finding.waived}" if f.finding.waived and f.fixed_at is None else ""
        rows.append(
            {
                "first seen": when(f.first_seen),
                "last seen": when(f.last_seen),
                "what": str(f.finding.word),
                "value": f.finding.actual,
                "detail": "; ".join(
                    t for t in (f"expected {f.finding.expected}", waived, now, by, f.finding.reason) if t
                ),
            }
        )
    return rows


def _quote(blame: Any) -> None:
    from metalimmu.cli.runs import when
    from metalimmu.log import redact
    from metalimmu.service.scans.formats import plain

    for entry in blame.entries:
        account = f" [{plain(entry.account)}]" if entry.account else ""
        click.echo(f"  log {when(entry.at)}{account} {redact(plain(entry.message))}")


@drift.command()
@site_option
@click.option("-l", "--selector", metavar="KEY=VALUE,...", help=_SELECTOR)
@click.option("--host", "hosts", multiple=True, help="This host; may be given again.")
@click.argument("setting")
@click.option("--until", required=True, metavar="YYYY-MM-DD", help="Its last day, in UTC.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; a reader of waivers.yaml must understand it.")
def accept(site: Path, selector: str | None, hosts: tuple[str, ...], setting: str, until: str, reason: str) -> None:
    """Accept the drift of SETTING as it is now, until a day: writes waivers.yaml of the site.

    It is shown as waived until the day has passed or the value changes, and is drift from then on, whatever the value is.
    """
    from metalimmu.desired.units import counted
    from metalimmu.errors import UsageError
    from metalimmu.service.scans.accept import accept as waive
    from metalimmu.service.scans.drift import hosts_of
    from metalimmu.service.site import OpenSite

    if not hosts and not selector:
        raise UsageError("no host is named", hint="name hosts with --host, or select them with -l")
    opened = OpenSite(site)
    done = waive(opened, hosts_of(opened, hosts, selector), setting, until=until, reason=reason)
    for w in done.waivers:
        where = counted(len(w.hosts), "host")
        click.echo(f"{w.setting}: {w.actual or 'that it is missing'} is accepted on {where} until {w.until}")
    if done.left_out:
        click.echo(f"left out, as it does not differ there: {counted(done.left_out, 'host')}", err=True)
    click.echo(f"written: {site / 'waivers.yaml'}; commit it", err=True)


@drift.command()
@site_option
@click.option("-l", "--selector", metavar="KEY=VALUE,...", help=_SELECTOR)
@click.option("--as", "kind", type=click.Choice(["redfish-patch", "ansible"]), required=True, help="For whom.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
def export(site: Path, selector: str | None, kind: str, out: Path | None) -> None:
    """Print what would mend the BIOS settings that differ: bodies for Redfish, or an Ansible playbook. Sends nothing."""
    from metalimmu.service.scans import export as drift_export
    from metalimmu.service.scans.drift import hosts_of
    from metalimmu.service.site import OpenSite

    opened = OpenSite(site)
    found, left = drift_export.mends(opened, hosts_of(opened, None, selector))
    text = drift_export.redfish(found) if kind == "redfish-patch" else drift_export.ansible(found)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        click.echo(f"written: {out}", err=True)
    for line in (*(drift_export.remarks(found) if kind == "redfish-patch" else ()), *drift_export.left_out(left)):
        click.echo(line, err=True)
