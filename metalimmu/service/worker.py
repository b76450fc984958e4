"""The site's worker: executes runs and owns the boot service. One process per site, elected by a lock.

A process that only waits (its run is executed by another one) tries the lock again and again, so that it takes over
when the owner dies.
"""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from metalimmu import log
from metalimmu.engine.durable import Engine, Interrupted
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import MetalimmuError, StoreError
from metalimmu.service import presence
from metalimmu.service.aftermath import Aftermath
from metalimmu.service.fresh import Fresh
from metalimmu.service.guarding import Guards
from metalimmu.service.rollout_around import SiteAround
from metalimmu.service.rollout_driver import ACTIVE, Driver
from metalimmu.service.rollouts import PLANNERS, halted
from metalimmu.service.runs import abandon, who
from metalimmu.store.records import ErrorText, RunStatus
from metalimmu.workflows.context import SystemClock, Tools
from metalimmu.workflows.reimage import execute

if TYPE_CHECKING:
    from metalimmu.engine.durable import Checkpoint
    from metalimmu.service.deploy import BootSide
    from metalimmu.service.netboot import NetbootSide
    from metalimmu.service.site import OpenSite

logger = log.get("worker")

_PICK_UP = 0.5  # seconds between looks for queued runs
_PATIENCE = 10  # looks that may fail one after the other


class Worker:
    """`runs=False`: only the boot service, for who wants to hear machines and to execute nothing."""

    def __init__(self, site: OpenSite, *, pace: float = 1.0, runs: bool = True) -> None:
        self._runs = runs
        self._site = site
        self._pace = pace
        self._lock = WorkerLock(site.state / "worker.lock")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rollouts: threading.Thread | None = None
        self._aftermath: Aftermath | None = None
        self._presence: presence.Presence | None = None
        self._engine: Engine | None = None
        self._boot: BootSide | None = None
        self._netboot: NetbootSide | None = None
        self.failure: MetalimmuError | None = None
        self.resumed: list[str] = []  # runs of dead workers that this one goes on with
        self.elected = False  # became the site's worker, if only to end while it was starting

    @property
    def working(self) -> bool:
        return self._boot is not None

    def under_way(self) -> list[str]:
        """Other people's runs that this worker executes now."""
        if self._engine is None:
            return []
        mine = self._site.store.runs(status=(RunStatus.running, RunStatus.queued), limit=100_000)
        rollouts = self._site.store.rollouts.find(states=ACTIVE, limit=1000)
        return [
            *(r.id for r in mine if r.worker == self._engine.executor or r.status is RunStatus.queued),
            *(r.id for r in rollouts if not halted(self._site, r)),
        ]

    def holder(self) -> str:
        return self._lock.holder()

    def try_start(self) -> bool:
        """Become the worker, if nobody is. Raises MetalimmuError when it cannot work (a port is taken, no certificate)."""
        if self.working:
            return True
        if not self._lock.take():
            return False
        self.elected = True
        try:
            self._site.check_store()
            self._start()
        except BaseException:
            self.stop()
            raise
        return True

    def _start(self) -> None:
        from metalimmu.service.deploy import BootSide
        from metalimmu.service.hooks import Caller

        site = self._site
        self._guards = Guards(site, refresh=Fresh(site))
        boot = BootSide(site)
        boot.start()
        self._boot = boot
        if not self._runs:
            return
        presence.check(site)
        self._netboot = boot.netboot_side()
        if self._netboot is not None:
            self._netboot.start()
        engine = Engine(site.state / "engine.sqlite", self._execute)
        tools = Tools(
            store=site.store,
            connect=site.connect,
            media=boot,
            images=boot,
            deployments=boot,
            outside=boot,
            calls=Caller(site),
            clock=SystemClock(),
            stop=self._stop,
            worker=engine.executor,
            pace=self._pace,
            guard=self._guards.of_run,
            switches=boot.switches,
        )
        self._tools = tools
        engine.launch()
        self._engine = engine
        self._recover(engine)
        for old in site.store.workers():
            if old.id != engine.executor:  # the lock is ours: they are gone
                site.store.forget_worker(old.id)
        self._thread = threading.Thread(target=self._pick_up, name="pick-up", daemon=True)
        self._thread.start()
        self._rollouts = threading.Thread(target=self._roll_out, name="rollouts", daemon=True)
        self._rollouts.start()
        self._aftermath = Aftermath(site, self._stop)
        self._aftermath.start()
        self._presence = presence.Presence(site, self._stop, self._replaced)
        self._presence.start()

    def _execute(self, run: str, checkpoint: Checkpoint) -> None:
        """Failures of a run are recorded as such, faults of ours too. Only when our own memory fails (store or engine: disk
        full, locked, gone) nothing can be recorded: then the run is left as it is, and this worker says so and stops.
        """
        try:
            execute(run, checkpoint, self._tools)
        except Exception as exc:
            logger.debug("run %s", run, exc_info=True)
            if isinstance(exc, StoreError) or type(exc).__module__.partition(".")[0] in (
                "sqlalchemy",
                "sqlite3",
                "dbos",
            ):
                self._give_up(exc, run)
                raise Interrupted from exc
            abandon(self._site, run, f"a fault in metalimmu: {type(exc).__name__}: {exc}")

    def _give_up(self, exc: Exception, run: str = "") -> None:
        message = exc.message if isinstance(exc, MetalimmuError) else f"{type(exc).__name__}: {exc}"
        hint = f"check the disk space of {self._site.state}; the machine waits: `metalimmu run resume {run or 'RUN'}` goes on"
        self.failure = self.failure or StoreError(message, hint=hint)
        self._stop.set()

    def _replaced(self, exc: MetalimmuError) -> None:
        """Another controller has this site: no act more."""
        self.failure = self.failure or exc
        self._stop.set()

    def check(self) -> None:
        """Raises what made this worker give up."""
        if self.failure is not None:
            raise self.failure

    def _recover(self, engine: Engine) -> None:
        """Go on with what dead workers left; what a person interrupted waits for `run resume`."""
        store = self._site.store
        for record in store.runs(status=RunStatus.running, limit=100_000):
            if engine.ended(record.id):
                lost = ErrorText(
                    code="StepFailed", message="the run ended without a result", hint="reimage the host again"
                )
                store.set_run(record.id, status=RunStatus.failed, error=lost)
                continue
            self.resumed.append(record.id)
            logger.info("going on with run %s of %s", record.id, record.host)
            engine.start(record.id)

    def _pick_up(self) -> None:
        engine, store = self._engine, self._site.store
        started: set[str] = set()
        wrong = 0
        while engine is not None and not self._stop.wait(_PICK_UP):
            try:
                store.heartbeat(engine.executor, pid=os.getpid(), hostname=socket.gethostname())
                queued = store.runs(status=RunStatus.queued, limit=1000)
                started &= {record.id for record in queued}  # left for a person meanwhile, it may be queued again
                for record in queued:
                    if record.id not in started:
                        started.add(record.id)
                        engine.start(record.id)
                wrong = 0
            except Exception as exc:  # noqa: BLE001  # of SQLite, or of the engine's database
                wrong += 1
                if wrong > _PATIENCE:
                    self._give_up(exc)

    def _roll_out(self) -> None:
        """What is under way goes on without this thread; it begins what is next."""
        wrong = 0
        with ThreadPoolExecutor(PLANNERS, thread_name_prefix="plan") as planners:
            driver = Driver(self._site.store, self._guards, SiteAround(self._site), planners, by=who())
            while not self._stop.wait(_PICK_UP):
                try:
                    driver.tick()
                    wrong = 0
                except Exception as exc:
                    logger.debug("rollouts", exc_info=True)
                    wrong += 1
                    if wrong > _PATIENCE:
                        self._give_up(exc)
            planners.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """Stop at once; steps under way are left unfinished, for the next worker."""
        self._stop.set()
        for thread in (self._thread, self._rollouts):
            if thread is not None:
                thread.join(timeout=5)
        for watcher in (self._aftermath, self._presence):
            if watcher is not None:
                watcher.join()
        if self._engine is not None:
            self._engine.stop()
            self._engine = None
        if self._netboot is not None:
            self._netboot.stop()
            self._netboot = None
        if self._boot is not None:
            self._boot.stop()
            self._boot = None
        self._lock.release()
