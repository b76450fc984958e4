"""Many conversations at once: who begins when, and what comes back. Memory is that of the window, not of the fleet."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from metalimmu import log
from metalimmu.bmc.address import base_url
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.budget import Account, Budget, Full, NoTurn
from metalimmu.bmc.collect.conversation import Conversation, Shared
from metalimmu.bmc.collect.gate import Gate
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
LOOK_AHEAD = 20_000
"""Targets that are looked at while the racks of those before them have no turn."""
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
) -> AsyncIterator[Collected[T]]:
    """Each target's result as soon as it is there: none lost, none twice, in no order.

    `reader` makes a reader for a target (see `ask`), for example ``lambda t: walk(t, want, memory)``. `folder` is where
    relative `file:` references begin. `credentials` replaces the reading of references. Never raises for what one BMC
    does; leaving the loop early (or cancelling it) logs out everywhere.
    """
    fleet = Fleet(
        targets,
        reader,
        settings or CollectSettings(),
        ledger or PROCESS,
        budget,
        credentials or Secrets(folder).of,
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
    ) -> None:
        self.results: deque[Collected[T]] = deque()
        self._rest: Iterator[ScanTarget] = iter(targets)
        self._put_back: ScanTarget | None = None
        self._drained = False
        self._reader = reader
        self._budget = budget
        self._credentials = credentials
        self._most = _descriptors(settings.window * SILENT_SHARE)
        window = min(settings.window, self._most)
        self._gate = Gate(settings.max_refused)
        self._window = Window(window, self._left)
        self._shared = Shared(settings, ledger, self._gate, self._window)
        self._backlog = 2 * window
        self._running: set[asyncio.Task[None]] = set()
        self._parked: dict[str | None, deque[ScanTarget]] = {}
        self._parked_count = 0
        self._open: dict[str | None, None] = {}  # racks with parked targets that may have a turn
        self._busy: set[str] = set()  # BMCs that are being talked to
        self._twins: dict[str, deque[ScanTarget]] = {}  # further targets behind one of these
        self._changed: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._progress = self._loop.time()
        self._said = False

    @property
    def finished(self) -> bool:
        return self._drained and not (self._running or self._parked_count or self._twins or self.results)

    def start_more(self) -> None:
        """As many as may begin now. Not ahead of a consumer that does not keep up."""
        while not self._window.full and len(self._running) < self._most and len(self.results) < self._backlog:
            if self._gate.stopped:
                self._refuse_some()
                return
            found = self._next()
            if found is None:
                return
            target, account, place = found
            self._progress = self._loop.time()
            task = self._loop.create_task(self._one(target, account, place))
            self._running.add(task)
            task.add_done_callback(self._ended)

    async def change(self) -> None:
        """Until something ends, or for a glance at what other processes have given back."""
        self._changed = self._loop.create_future()
        waits = self._parked_count > 0
        timer = self._loop.call_later(GLANCE, self._look_again) if waits else None
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

    # who begins

    def _next(self) -> tuple[ScanTarget, Account | None, Place] | None:
        """The first that may begin. A rack that is full keeps its targets for later, and others go before them."""
        while self._open:
            name = next(iter(self._open))
            queue = self._parked[name]
            place = self._try(queue[0])
            if place is Full.site:
                return None
            del self._open[name]
            if not isinstance(place, Full):
                target = queue.popleft()
                self._parked_count -= 1
                if queue:
                    self._open[name] = None
                else:
                    del self._parked[name]
                return target, *place
        while self._parked_count < LOOK_AHEAD and (fresh := self._pull()) is not None:
            if self._answered(fresh) or self._twin(fresh):
                continue
            place = Full.rack if rack(fresh) in self._parked else self._try(fresh)
            if not isinstance(place, Full):
                return fresh, *place
            if place is Full.site:
                self._put_back = fresh
                return None
            self._park(fresh)
        return None

    def _try(self, target: ScanTarget) -> tuple[Account | None, Place] | Full:
        name, base = rack(target), base_url(target.bmc)
        account = self._budget.account(base, name, bulk=True) if self._budget else None
        place = self._window.try_enter(account, name)
        if isinstance(place, Full):
            return place
        self._busy.add(base)
        return account, place

    def _pull(self) -> ScanTarget | None:
        target, self._put_back = self._put_back or next(self._rest, None), None
        self._drained = target is None
        return target

    def _park(self, target: ScanTarget) -> None:
        self._parked.setdefault(rack(target), deque()).append(target)
        self._parked_count += 1

    def _twin(self, target: ScanTarget) -> bool:
        """Another host behind a BMC that is being talked to: after it, for one conversation per BMC is enough."""
        base = base_url(target.bmc)
        if base in self._busy:
            self._twins.setdefault(base, deque()).append(target)
        return base in self._busy

    def _untwin(self, base: str) -> None:
        self._busy.discard(base)
        waiting = self._twins.get(base)
        if waiting:
            target = waiting.popleft()
            self._busy.add(base)  # until it begins: a third one must not come in between
            self._park(target)
            self._open[rack(target)] = None
            if not waiting:
                del self._twins[base]

    def _answered(self, target: ScanTarget) -> bool:
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

    def _refuse_some(self) -> None:
        """The scan has stopped: nobody new is asked."""
        self._open.clear()
        while len(self.results) < self._backlog and (target := self._anyone()) is not None:
            self.results.append(_failed(target, self._gate.error()))

    def _anyone(self) -> ScanTarget | None:
        for name, queue in self._parked.items():
            self._parked_count -= 1
            target = queue.popleft()
            if not queue:
                del self._parked[name]
            return target
        for base, twins in self._twins.items():
            target = twins.popleft()
            if not twins:
                del self._twins[base]
            return target
        return self._pull()

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
            self._untwin(base_url(target.bmc))
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
        """A place in this rack became free: others may begin there."""
        if name in self._parked:
            self._open[name] = None
        self._wake()

    def _look_again(self) -> None:
        self._open = dict.fromkeys(self._parked)
        limit = self._shared.settings.total
        if not self._running and self._loop.time() - self._progress > limit:
            for queue in self._parked.values():
                self.results += (_failed(t, NoTurn(f"{t.name}: no turn became free in {limit:.0f} s")) for t in queue)
            self._parked, self._open, self._parked_count = {}, {}, 0
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
