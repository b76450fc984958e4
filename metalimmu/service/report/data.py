"""What a report says, as plain data: built from the store, or by hand in a test, and rendered by page.py.

Texts from BMCs are as they came; the page escapes them. Lists are already bounded: their totals stand beside them.
Times are seconds since 1970 (UTC).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MOST_ROWS = 50  # rows of one table
MOST_NAMES = 200  # host names behind one row


class Names(msgspec.Struct, frozen=True):
    """Hosts: the first few, and how many there are."""

    first: tuple[str, ...] = ()
    total: int = 0


class ScanFacts(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    trigger: str
    started: float
    finished: float | None
    hosts: int
    requests: int = 0
    new: int = 0
    fixed: int = 0


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    states: dict[str, int]  # hosts by state
    findings: int = 0  # that are drift

    @property
    def hosts(self) -> int:
        return sum(self.states.values())


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One cause: the same value where the same other was expected."""

    word: str
    expected: str
    actual: str
    first_seen: float
    hosts: Names
    waived: str = ""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    severity: str
    owner: str = ""
    hosts: int = 0
    changes: tuple[Change, ...] = ()
    changes_total: int = 0


class Host(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    pool: str
    findings: int
    worst: str  # severity
    since: float
    settings: tuple[str, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """How many findings were drift, at each of the report's `times`."""

    name: str
    values: tuple[int, ...]


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    example: str
    hosts: Names
    longest: int = 0  # scans in a row


class Outlier(msgspec.Struct, frozen=True, kw_only=True):
    """A value that few of many like machines have."""

    group: str  # what makes them alike
    setting: str
    usual: str
    usual_hosts: int
    value: str
    hosts: Names


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Of how many settings somebody says what they must be."""

    group: str
    hosts: int
    controlled: float  # settings of one host, on average
    settings: float


class ReportData(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    version: str
    generated: float
    scope: str = ""  # the selector; empty: all hosts
    hosts: int = 0
    states: dict[str, int] = {}
    scan: ScanFacts | None = None
    times: tuple[float, ...] = ()
    by_severity: tuple[Line, ...] = ()
    by_pool: tuple[Line, ...] = ()
    by_setting: tuple[Line, ...] = ()
    findings: int = 0  # that are drift
    severities: dict[str, int] = {}
    waived: int = 0
    pools: tuple[Pool, ...] = ()
    pools_total: int = 0
    settings: tuple[Setting, ...] = ()
    settings_total: int = 0
    drifted: tuple[Host, ...] = ()
    drifted_total: int = 0
    silent: tuple[Silence, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    outliers_total: int = 0
    coverage: tuple[Coverage, ...] = ()
    coverage_total: int = 0


def names(hosts: Iterable[str]) -> Names:
    """In the order of people: u9 before u10."""
    found = sorted(hosts, key=lambda h: [int(p) if p.isdecimal() else p for p in re.split("([0-9]+)", h)])
    return Names(tuple(found[:MOST_NAMES]), len(found))
