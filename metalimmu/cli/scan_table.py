"""What a person reads after a scan: drift by cause, who could not be read and why, and one line that sums it up."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

import click

from metalimmu.cli.output import emit
from metalimmu.desired.units import counted
from metalimmu.plan.causes import Cause, grouped
from metalimmu.plan.outliers import SMALL, GroupReport
from metalimmu.service.scans.drift import drifts
from metalimmu.service.scans.formats import cell, page, plain, summary
from metalimmu.service.scans.outliers import few, name, rows

if TYPE_CHECKING:
    from metalimmu.service.scans.result import ScanResult
    from metalimmu.service.site import OpenSite

MOST_CAUSES = 40
_SMALL_SHOWN = 10


def print_scan(site: OpenSite, result: ScanResult, out: TextIO) -> None:
    causes = grouped(d for d in drifts(site, hosts=result.hosts) if not d.stale and not d.waived)
    if causes:
        table([cause_row(c) for c in causes[:MOST_CAUSES]], CAUSE_COLUMNS, out)
        if len(causes) > MOST_CAUSES:
            more = sum(len(c.drifts) for c in causes[MOST_CAUSES:])
            rest = counted(len(causes) - MOST_CAUSES, "cause")
            click.echo(f"... and {rest} more with {counted(more, 'finding')}: `metalimmu drift`", out)
        click.echo("", out)
    print_unread(result, out)
    click.echo(total(result), out)
    bare = result.counts.states.get("no-profile", 0)
    if bare:
        click.echo(
            f"{counted(bare, 'host')} without a profile: `metalimmu profile capture HOST` writes one from a good machine",
            out,
        )


CAUSE_COLUMNS = ("severity", "setting", "expected", "actual", "hosts", "which", "by")


def cause_row(cause: Cause) -> dict[str, Any]:
    one = cause.drifts[0]
    before = f"{cause.before} -> " if cause.before is not None and cause.before != cause.actual else ""
    word = "" if one.word in ("differs", cause.actual) else f" ({one.word})"
    return {
        "severity": cause.severity,
        "setting": cause.setting,
        "expected": cause.expected,
        "actual": f"{before}{cause.actual}{word}".strip(),
        "hosts": len(cause.hosts),
        "which": few(cause.hosts),
        "by": cause.blame,
    }


def print_unread(result: ScanResult, out: TextIO) -> None:
    """One line for each reason, however many hosts it has."""
    for unread in result.unread():
        whole = "all" if unread.hosts == len(result.hosts) else f"{unread.hosts:,}"
        click.echo(
            f"unknown: {whole} of {len(result.hosts):,} hosts ({few_of(unread.examples, unread.hosts)}): "
            f"{plain(unread.message)}",
            out,
        )
        if unread.hint:
            click.echo(f"  hint:  {plain(unread.hint)}", out)
    if partly := result.partly():
        what = "of what their profiles ask for, a part could not be read: `-o json` says which"
        click.echo(f"unknown: {counted(len(partly), 'host')} ({few(partly)}): {what}", out)


def few_of(examples: Iterable[str], count: int) -> str:
    shown = list(examples)
    return ", ".join(shown) + (f" and {count - len(shown):,} more" if count > len(shown) else "")


def total(result: ScanResult) -> str:
    """`120 hosts: 100 match, 15 drift (2 critical, 30 warning; 1 waived), 5 unknown; 3 new, 1 fixed. Scan s-..., 42 s`"""
    counts, record = result.counts, result.record
    states = [
        f"{counts.states[s]:,} {s}"
        for s in ("match", "drift", "waived", "no-profile", "unknown")
        if counts.states.get(s)
    ]
    by = [f"{result.severities[s]:,} {s}" for s in ("critical", "warning", "info") if result.severities.get(s)]
    inside = ", ".join(by) + (f"; {result.waived:,} waived" if result.waived else "")
    text = f"{counted(record.hosts, 'host')}: {', '.join(states) or 'nothing was read'}"
    text += f". Findings that are drift: {inside.removeprefix('; ')}" if inside else ""
    text += f". New: {counts.new:,}, fixed: {counts.fixed:,}" if counts.new or counts.fixed else ""
    seconds = (record.finished or record.created) - record.created
    return f"{text}. Scan {record.id}, {seconds:.0f} s, {counted(counts.requests, 'request')}."


def table(found: list[dict[str, Any]], columns: Iterable[str], out: TextIO) -> None:
    emit(found, list(columns), "table", name="setting", out=out)


GROUP_COLUMNS = ("group", "setting", "hosts", "value", "majority", "of", "which")


def print_groups(result: ScanResult, groups: list[GroupReport], out: TextIO, fmt: str = "table") -> None:
    """What a scan without profiles tells: groups of like machines, and who is not like the others."""
    found = rows(groups)
    if fmt == "json":
        data = {**summary(result), "groups": [_group(g) for g in groups], "outliers": found}
        click.echo(json.dumps(data, indent=2, ensure_ascii=False), out)
        return
    if fmt == "html":
        page(out, result, GROUP_COLUMNS, found)
        return
    if fmt == "csv":
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(GROUP_COLUMNS)
        writer.writerows([cell(r[c]) for c in GROUP_COLUMNS] for r in found)
        return
    for group in groups:
        if not group.small:
            agree = "all alike" if not group.outliers and not group.splits else counted(len(group.outliers), "outlier")
            click.echo(f"{len(group.hosts):>6,}  {plain(name(group.group))}: {agree}", out)
    if small := [g for g in groups if g.small]:
        said = ", ".join(f"{plain(name(g.group))} ({len(g.hosts)})" for g in small[:_SMALL_SHOWN])
        more = f" and {len(small) - _SMALL_SHOWN} more" if len(small) > _SMALL_SHOWN else ""
        click.echo(f"fewer than {SMALL} alike, so nothing to compare with: {said}{more}", out)
    if found:
        click.echo("", out)
        table(found, GROUP_COLUMNS, out)
    click.echo("", out)
    print_unread(result, out)
    click.echo(total(result), out)


def _group(group: GroupReport) -> dict[str, Any]:
    g = group.group
    return {
        "make": g.make,
        "model": g.model,
        "generation": g.generation,
        "hosts": list(group.hosts),
        "small": group.small,
    }
