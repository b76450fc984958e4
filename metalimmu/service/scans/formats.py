"""A scan's findings as csv, json, junit and html, written as they are read: a file of any size costs no memory.

What came from a BMC is text of strangers: control characters are made visible, XML and HTML are escaped, and a cell that
a spreadsheet would take for a formula is quoted.
"""

from __future__ import annotations

import csv
import html
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

import msgspec

from metalimmu.log import redact, redacted
from metalimmu.plan.types import DRIFT, Word
from metalimmu.service.scans.result import ScanResult
from metalimmu.store.scan_records import FindingRecord

COLUMNS = (
    "host",
    "setting",
    "word",
    "expected",
    "actual",
    "severity",
    "owner",
    "since",
    "seen",
    "stale",
    "waived",
    "reason",
    "profile",
    "source",
)
NOT_MATCH = frozenset(Word) - {Word.match}
_FORMULA = ("=", "+", "-", "@")  # https://owasp.org/www-community/attacks/CSV_Injection


def row(record: FindingRecord) -> dict[str, Any]:
    """One finding, flat; times as ISO 8601 in UTC."""
    f = record.finding
    return {
        "host": record.host,
        "setting": f.setting,
        "word": str(f.word),
        "expected": f.expected,
        "actual": f.actual,
        "severity": f.severity,
        "owner": f.owner,
        "since": iso(record.first_seen),
        "seen": iso(record.last_seen),
        "stale": record.stale,
        "waived": f.waived,
        "reason": f.reason,
        "profile": f.profile,
        "source": f.source,
    }


def summary(result: ScanResult) -> dict[str, Any]:
    """What is the same in all formats: the scan, its counts, who could not be read and why."""
    record, counts = result.record, result.counts
    return {
        "scan": record.id,
        "trigger": record.trigger,
        "scope": {k: v for k, v in record.scope.items() if v},
        "began": iso(record.created),
        "ended": iso(record.finished),
        "hosts": record.hosts,
        "states": counts.states,
        "findings": counts.words,
        "drift_by_severity": result.severities,
        "waived": result.waived,
        "new": counts.new,
        "fixed": counts.fixed,
        "requests": counts.requests,
        "unread": [msgspec.to_builtins(u) for u in result.unread()],
        "partly_unread": result.partly(),
    }


def iso(moment: float | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if moment else ""


def write(result: ScanResult, fmt: str, out: TextIO, *, matches: bool = False) -> None:
    """`fmt`: csv, json, junit or html. `matches`: findings that match too."""
    _WRITERS[fmt](result, out, matches)


def _found(result: ScanResult, matches: bool) -> Iterator[FindingRecord]:
    """By host."""
    return result.by_host(None if matches else NOT_MATCH)


def _json(result: ScanResult, out: TextIO, matches: bool) -> None:
    head = json.dumps(redacted(summary(result)), indent=2, ensure_ascii=False)
    out.write(head[:-2] + ',\n  "details": [')
    comma = "\n    "
    for record in _found(result, matches):
        out.write(comma + json.dumps(redacted(row(record)), ensure_ascii=False))
        comma = ",\n    "
    out.write("\n  ]\n}\n")


def _csv(result: ScanResult, out: TextIO, matches: bool) -> None:
    """RFC 4180."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for record in _found(result, matches):
        writer.writerow([cell(v) for v in row(record).values()])


def cell(value: Any) -> str:
    """For a spreadsheet: an apostrophe before what it would calculate."""
    shown = redact(plain(value))
    return f"'{shown}" if shown.startswith(_FORMULA) and not _number(shown) else shown


def plain(value: Any) -> str:
    """One line of printable text; what is not printable is made visible."""
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _junit(result: ScanResult, out: TextIO, matches: bool) -> None:
    """One suite per host, one case per finding: drift is a failure, unknown an error, waived is skipped."""
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="metalimmu scan">\n')
    seen: set[str] = set()
    for host, records in groupby(_found(result, matches), key=lambda r: r.host):
        seen.add(host)
        _suite(out, host, list(records))
    for unread in result.unread_hosts():
        failure = unread.failure
        message = failure.message if failure else "nothing could be read"
        seen.add(unread.host)
        out.write(f'  <testsuite name={_attr(unread.host)} tests="1" failures="0" errors="1" skipped="0">\n')
        out.write(
            f'    <testcase classname={_attr(unread.host)} name="read"><error message={_attr(message)}/></testcase>\n'
        )
        out.write("  </testsuite>\n")
    for host in sorted(result.hosts - seen):
        out.write(f'  <testsuite name={_attr(host)} tests="1" failures="0" errors="0" skipped="0">\n')
        out.write(f'    <testcase classname={_attr(host)} name="read"/>\n  </testsuite>\n')
    out.write("</testsuites>\n")


def _suite(out: TextIO, host: str, records: list[FindingRecord]) -> None:
    kinds = [_kind(r) for r in records]
    counts = " ".join(f'{name}="{kinds.count(kind)}"' for name, kind in _COUNTED)
    out.write(f'  <testsuite name={_attr(host)} tests="{len(records)}" {counts}>\n')
    for record, kind in zip(records, kinds, strict=True):
        f = record.finding
        said = f"{f.word}: expected {f.expected}, got {f.actual or 'nothing'}" + (f" ({f.reason})" if f.reason else "")
        detail = f"<{kind} message={_attr(f.waived if kind == 'skipped' else said)}/>" if kind else ""
        out.write(f"    <testcase classname={_attr(host)} name={_attr(f.setting)}>{detail}</testcase>\n")
    out.write("  </testsuite>\n")


_COUNTED = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))


def _kind(record: FindingRecord) -> str:
    f = record.finding
    if f.waived:
        return "skipped"
    return "failure" if f.word in DRIFT else "error" if f.word is Word.unknown else ""


def _attr(text: str) -> str:
    return quoteattr(redact(plain(text)))


def _html(result: ScanResult, out: TextIO, matches: bool) -> None:
    page(out, result, COLUMNS, (row(record) for record in _found(result, matches)))


def page(out: TextIO, result: ScanResult, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """One plain table of HTML; `metalimmu report` makes the page for people."""
    title = f"metalimmu scan {result.record.id}"
    out.write(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "th,td{border:1px solid #bbb;padding:.2em .5em;text-align:left;vertical-align:top}"
        "th{background:#eee;position:sticky;top:0}</style></head><body>\n"
    )
    out.write(f"<h1>{html.escape(title)}</h1>\n<table>\n")
    for name, value in summary(result).items():
        if value not in ([], {}, ""):
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
            out.write(f"<tr><th>{_text(name.replace('_', ' '))}</th><td>{_text(shown)}</td></tr>\n")
    out.write("</table>\n<p></p>\n<table>\n<tr>" + "".join(f"<th>{_text(c)}</th>" for c in columns) + "</tr>\n")
    out.writelines("<tr>" + "".join(f"<td>{_text(r[c])}</td>" for c in columns) + "</tr>\n" for r in rows)
    out.write("</table>\n</body></html>\n")


def _text(value: Any) -> str:
    return html.escape(redact(plain(value)))


_WRITERS: dict[str, Callable[[ScanResult, TextIO, bool], None]] = {
    "json": _json,
    "csv": _csv,
    "junit": _junit,
    "html": _html,
}
FORMATS = ("table", *_WRITERS)
