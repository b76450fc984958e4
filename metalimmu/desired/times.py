"""Cron expressions and time zones. Pure: the present is passed in, as seconds since 1970.

Cron is cronsim's, which does as Debian's cron does. When clocks are set forward, a fixed time that does not exist
(`30 2 * * *`) becomes the first moment after the gap; when they are set back, it is due once, the first time. With `*`
as minute or as hour (`0 * * * *`, `*/30 2 * * *`) a schedule follows the time that passes: it is due in both of the
doubled hours, and in none that does not exist.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

from metalimmu.desired.schedules import DAYS, MaintenanceWindow, Window

FIELDS = 5


@lru_cache(maxsize=256)
def zone(name: str) -> dt.tzinfo | None:
    """UTC is there without a time zone database. None: unknown."""
    if name == "UTC":
        return dt.UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a name that is a folder, or leads out of the database
        return None


def zones() -> set[str]:
    from zoneinfo import available_timezones

    return available_timezones()


def coming(cron: str, zone: dt.tzinfo, after: float) -> Iterator[float]:
    """The times later than `after`, without end unless there are none within 50 years. Raises ValueError."""
    from cronsim import CronSim, CronSimError

    if len(cron.split()) != FIELDS:
        raise ValueError(f"{len(cron.split())} fields")
    try:
        for moment in CronSim(cron, dt.datetime.fromtimestamp(after, zone)):
            at = moment.timestamp()
            # cronsim begins the second of two equal hours from the first, and moves each time in a gap to its end.
            if at > after:
                after = at
                yield at
    except CronSimError as exc:
        raise ValueError(str(exc)) from exc


def following(cron: str, zone: dt.tzinfo, after: float, count: int) -> list[float]:
    """The first `count` of `coming`. Raises ValueError, also when there are none."""
    found = list(islice(coming(cron, zone, after), count))
    if not found:
        raise ValueError("there is no such day")
    return found


def opening(window: Window, zone: dt.tzinfo, at: float) -> tuple[float, float]:
    """The first opening of the window that is not over at `at`."""
    day = dt.datetime.fromtimestamp(at, zone).date() - dt.timedelta(days=1)
    while True:
        if not window.days or DAYS[day.weekday()] in window.days:
            opens, closes = _clock(day, window.start, zone), _clock(day, window.end, zone)
            if closes <= opens:
                closes = _clock(day + dt.timedelta(days=1), window.end, zone)
            if closes > at:
                return opens, closes
        day += dt.timedelta(days=1)


def opens(windows: Iterable[MaintenanceWindow], at: float) -> float | None:
    """When the first of them opens next; None: one is open at `at`, or there are none."""
    found = [opening(w, zone(w.timezone) or dt.UTC, at)[0] for w in windows]  # `check` refuses unknown zones
    return None if not found or min(found) <= at else min(found)


def _clock(day: dt.date, clock: str, zone: dt.tzinfo) -> float:
    """A time of the day. One that does not exist, as clocks are set forward, is as far behind the gap as it lay in it."""
    hour, minute = map(int, clock.split(":"))
    return dt.datetime.combine(day, dt.time(hour, minute), tzinfo=zone).timestamp()
