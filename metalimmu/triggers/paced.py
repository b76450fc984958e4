"""A scan that reads each host at its own moment: the same hosts, the same results, spread over a span of time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Any

from metalimmu.errors import MetalimmuError

if TYPE_CHECKING:
    from metalimmu.bmc.ask import Asking
    from metalimmu.bmc.collect.types import Collected
    from metalimmu.service.scans.reading import ReadMany

GROUPS = 30  # hosts whose moments lie close together are read as one group
SHORTEST, LONGEST = 1.0, 60.0  # seconds that a group spans


class WindowClosed(MetalimmuError):
    default_hint = "make the window longer, the splay smaller, or the scope narrower"


def paced(
    read: ReadMany,
    moment: Callable[[str], float],
    *,
    closes: float | None,
    clock: Callable[[], float],
    wait: Callable[[float], None],
) -> ReadMany:
    """`moment` gives a host's time by its name; nobody is read before it. Who is late (a group took long, a scan was
    resumed) is read at once. Raises WindowClosed, in the middle of the results, when time is up at `closes`.
    """

    def reading(hosts: Collection[Any], reader: Callable[[Any], Asking[Any]]) -> Generator[Collected[Any], None, None]:
        left = sorted(hosts, key=lambda h: moment(h.name))
        span = moment(left[-1].name) - moment(left[0].name) if left else 0.0
        grain = min(max(span / GROUPS, SHORTEST), LONGEST)
        while left:
            _check(closes, clock(), len(left))
            ready = _ready(left, moment, clock())
            if not ready:
                until = moment(left[_ready(left, moment, moment(left[0].name) + grain) - 1].name)
                wait(max(0.0, (until if closes is None else min(until, closes)) - clock()))
                continue
            group, left = left[:ready], left[ready:]
            undone = len(group)
            for result in read(group, reader):
                undone -= 1
                yield result
                if undone:
                    _check(closes, clock(), undone + len(left))

    return reading


def _ready(hosts: list[Any], moment: Callable[[str], float], now: float) -> int:
    """How many of the first hosts have their moment behind them."""
    return next((i for i, h in enumerate(hosts) if moment(h.name) > now), len(hosts))


def _check(closes: float | None, now: float, left: int) -> None:
    if closes is not None and now >= closes:
        raise WindowClosed(f"the schedule's window closed with {left} hosts not read")
