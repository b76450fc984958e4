"""Schedules for people: one row each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from metalimmu.triggers import schedule as pure
from metalimmu.triggers import turns

if TYPE_CHECKING:
    from metalimmu.desired.schedules import Window
    from metalimmu.service.site import OpenSite
    from metalimmu.store.trigger_records import ScheduleState, TurnRecord


def rows(site: OpenSite) -> list[dict[str, Any]]:
    now = time.time()
    found = []
    for name, document in site.docs.site.schedules.items():
        known = turns.state(site, name)
        past = site.store.triggers.turns(name, limit=1)
        last = past[0] if past else None
        coming = pure.upcoming(document, now, last.due if last else None, known.since)
        found.append(
            {
                "name": name,
                "verb": document.verb,
                "cron": document.cron,
                "timezone": document.timezone,
                "next": _next(known, coming),
                "last": turns.stamp(last.claimed) if last else None,
                "outcome": _outcome(last),
                "splay": document.splay,
                "window": _window(document.window),
                "scope": document.scope,
                "scan": last.scan if last else None,
                "paused": known.paused,
                "paused_by": known.paused_by or None,
                "comment": document.comment or None,
            }
        )
    return found


def _next(known: ScheduleState, coming: pure.Turn | None) -> str | None:
    if known.paused is not None:
        return f"paused by {known.paused_by}: {known.paused}"
    return turns.stamp(coming.start) if coming else None


def _outcome(last: TurnRecord | None) -> str | None:
    if last is None:
        return None
    if last.finished is None:
        return "not finished"
    return last.error or f"done in {last.finished - last.claimed:.0f} s"


def _window(window: Window | None) -> str | None:
    if window is None:
        return None
    return f"{window.start}-{window.end}" + (f" {','.join(window.days)}" if window.days else "")
