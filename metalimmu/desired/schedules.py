"""Schedules of a site: `schedules: {NAME: {verb: scan, cron: "0 2 * * *", ...}}` in site.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from metalimmu.desired.base import Document, Duration, Name

Clock = Annotated[
    str,
    Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="a time of the day, quoted", examples=["22:00"]),
]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Window(Document, frozen=True, kw_only=True):
    """When hosts may be talked to. An end before its start is on the next day; a window belongs to the day it starts on."""

    start: Clock  # in the schedule's time zone
    end: Clock  # the same as the start: the whole day
    days: list[Day] = []  # empty: every day


class MaintenanceWindow(Window, frozen=True, kw_only=True):
    """When reimages of a pool may begin. What has begun is finished, however long it takes."""

    timezone: str = "UTC"  # a name of the IANA time zone database, as Europe/Berlin


class Schedule(Document, frozen=True, kw_only=True):
    cron: Annotated[
        str,
        Meta(
            description="five fields: minute, hour, day of month, month, day of week",
            examples=["0 2 * * *"],
        ),
    ]
    verb: Literal["scan"] = "scan"
    timezone: str = "UTC"  # a name of the IANA time zone database, as Europe/Berlin
    splay: Duration = "0s"  # each host at its own, constant moment within this much before and after
    window: Window | None = None  # what falls outside of it waits until it opens
    scope: str | None = None  # a selector, as with -l; without it all hosts
    comment: str = ""


Schedules = dict[Name, Schedule]
