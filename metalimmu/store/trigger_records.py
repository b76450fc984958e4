"""What schedules and alerts leave in the store. Times are seconds since 1970 (UTC)."""

from __future__ import annotations

from typing import Any, Literal

from metalimmu.store.records import Record


class ScheduleState(Record, frozen=True, kw_only=True):
    name: str
    definition: str  # a hash of what decides when it is due
    since: float  # first seen, changed or resumed: what was due before is not caught up
    paused: str | None = None  # the reason
    paused_by: str = ""
    paused_at: float | None = None


class TurnRecord(Record, frozen=True, kw_only=True):
    """One start of a schedule. Whoever inserts it first has it: `schedule` and `due` are the key."""

    schedule: str
    due: float
    begins: float  # moment of the first host
    ends: float  # and of the last
    closes: float | None = None  # end of the window
    claimed: float = 0.0
    claimed_by: str = ""  # the process
    scan: str | None = None
    finished: float | None = None
    error: str | None = None


class AlertState(Record, frozen=True, kw_only=True):
    """One cause, as one receiver was told of it. Kept while it lasts."""

    alert: str  # the receiver's name
    cause: str  # a hash of what it is: the same over all scans
    kind: str  # drift | unknown
    since: float  # when this receiver was first told
    revision: int = 1  # how often it was told, in this episode
    about: dict[str, Any] = {}  # the cause itself
    hosts: tuple[str, ...] = ()  # those that it was told of and that still have it
    was: int = 0  # the most hosts at once


class OutboxRecord(Record, frozen=True, kw_only=True):
    """A message to be delivered at least once; `key` is the same each time, so that a receiver can drop repetitions."""

    id: int
    key: str
    alert: str
    kind: str  # drift | fixed | unknown | refresh | test
    body: dict[str, Any]  # a Notice
    created: float
    attempts: int = 0
    next_at: float = 0.0
    held_until: float = 0.0  # somebody is sending it now
    sent: float | None = None
    dropped: float | None = None  # given up
    error: str = ""


OutboxStatus = Literal["waiting", "sent", "dropped"]
