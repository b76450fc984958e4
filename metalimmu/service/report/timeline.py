"""How much was drift at each of many moments, from when each finding began and ended. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from metalimmu.service.report.data import Line

POINTS = 30
MOST_LINES = 8


class Span(NamedTuple):
    """One finding's time as drift; `until` None: it still is."""

    since: float
    until: float | None


def moments(begin: float, end: float, points: int = POINTS) -> tuple[float, ...]:
    """Evenly from `begin` to `end`, both included; one moment when nothing lies between them."""
    if end <= begin:
        return (end,)
    return tuple(begin + (end - begin) * i / (points - 1) for i in range(points))


class Timeline:
    """Counts by name: each span costs two steps, whatever its length."""

    def __init__(self, times: Sequence[float]) -> None:
        self._times = times
        self._steps: dict[str, Counter[int]] = {}

    def add(self, name: str, span: Span) -> None:
        """A finding counts at a moment when it began at or before it, and had not ended."""
        begin = bisect_left(self._times, span.since)
        end = len(self._times) if span.until is None else bisect_left(self._times, span.until)
        if begin < end:
            steps = self._steps.setdefault(name, Counter())
            steps[begin] += 1
            steps[end] -= 1

    def lines(self, *, order: Sequence[str] = (), most: int = MOST_LINES) -> tuple[Line, ...]:
        """In this order, and those of `order` also when they are empty; without one the largest now first, at most `most`."""
        if order:
            return tuple(self._line(name, self._steps.get(name, {})) for name in order)
        found = [self._line(name, steps) for name, steps in self._steps.items()]
        found.sort(key=lambda line: (-line.values[-1], -max(line.values), line.name))
        return tuple(found[:most])

    def _line(self, name: str, steps: Mapping[int, int]) -> Line:
        values, now = [], 0
        for i in range(len(self._times)):
            now += steps.get(i, 0)
            values.append(now)
        return Line(name=name, values=tuple(values))
