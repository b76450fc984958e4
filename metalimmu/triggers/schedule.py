"""When a schedule is due, for which host, and when next. Pure: the present and what was claimed before are passed in.

A *due time* is what the cron expression says. Each host has its own moment within splay of it, always the same one:
it comes from a hash of site, schedule and host, so it is kept over restarts and by every process without being stored.
A *turn* is one start of a schedule: its due time, and the span in which its hosts have their moments.

Missed due times are caught up once: the turn is that of the newest one. What falls outside of a window waits until the
window opens, unless the schedule is due within that opening anyway. Time zones and changes of the clock are
`desired.times`'.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import NamedTuple

from metalimmu.desired import times
from metalimmu.desired.schedules import Schedule
from metalimmu.desired.units import seconds

_DAY = 86400.0
_MOMENT = 60.0  # so late is not missed: schedulers look every few seconds, and restart
_LOOK_BACK = (3700.0, 2 * _DAY, 40 * _DAY, 800 * _DAY, 15_000 * _DAY)  # a 29 February on a Monday may be 40 years away


class Turn(NamedTuple):
    """One start of a schedule. Seconds since 1970."""

    due: float  # what cron says: with the schedule's name this is what only one scheduler can claim
    start: float  # the first host's moment; the scan begins here
    end: float  # the last host's moment
    closes: float | None = None  # the window's end

    def moment(self, place: float) -> float:
        """When the host with this `place` (0 to 1) is to be read."""
        return self.start + place * (self.end - self.start)


def place(site: str, schedule: str, host: str) -> float:
    """Where a host stands within each turn of a schedule: from 0 to 1, evenly spread, the same for ever."""
    digest = hashlib.sha256(f"{site}\0{schedule}\0{host}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53  # as many bits as a float has: never 1


def turn(schedule: Schedule, now: float, last: float | None, since: float) -> Turn | None:
    """The turn that is to be started now, or None.

    `last` is the due time that was claimed last; None: never. `since` is when the schedule was first seen, changed or
    resumed: what was due before nobody has missed.
    """
    found = upcoming(schedule, now, last, since)
    return found if found is not None and found.start <= now else None


def upcoming(schedule: Schedule, now: float, last: float | None, since: float) -> Turn | None:
    """The turn that starts now or next; None when cron has no more times."""
    zone = times.zone(schedule.timezone) or dt.UTC  # `check` refuses the unknown
    splay = seconds(schedule.splay)
    floor = since if last is None else max(since, last)
    due = _newest(schedule.cron, zone, floor, now + splay)  # with a splay the first hosts come before the due time
    if due is None:
        due = _next(schedule.cron, zone, max(floor, now + splay))
    while due is not None:
        found, opens = _placed(schedule, zone, due, now)
        after = _next(schedule.cron, zone, due)
        waited = opens is not None and opens > due + splay
        if not waited or after is None or found.closes is None or after >= found.closes:
            return found
        due = after
    return None


def _next(cron: str, zone: dt.tzinfo, after: float) -> float | None:
    return next(times.coming(cron, zone, after), None)


def _newest(cron: str, zone: dt.tzinfo, after: float, until: float) -> float | None:
    """The newest due time in (after, until]. Looks at the last hour first: a year without a scheduler costs no year."""
    newest: float | None = None
    for back in _LOOK_BACK:
        begin = max(after, until - back)
        for at in times.coming(cron, zone, begin):
            if at > until:
                break
            newest = at
        if newest is not None or begin == after:
            break
    return newest


def _placed(schedule: Schedule, zone: dt.tzinfo, due: float, now: float) -> tuple[Turn, float | None]:
    """The turn of a due time, and when the window opens that it falls into."""
    splay = seconds(schedule.splay)
    start, end = due - splay, due + splay
    if now > end + _MOMENT:  # missed: from now on, and as widely spread as ever
        start, end = now, now + 2 * splay
    if schedule.window is None:
        return Turn(due, start, end), None
    opens, closes = times.opening(schedule.window, zone, max(start, now))
    if opens > end:
        start, end = opens, opens + 2 * splay
    start = max(start, opens)
    return Turn(due, start, max(start, min(end, closes)), closes), opens
