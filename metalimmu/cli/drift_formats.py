"""Drift for other programs: CSV, JUnit, and the page for people; and whether it is bad enough to fail."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from metalimmu.desired.profile import Severity
    from metalimmu.plan.causes import Drift
    from metalimmu.service.scans.result import MaxUnknown
    from metalimmu.service.site import OpenSite


def write_csv(rows: Sequence[dict[str, Any]], out: TextIO) -> None:
    """RFC 4180. A column per field; lists are joined by blanks."""
    from metalimmu.service.scans.formats import cell

    if rows:
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([cell(" ".join(v) if isinstance(v, list) else v) for v in row.values()])


def write_junit(found: Sequence[Drift], hosts: Collection[str], out: TextIO) -> None:
    """One suite per host, a case per drift; a host without any has one case that passes. Waived is skipped."""
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="metalimmu drift">\n')
    holding = sorted((d for d in found if d.fixed_at is None), key=lambda d: (d.host, d.setting))
    for host, drifts in groupby(holding, key=lambda d: d.host):
        _suite(out, host, list(drifts))
    for host in sorted(set(hosts) - {d.host for d in holding}):
        out.write(f'  <testsuite name={_attr(host)} tests="1" failures="0" errors="0" skipped="0">\n')
        out.write(f'    <testcase classname={_attr(host)} name="drift"/>\n  </testsuite>\n')
    out.write("</testsuites>\n")


def _suite(out: TextIO, host: str, drifts: list[Drift]) -> None:
    waived = sum(1 for d in drifts if d.waived)
    counts = f'tests="{len(drifts)}" failures="{len(drifts) - waived}" errors="0" skipped="{waived}"'
    out.write(f"  <testsuite name={_attr(host)} {counts}>\n")
    for d in drifts:
        said = f"{d.word}: expected {d.expected}, got {d.actual or 'nothing'}" + (f" ({d.reason})" if d.reason else "")
        kind = f"<skipped message={_attr(d.waived)}/>" if d.waived else f"<failure message={_attr(said)}/>"
        out.write(f"    <testcase classname={_attr(host)} name={_attr(d.setting)}>{kind}</testcase>\n")
    out.write("  </testsuite>\n")


def _attr(text: str) -> str:
    from metalimmu.log import redact
    from metalimmu.service.scans.formats import plain

    return quoteattr(redact(plain(text)))


def status(
    site: OpenSite,
    found: Sequence[Drift],
    hosts: Collection[str],
    *,
    fail_on: Severity,
    limit: MaxUnknown | None,
) -> int:
    """0, 3 (drift that holds, of `fail_on` or worse, not waived) or 4 (more hosts unknown than `limit`; wins)."""
    from metalimmu.desired.profile import SEVERITIES
    from metalimmu.plan.waivers import Waivers
    from metalimmu.service.scans.result import DRIFTED, NO_DRIFT, TOO_MANY_UNKNOWN, states

    if limit is not None:
        known = states(site.store, hosts, Waivers(site.docs.waivers))
        if limit.exceeded(sum(1 for h in hosts if known.get(h, "unknown") == "unknown"), len(hosts)):
            return TOO_MANY_UNKNOWN
    bad = SEVERITIES[SEVERITIES.index(fail_on) :]
    return DRIFTED if any(d.severity in bad and not d.waived and d.fixed_at is None for d in found) else NO_DRIFT
