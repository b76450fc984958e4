"""One line of the table: a claim, what was measured, and whether both sides gave the same answer."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """`ours` and `competitor` are all rounds, in order, in `unit`; round i of both was measured one after the other.

    `value` is what the claim is about: a ratio, or a number with a limit. `holds` is None where nothing is claimed and
    the number is only told. `equal`: both gave the same answer (None: there is nothing to compare).
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    competitor: tuple[float, ...] = ()
    rival: str = ""  # who the competitor is
    claim: str = ""
    value: float | None = None
    spread: tuple[float, float] | None = None  # of `value`, least and most of the rounds
    holds: bool | None = None
    equal: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.equal is False:
            return "WRONG ANSWER"
        return {True: "holds", False: "MISSED", None: "told"}[self.holds]

    @property
    def good(self) -> bool:
        return self.equal is not False and self.holds is not False

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "ours_median": median(self.ours),
            "competitor_median": median(self.competitor),
            "verdict": self.verdict,
        }


def at_most(
    name: str,
    ours: Sequence[float],
    competitor: Sequence[float],
    limit: float,
    *,
    unit: str,
    rival: str,
    equal: bool | None = None,
    **details: Any,
) -> Result:
    """Ours costs at most `limit` times what the competitor does."""
    ratios = [a / b for a, b in zip(ours, competitor, strict=True)]
    value = statistics.median(ratios)
    return Result(
        name, unit, tuple(ours), tuple(competitor), rival, f"ours <= {limit:g} x", value, (min(ratios), max(ratios)),
        value <= limit, equal, details,
    )  # fmt: skip


def as_fast(
    name: str,
    ours: Sequence[float],
    competitor: Sequence[float],
    least: float,
    *,
    unit: str,
    rival: str,
    equal: bool | None = None,
    **details: Any,
) -> Result:
    """Ours is at least `least` times as fast."""
    ratios = [b / a for a, b in zip(ours, competitor, strict=True)]
    value = statistics.median(ratios)
    return Result(
        name, unit, tuple(ours), tuple(competitor), rival, f">= {least:g} x as fast", value,
        (min(ratios), max(ratios)), value >= least, equal, details,
    )  # fmt: skip


def limited(
    name: str,
    ours: Sequence[float],
    limit: float,
    *,
    unit: str,
    worst: bool = False,
    equal: bool | None = None,
    **details: Any,
) -> Result:
    """A number with a limit and no competitor. `worst`: every round must keep it, not the median: what may never be."""
    value = max(ours) if worst else statistics.median(ours)
    return Result(
        name, unit, tuple(ours), claim=f"<= {limit:g} {unit}", value=value, spread=(min(ours), max(ours)),
        holds=value <= limit, equal=equal, details=details,
    )  # fmt: skip


def told(
    name: str,
    ours: Sequence[float],
    competitor: Sequence[float] = (),
    *,
    unit: str,
    rival: str = "",
    equal: bool | None = None,
    **details: Any,
) -> Result:
    """A number that is reported and not claimed; with the ratio to a competitor's, where there is one."""
    ratios = [a / b for a, b in zip(ours, competitor, strict=True)] if competitor else []
    value, spread = (statistics.median(ratios), (min(ratios), max(ratios))) if ratios else (None, None)
    return Result(
        name, unit, tuple(ours), tuple(competitor), rival, value=value, spread=spread, equal=equal, details=details
    )


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


COLUMNS = ("benchmark", "ours", "competitor", "ratio", "claim", "verdict", "answers equal")


def table(results: Iterable[Result]) -> str:
    """Medians with [least .. most]; the ratio is the median of the rounds' ratios, so noise that hits a round hits both."""
    rows = [COLUMNS, *(_row(r) for r in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(r: Result) -> tuple[str, ...]:
    ratio = "-"
    if r.value is not None and r.competitor:
        ratio = f"{r.value:.2f}" + _span(r.spread)
    return (
        r.name,
        _values(r.ours, r.unit),
        f"{_values(r.competitor, r.unit)} {r.rival}".strip() if r.competitor else "-",
        ratio,
        r.claim or "-",
        r.verdict,
        {True: "yes", False: "NO", None: "-"}[r.equal],
    )


def _values(values: Sequence[float], unit: str) -> str:
    middle = median(values)
    if middle is None:
        return "-"
    return f"{_number(middle)} {unit}" + _span((min(values), max(values)) if len(values) > 1 else None)


def _span(spread: tuple[float, float] | None) -> str:
    if spread is None or spread[0] == spread[1]:
        return ""
    return f" [{_number(spread[0])} .. {_number(spread[1])}]"


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
