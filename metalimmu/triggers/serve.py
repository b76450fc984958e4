"""`metalimmu serve`: the site's worker and boot service, its schedules, alerts and metrics, until told to stop.

Several may run on one site: one is the worker and the others wait to take over; turns of schedules and messages of alerts
are claimed in the store, by whichever comes first.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from metalimmu import log
from metalimmu.errors import ListenError, MetalimmuError
from metalimmu.service.backup.schedule import Repeating, of_documents
from metalimmu.service.fresh import Fresh
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.triggers import systemd, turns
from metalimmu.triggers.children import Children
from metalimmu.triggers.news import Deliverer, Watcher
from metalimmu.triggers.status import StatusService

logger = log.get("serve")

TICK = 1.0  # seconds
STALLED = 60.0  # so long without a tick, and /healthz says so

_WORKER = 5.0  # seconds before a worker that could not start is tried again


class Server:
    """`run` blocks. Raises ListenError, SiteError, StoreError when it cannot start, or when the worker gives up."""

    def __init__(self, site: OpenSite, *, listen: str | None = None, verbose: int = 0) -> None:
        """`listen`: ADDRESS:PORT in place of the site's, for a second one on this machine."""
        self._site = site
        self._listen = listen or site.docs.site.listen.serve
        self._stop = threading.Event()
        self._worker = Worker(site)
        self._worker_again = 0.0
        self._holder = ""
        self._children = Children(site.folder, verbose=verbose)
        self._watcher = Watcher(site, self._stop, worker=lambda: self._worker.working)
        self._deliverer = Deliverer(site, self._stop)
        self._backups = Repeating(site, self._stop, lambda: of_documents(site))
        self._status = StatusService(self._listen, lambda: self._watcher.text, self.health)
        self._fresh = Fresh(site)
        self._ticked = time.monotonic()

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        with self._signals():
            try:
                self._start()
                watchdog = systemd.watchdog()
                while not self._stop.wait(min(TICK, watchdog or TICK)):
                    self._tick()
                    systemd.notify("WATCHDOG=1")
            finally:
                self._end()

    def _start(self) -> None:
        self._status.start()
        self._become_worker(first=True)
        self._watcher.start()
        self._deliverer.start()
        self._backups.start()
        site = self._site.docs.site
        logger.info(
            "serving %s: %d schedules, %d alerts, metrics on %s",
            site.name,
            len(site.schedules),
            len(site.alerts),
            self._listen,
        )
        systemd.notify("READY=1", f"STATUS=serving {site.name}")

    def _tick(self) -> None:
        self._become_worker()
        self._worker.check()
        self._children.reap()
        self._fresh()
        try:
            turns.claim_due(self._site, time.time())
            for turn in turns.unfinished(self._site):
                self._children.start(turn)
        except MetalimmuError as exc:  # a store that is locked or full for a while stops nothing
            logger.warning("schedules: %s (%s)", exc.message, exc.hint)
        self._ticked = time.monotonic()

    def _become_worker(self, *, first: bool = False) -> None:
        """Or wait for the one there is to die. Raises ListenError, on the first try only."""
        if self._worker.working or time.monotonic() < self._worker_again:
            return
        try:
            if self._worker.try_start():
                logger.info("this process is the site's worker")
                for run in self._worker.resumed:
                    logger.info("run %s goes on here", run)
            elif (holder := self._worker.holder()) != self._holder:
                self._holder = holder
                logger.info("%s is the site's worker; this process takes over when it ends", holder)
        except ListenError as exc:
            if first:
                raise
            logger.warning("%s (%s)", exc.message, exc.hint)
            self._worker = Worker(self._site)  # one that could not start cannot be started again
            self._worker_again = time.monotonic() + _WORKER

    def health(self) -> dict[str, Any]:
        late = time.monotonic() - self._ticked
        return {
            "status": "ok" if late < STALLED and self._worker.failure is None else "failing",
            "site": self._site.docs.site.name,
            "worker": "this process" if self._worker.working else f"waits for {self._holder or 'its turn'}",
            "seconds_since_tick": round(late, 1),
            "turns": sorted(self._children.running),
        }

    def _end(self) -> None:
        """Runs and turns under way stay as they are, for the next one."""
        self._stop.set()
        systemd.notify("STOPPING=1")
        self._children.stop()
        self._worker.stop()
        self._status.stop()
        self._watcher.join()
        self._backups.join()
        logger.info("ended; what is under way goes on with the next `metalimmu serve`")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end it cleanly; a second one at once."""

        def asked(_signal: int, _frame: FrameType | None) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before = {s: signal.signal(s, asked) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
