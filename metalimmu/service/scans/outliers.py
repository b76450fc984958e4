"""Like machines and outliers among them, from what scans have recorded: needs no profile."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from metalimmu.desired.volatile import volatile
from metalimmu.observed.snapshot import Scalar, Value
from metalimmu.plan.outliers import Group, GroupReport, Groups

if TYPE_CHECKING:
    from metalimmu.store.scan_protocol import ScanStore

MOST_NAMED = 5
_MAC = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f])")


def outliers(store: ScanStore, hosts: Collection[str] | None = None) -> list[GroupReport]:
    """The largest group first. Hosts that were never read are in none."""
    groups = Groups()
    is_noise = volatile().is_noise
    for known, values in store.fleet_values(hosts):
        if known.read_at is not None:
            about = known.about
            groups.add(
                Group(about.manufacturer or "(make unknown)", about.model or "(model unknown)", about.generation),
                known.host,
                {n: v for n, v in _comparable(values).items() if not is_noise(n, about.manufacturer)},
                known.stale,
            )
    return list(groups.reports())


def _comparable(values: Mapping[str, Value]) -> dict[str, Value]:
    """Lenovo puts a NIC's MAC into the names of its attributes: like machines have them under other names each. Several
    NICs that are told apart by nothing else are one setting with all their values.
    """
    found: dict[str, Value] = {}
    several: dict[str, list[Scalar]] = {}
    for name, value in values.items():
        folded = _MAC.sub("<MAC>", name)
        if folded != name:
            several.setdefault(folded, []).extend(value if isinstance(value, tuple) else [value])
        else:
            found[name] = value
    for name, all_values in several.items():
        found[name] = tuple(sorted(all_values, key=str)) if len(all_values) > 1 else all_values[0]
    return found


def rows(reports: Iterable[GroupReport]) -> list[dict[str, Any]]:
    """One row per outlier; ties, splits and small groups are rows too, so that nothing is left unsaid."""
    found: list[dict[str, Any]] = []
    for report in reports:
        group = name(report.group)
        found += [
            {
                "group": group,
                "setting": o.setting,
                "hosts": len(o.hosts),
                "value": o.value,
                "majority": o.majority,
                "of": f"{o.majority_count} of {o.known}",
                "which": few(o.hosts),
                "all": list(o.hosts),
            }
            for o in report.outliers
        ]
        for s in report.splits:
            said = ", ".join(f"{value} ({count})" for value, count in s.values[:MOST_NAMED])
            word = "(a tie)" if s.tie else "(no majority)"
            found.append(
                {
                    "group": group,
                    "setting": s.setting,
                    "hosts": 0,
                    "value": said,
                    "majority": word,
                    "of": "",
                    "which": "",
                }
            )
    return found


def name(group: Group) -> str:
    generation = f" ({group.generation})" if group.generation else ""
    return f"{group.make} {group.model}{generation}"


def few(hosts: Collection[str]) -> str:
    shown = sorted(hosts)[:MOST_NAMED]
    more = len(hosts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
