"""After each scan, whoever made it: what receivers are told, and what the metrics say. Two threads of `serve`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.desired.units import seconds
from metalimmu.errors import MetalimmuError
from metalimmu.service import metrics
from metalimmu.service.alerts import evaluate, outbox
from metalimmu.service.scans.result import last_ended
from metalimmu.triggers import schedule as pure
from metalimmu.triggers import turns

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

logger = log.get("serve")

LOOK = 2.0  # seconds between looks for a scan that has ended
STALE = 30.0  # seconds after which metrics are collected again without one
CLEAN_UP = 3600.0


class Watcher:
    """Decides on alerts and prepares metrics, whenever a scan has ended in any process."""

    def __init__(self, site: OpenSite, stop: threading.Event, *, worker: Callable[[], bool]) -> None:
        self.text = ""
        self._site = site
        self._stop = stop
        self._worker = worker
        self._metrics: metrics.Metrics | None = None
        self._decided: str | None = None
        self._collected = 0.0
        self._docs = site.docs
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """The metrics are there when this returns. Raises MetalimmuError."""
        self._collect()
        self._thread.start()

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except MetalimmuError as exc:
                logger.warning("alerts and metrics: %s (%s)", exc.message, exc.hint)
            except Exception:
                logger.exception("a fault in alerts or metrics; the next look tries again")
            self._stop.wait(LOOK)

    def look(self) -> None:
        last = last_ended(self._site.store)
        ended = last.id if last else None
        news = ended is not None and ended != self._decided
        if news:
            evaluate.evaluate(self._site)  # also of a scan that ended while nobody looked
            self._decided = ended
        if news or self._docs is not self._site.docs or time.monotonic() - self._collected > STALE:
            self._docs = self._site.docs
            self._collect()
        if news and (file := self._site.docs.site.textfile):
            metrics.write(self._site.folder / Path(file).expanduser(), self.text)

    def _collect(self) -> None:
        self._metrics = collected(self._site, worker=self._worker(), before=self._metrics)
        self.text = metrics.text(self._metrics)
        self._collected = time.monotonic()


def collected(site: OpenSite, *, worker: bool | None = None, before: metrics.Metrics | None = None) -> metrics.Metrics:
    """The metrics of a site with its schedules."""
    return metrics.collect(site, schedules=_schedules(site, time.time()), worker=worker, before=before)


def _schedules(site: OpenSite, now: float) -> list[metrics.ScheduleMetrics]:
    found = []
    for name, document in site.docs.site.schedules.items():
        known = turns.state(site, name)
        past = site.store.triggers.turns(name, limit=20)
        coming = pure.upcoming(document, now, past[0].due if past else None, known.since)
        found.append(
            metrics.ScheduleMetrics(
                name=name,
                paused=known.paused is not None,
                next=coming.start if coming else None,
                last_success=next((t.finished for t in past if t.finished is not None and t.error is None), None),
            )
        )
    return found


class Deliverer:
    """Empties the outbox, and keeps Alertmanagers informed. A receiver that keeps silent delays nothing else."""

    def __init__(self, site: OpenSite, stop: threading.Event) -> None:
        self._site = site
        self._stop = stop
        self._refreshed = self._cleaned = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._once()
            except MetalimmuError as exc:
                logger.warning("alerts: %s (%s)", exc.message, exc.hint)
            except Exception:
                logger.exception("a fault in delivering alerts; the next look tries again")
            self._stop.wait(LOOK)

    def _once(self) -> None:
        site, now = self._site, time.monotonic()
        outbox.deliver(site.store.triggers, site.docs.site.alerts, site.folder)
        holds = [seconds(a.alertmanager.hold) for a in site.docs.site.alerts if a.alertmanager]
        if holds and now - self._refreshed > min(*holds, 4 * 3600.0) / 4:
            self._refreshed = now
            evaluate.refresh(site)
        if now - self._cleaned > CLEAN_UP:
            self._cleaned = now
            site.store.triggers.forget_messages(time.time() - outbox.KEPT)
