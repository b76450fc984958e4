"""Turns of schedules: claimed in the store by whoever comes first, run by one process, resumed when that died."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from metalimmu import log
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import MetalimmuError, NotFound, StoreError, UsageError
from metalimmu.service.runs import who
from metalimmu.store.trigger_records import TurnRecord
from metalimmu.triggers import schedule as pure
from metalimmu.triggers.paced import WindowClosed, paced

if TYPE_CHECKING:
    from metalimmu.desired.schedules import Schedule
    from metalimmu.service.scans.reading import ReadMany
    from metalimmu.service.scans.record import Progress
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_records import ScanRecord
    from metalimmu.store.trigger_records import ScheduleState

logger = log.get("schedules")

_SCANS = 100  # looked at to find the scan of a turn
_GLANCE = 2.0  # seconds


def definition(schedule: Schedule) -> str:
    """Changes when what decides about due times does; a new scope or splay makes no time a new one."""
    what = (schedule.cron, schedule.timezone, schedule.window)
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:16]


def trigger(schedule: str) -> str:
    """What a scan's record says about who started it."""
    return f"schedule:{schedule}"


def of(site: OpenSite, name: str) -> Schedule:
    """Raises NotFound."""
    found = site.docs.site.schedules.get(name)
    if found is None:
        known = ", ".join(site.docs.site.schedules) or "none"
        raise NotFound(f"site.yaml has no schedule {name!r}", hint=f"there are: {known}")
    return found


def state(site: OpenSite, name: str) -> ScheduleState:
    return site.store.triggers.see_schedule(name, definition(of(site, name)))


def claim_due(site: OpenSite, now: float) -> list[TurnRecord]:
    """The turns that start now and are ours. A schedule whose turn before is not finished waits."""
    triggers = site.store.triggers
    claimed = []
    for name, document in site.docs.site.schedules.items():
        known = state(site, name)
        last = triggers.turns(name, limit=1)
        if known.paused is not None or (last and last[0].finished is None):
            continue
        turn = pure.turn(document, now, last[0].due if last else None, known.since)
        if turn is not None and (record := _claim(site, name, turn, now)):
            claimed.append(record)
    return claimed


def start(
    site: OpenSite,
    name: str,
    *,
    progress: Callable[[Progress], None] | None = None,
    read: ReadMany | None = None,
    clock: Callable[[], float] = time.time,
) -> ScanRecord | None:
    """A turn because somebody asks for it: at once, without splay, whatever the window, paused or not.

    Raises UsageError, NotFound; beyond that as `run`.
    """
    state(site, name)
    with _alone(site, name):
        last = site.store.triggers.turns(name, limit=1)
        if last and last[0].finished is None:
            raise UsageError(
                f"schedule {name} has a turn that is not finished, of {stamp(last[0].due)}",
                hint="`metalimmu serve` goes on with it; `metalimmu schedule list` shows it",
            )
        now = clock()
        turn = _claim(site, name, pure.Turn(now, now, now), now)
        if turn is None:
            raise UsageError(f"somebody else has just started {name}", hint="`metalimmu schedule list`")
        return _run(site, turn, progress, read, clock, time.sleep)


def _claim(site: OpenSite, name: str, turn: pure.Turn, now: float) -> TurnRecord | None:
    record = TurnRecord(
        schedule=name,
        due=turn.due,
        begins=turn.start,
        ends=turn.end,
        closes=turn.closes,
        claimed=now,
        claimed_by=who(),
    )
    return record if site.store.triggers.claim(record) else None


def unfinished(site: OpenSite) -> list[TurnRecord]:
    """Turns that nobody runs: their process died, or was stopped."""
    found = site.store.triggers.turns(unfinished=True, limit=1000)
    return [t for t in found if t.schedule in site.docs.site.schedules and not _held(site, t.schedule)]


def _lock(site: OpenSite, schedule: str) -> WorkerLock:
    """The kernel frees it when its process dies."""
    return WorkerLock(site.state / "turns" / f"{schedule}.lock")


def _held(site: OpenSite, schedule: str) -> bool:
    lock = _lock(site, schedule)
    free = lock.take()
    lock.release()
    return not free


@contextmanager
def _alone(site: OpenSite, schedule: str) -> Iterator[None]:
    lock = _lock(site, schedule)
    deadline = time.monotonic() + _GLANCE
    while not lock.take():  # perhaps somebody only looks whether it is free
        if time.monotonic() > deadline:
            raise UsageError(f"schedule {schedule} is being run by {lock.holder()}", hint="wait for it")
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def run(
    site: OpenSite,
    turn: TurnRecord,
    *,
    progress: Callable[[Progress], None] | None = None,
    read: ReadMany | None = None,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> ScanRecord | None:
    """Scan its hosts, each at its moment; or go on where a process died that did. None: it was done already.

    Raises UsageError when another process runs it, StoreError; another error ends the turn, and is raised too.
    """
    with _alone(site, turn.schedule):
        return _run(site, turn, progress, read, clock, wait)


def _run(
    site: OpenSite,
    turn: TurnRecord,
    progress: Callable[[Progress], None] | None,
    read: ReadMany | None,
    clock: Callable[[], float],
    wait: Callable[[float], None],
) -> ScanRecord | None:
    def ended(scan: ScanRecord | None, error: str | None = None) -> None:
        fields = {"scan": scan.id if scan else None, "finished": clock(), "error": error}
        site.store.triggers.set_turn(turn.schedule, turn.due, **fields)

    newest = site.store.triggers.turns(turn.schedule, limit=1)
    if newest and newest[0].due == turn.due and newest[0].finished is not None:
        return None
    scan = _scan_of(site, turn)
    if scan is not None and scan.finished is not None:  # killed between its end and our writing that down
        ended(scan)
        return scan
    try:
        record = _scan(site, turn, scan, progress, read, clock, wait)
    except StoreError:
        raise  # nothing can be written down, and nothing is lost
    except MetalimmuError as exc:
        scan = _scan_of(site, turn)
        if isinstance(exc, WindowClosed) and scan is not None:
            scan = site.store.finish_scan(scan.id, {"by": who(), "broke_off": exc.message})
        ended(scan, exc.message)
        raise
    ended(record)
    return record


def _scan(
    site: OpenSite,
    turn: TurnRecord,
    broken_off: ScanRecord | None,
    progress: Callable[[Progress], None] | None,
    read: ReadMany | None,
    clock: Callable[[], float],
    wait: Callable[[float], None],
) -> ScanRecord:
    from metalimmu.service.scans import drivers as scan_drivers
    from metalimmu.service.scans.scan import scan

    name = site.docs.site.name
    span = pure.Turn(turn.due, turn.begins, turn.ends)
    slow = paced(
        read or scan_drivers.of_site(site),
        lambda host: span.moment(pure.place(name, turn.schedule, host)),
        closes=turn.closes,
        clock=clock,
        wait=wait,
    )
    return scan(
        site,
        selector=of(site, turn.schedule).scope,
        trigger=trigger(turn.schedule),
        progress=progress,
        resume=broken_off.id if broken_off else None,
        read=slow,
    ).record


def _scan_of(site: OpenSite, turn: TurnRecord) -> ScanRecord | None:
    """The scan that this turn began. Turns of one schedule never overlap: it is the one since the claim."""
    wanted = trigger(turn.schedule)
    return next((s for s in site.store.scans(_SCANS) if s.trigger == wanted and s.created >= turn.claimed), None)


def stamp(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at)) if at else "-"
