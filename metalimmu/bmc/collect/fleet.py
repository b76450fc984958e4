"""Many conversations at once: who begins when, and what comes back. Memory is that of the window, not of the fleet."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from metalimmu import log
from metalimmu.bmc.address import base_url
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.budget import Account, Budget, Full, NoTurn
from metalimmu.bmc.collect.conversation import Conversation, Shared
from metalimmu.bmc.collect.gate import Gate
from metalimmu.bmc.collect.line_up import LineUp
from metalimmu.bmc.collect.secrets import Secrets
from metalimmu.bmc.collect.types import Collected, CollectSettings, ScanTarget
from metalimmu.bmc.collect.window import Place, Window
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import PROCESS, LoginLedger
from metalimmu.bmc.ports import rack
from metalimmu.errors import BmcBroken, BmcUnsupported, MetalimmuError

LOG = log.get("bmc")
T = TypeVar("T")
OTHERS = ("ipmi", "fake")
SILENT_SHARE = 4
"""So many times the window may be open at once, those included that keep silent and have given their place away."""
GLANCE = 0.2
SPARE_FILES = 256
COLLECT_EVERY = 25_000
"""New objects between two runs of Python's garbage collector: at the usual 700 it walks the documents of the whole window
three times for each BMC, and finds nothing. A tenth of the scan's CPU.
"""


async def collect(
    targets: Iterable[ScanTarget],
    reader: Callable[[ScanTarget], Asking[T]],
    *,
    settings: CollectSettings | None = None,
    ledger: LoginLedger | None = None,
    budget: Budget | None = None,
    folder: Path | None = None,
    credentials: Callable[[ScanTarget], Awaitable[Credentials | None]] | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Collected[T]]:
    """Each target's result as soon as it is there: none lost, none twice, in no order.

    `reader` makes a reader for a target (see `ask`), for example ``lambda t: walk(t, want, memory)``. `folder` is where
    relative `file:` references begin. `credentials` replaces the reading of references. `gate` is that of a scan which logs in
    elsewhere too; without it `settings.max_refused` makes one. Never raises for what one BMC
    does; leaving the loop early (or cancelling it) logs out everywhere.
    """
    fleet = Fleet(
        targets,
        reader,
        settings or CollectSettings(),
        ledger or PROCESS,
        budget,
        credentials or Secrets(folder).of,
        gate,
    )
    usual = gc.get_threshold()
    if usual[0]:  # 0: somebody has switched it off
        gc.set_threshold(max(usual[0], COLLECT_EVERY), *usual[1:])
    try:
        while True:
            fleet.start_more()
            if fleet.results:
                yield fleet.results.popleft()
            elif fleet.finished:
                return
            else:
                await fleet.change()
    finally:
        gc.set_threshold(*usual)
        await fleet.stop()


class Fleet(Generic[T]):
    def __init__(
        self,
        targets: Iterable[ScanTarget],
        reader: Callable[[ScanTarget], Asking[T]],
        settings: CollectSettings,
        ledger: LoginLedger,
        budget: Budget | None,
        credentials: Callable[[ScanTarget], Awaitable[Credentials | None]],
        gate: Gate | None = None,
    ) -> None:
        self.results: deque[Collected[T]] = deque()
        self._line_up = LineUp(targets, self._refused)
        self._reader = reader
        self._budget = budget
        self._credentials = credentials
        self._total = settings.total
        self._most = _descriptors(settings.window * SILENT_SHARE)
        window = min(settings.window, self._most)
        self._gate = gate or Gate(settings.max_refused)
        self._window = Window(window, self._left)
        self._shared = Shared(settings, ledger, self._gate, self._window)
        self._backlog = 2 * window
        self._running: set[asyncio.Task[None]] = set()
        self._changed: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._progress = self._loop.time()
        self._said = False

    @property
    def finished(self) -> bool:
        return self._line_up.empty and not (self._running or self.results)

    def start_more(self) -> None:
        """As many as may begin now. Not ahead of a consumer that does not keep up."""
        while not self._window.full and len(self._running) < self._most and len(self.results) < self._backlog:
            if self._gate.stopped:
                self._give_up(lambda _: self._gate.error())
                return
            found = self._line_up.next(self._enter)
            if found is None:
                return
            target, (account, place) = found
            self._progress = self._loop.time()
            task = self._loop.create_task(self._one(target, account, place))
            self._running.add(task)
            task.add_done_callback(self._ended)

    async def change(self) -> None:
        """Until something ends, or for a glance at what other processes have given back."""
        self._changed = self._loop.create_future()
        timer = self._loop.call_later(GLANCE, self._look_again) if self._line_up.waits else None
        try:
            await self._changed
        finally:
            self._changed = None
            if timer:
                timer.cancel()

    async def stop(self) -> None:
        """Cancel what runs; each logs out."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)

    def _enter(self, target: ScanTarget) -> tuple[Account | None, Place] | Full:
        name = rack(target)
        account = self._budget.account(base_url(target.bmc), name, bulk=True) if self._budget else None
        place = self._window.try_enter(account, name)
        return place if isinstance(place, Full) else (account, place)

    def _refused(self, target: ScanTarget) -> bool:
        """Not ours to read, or no address."""
        scheme = target.bmc.partition("://")[0]
        try:
            if scheme in OTHERS:
                raise BmcUnsupported(f"{target.name}: a scan over {scheme}:// does not go through this collector")
            base_url(target.bmc)
        except MetalimmuError as exc:
            self.results.append(_failed(target, exc))
            return True
        self._warn(target)
        return False

    def _give_up(self, why: Callable[[ScanTarget], MetalimmuError]) -> None:
        """Nobody new is asked."""
        while len(self.results) < self._backlog and (target := self._line_up.anyone()) is not None:
            self.results.append(_failed(target, why(target)))

    # one of them

    async def _one(self, target: ScanTarget, account: Account | None, place: Place) -> None:
        began, at = self._loop.time(), time.time()
        value: T | None = None
        failure: MetalimmuError | None = None
        talk: Conversation | None = None
        try:
            login = await self._credentials(target)
            talk = Conversation(target, login, self._shared, account, place)
            value = await talk.run(self._reader(target))
            failure = talk.away
        except MetalimmuError as exc:
            failure = exc
        except Exception as exc:  # a fault of ours in reading an odd answer costs this BMC's result, not the scan
            LOG.exception("%s: the reading failed", target.name)
            failure = BmcBroken(f"{target.name}: reading failed: {type(exc).__name__}: {exc}")
        finally:
            if talk is not None:
                await talk.close()
                place = talk.place
            place.leave()
            self._line_up.ended(target)
        requests = talk.requests if talk else 0
        seconds = self._loop.time() - began
        self.results.append(
            Collected(target=target, at=at, value=value, failure=failure, requests=requests, seconds=seconds)
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._progress = self._loop.time()
        self._wake()

    def _left(self, name: str | None) -> None:
        self._line_up.left(name)
        self._wake()

    def _look_again(self) -> None:
        self._line_up.look_again()
        if not self._running and self._loop.time() - self._progress > self._total:
            self._give_up(lambda target: NoTurn(f"{target.name}: no turn became free in {self._total:.0f} s"))
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _warn(self, target: ScanTarget) -> None:
        """Once for a scan: ten thousand lines would not be read."""
        if self._said or (target.bmc.startswith("redfish+https") and (target.tls.verify or target.tls.fingerprint)):
            return
        self._said = True
        what = (
            "is spoken to in the clear"
            if target.bmc.startswith("redfish+http:")
            else "has its certificate not verified"
        )
        LOG.warning("%s (and perhaps others) %s; set tls.fingerprint or tls.ca", target.bmc, what)


def _failed(target: ScanTarget, error: MetalimmuError) -> Collected[T]:
    return Collected(target=target, at=time.time(), value=None, failure=error, requests=0, seconds=0.0)


def _descriptors(wanted: int) -> int:
    """How many connections this process may have: the soft limit is raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - SPARE_FILES))
