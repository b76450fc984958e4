"""Where the lines and bars of a chart stand. Pure geometry: the template draws it, and escapes what is written beside it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from metalimmu.service.report.data import Line

WIDTH, HEIGHT = 720.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 24.0


class Segment(NamedTuple):
    name: str
    hosts: int
    x: float
    width: float
    percent: float


class Tick(NamedTuple):
    at: float
    label: str
    anchor: str = "middle"


class Area(NamedTuple):
    name: str
    path: str
    last: int


class Stack(NamedTuple):
    """Areas on top of each other, the first at the bottom, in a box of WIDTH x HEIGHT."""

    areas: list[Area]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


class Spark(NamedTuple):
    name: str
    path: str
    fill: str
    last: int
    most: int


def bar(parts: Mapping[str, int], width: float = 1000.0) -> list[Segment]:
    """One bar, cut into parts; what is there can be seen, however small it is."""
    there = [(n, c) for n, c in parts.items() if c > 0]
    total = sum(c for _, c in there)
    if not total:
        return []
    least = min(4.0, width / len(there))
    free = width - least * len(there)
    found, x = [], 0.0
    for name, count in there:
        w = least + free * count / total
        found.append(Segment(name, count, round(x, 2), round(w, 2), 100 * count / total))
        x += w
    return found


def nice(most: float) -> float:
    """The next round number from `most` on, so that an axis has whole steps."""
    if most <= 4:
        return 4.0
    power = 10 ** math.floor(math.log10(most))
    return next(float(step * power) for step in (1, 2, 4, 5, 8, 10) if step * power >= most)


def stack(lines: Sequence[Line], times: Sequence[float]) -> Stack | None:
    """None when there is nothing to draw: fewer than two moments, or nothing but zeros."""
    if len(times) < 2 or not any(v for line in lines for v in line.values):
        return None
    top = nice(max(sum(line.values[i] for line in lines) for i in range(len(times))))
    begin, end = times[0], times[-1]

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - begin) / (end - begin)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    areas = []
    below = [0] * len(times)
    for line in lines:
        above = [b + v for b, v in zip(below, line.values, strict=True)]
        edge = [(x(t), y(v)) for t, v in zip(times, above, strict=True)]
        back = [(x(t), y(v)) for t, v in zip(times, below, strict=True)][::-1]
        areas.append(Area(line.name, _path(edge + back) + "Z", line.values[-1]))
        below = above
    y_ticks = [Tick(y(top * i / 4), _short(top * i / 4)) for i in range(5)]
    return Stack(areas, _dates(begin, end, x), y_ticks)


def _dates(begin: float, end: float, x: Callable[[float], float]) -> list[Tick]:
    form = "%H:%M" if end - begin < 2 * 86400 else "%d %b"
    found: list[Tick] = []
    for i in range(5):
        at = begin + (end - begin) * i / 4
        anchor = "start" if i == 0 else "end" if i == 4 else "middle"
        label = time.strftime(form, time.gmtime(at))
        if label not in [t.label for t in found]:
            found.append(Tick(x(at), label, anchor))
    return found


def spark(line: Line, width: float = 160.0, height: float = 36.0) -> Spark:
    most = max(line.values, default=0)
    step = width / max(1, len(line.values) - 1)
    points = [(i * step, height - 2 - (height - 4) * v / max(1, most)) for i, v in enumerate(line.values)]
    path = _path(points)
    fill = f"{path}L{width:g} {height:g}L0 {height:g}Z" if points else ""
    return Spark(line.name, path, fill, line.values[-1] if line.values else 0, most)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{round(x, 1):g} {round(y, 1):g}" for x, y in points) if points else ""


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"
