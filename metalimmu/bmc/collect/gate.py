"""Logins of one scan: few at first, more as they turn out to be good, none after too many were refused.

For all that a scan talks to: Redfish in an asyncio loop, IPMI in threads. So nothing in here belongs to one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from metalimmu.errors import ScanStopped

LOOK = 0.5
"""Seconds between two looks of a waiting thread at whether it is still wanted."""


class _Version:
    """One version of credentials."""

    def __init__(self) -> None:
        self.good = 0
        self.flying = 0


class _Waiter:
    """Whoever lets it in has counted it as flying."""

    __slots__ = ("inside", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.inside = False


class Gate:
    """At one moment, at most as many logins are under way as may still be refused, plus as many as were good: with one
    version of credentials, and with all of them. So a wrong password is refused by `most` BMCs and not by a thousand at
    once (which locks an account that many BMCs share), and a right one is soon used everywhere: what is allowed doubles
    with each round trip.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._refused: list[str] = []
        self._versions: dict[str, _Version] = {}
        self._all = _Version()
        self._waiting: dict[str, deque[_Waiter]] = {}

    @property
    def stopped(self) -> bool:
        return len(self._refused) >= self._most

    def error(self) -> ScanStopped:
        names = ", ".join(self._refused[:5])
        times = "1 login was" if len(self._refused) == 1 else f"{len(self._refused)} logins were"
        return ScanStopped(f"not asked: the scan stopped when {times} refused ({names})")

    async def enter(self, version: str) -> Pass:
        """Raises ScanStopped."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits in it
                loop.call_soon_threadsafe(_done, future)

        waiter = self._come(version, wake)
        try:
            if not waiter.inside:
                await future
        except asyncio.CancelledError:
            self._withdraw(version, waiter)
            raise
        return self._let_in(version)

    def enter_in_thread(self, version: str, given_up: Callable[[], bool]) -> Pass:
        """Blocks; `given_up` is looked at meanwhile. Raises ScanStopped."""
        event = threading.Event()
        waiter = self._come(version, event.set)
        while not waiter.inside and not event.wait(LOOK):
            if given_up():
                self._withdraw(version, waiter)
                raise ScanStopped("not asked: the scan has ended")
        return self._let_in(version)

    def leave(self, version: str) -> None:
        with self._lock:
            self._left(version)

    def good(self, version: str) -> None:
        with self._lock:
            self._version(version).good += 1
            self._all.good += 1
            self._wake()

    def refused(self, name: str) -> None:
        with self._lock:
            self._refused.append(name)
            self._wake()

    def _let_in(self, version: str) -> Pass:
        if self.stopped:
            self.leave(version)
            raise self.error()
        return Pass(self, version)

    # with the lock held, or taking it

    def _come(self, version: str, wake: Callable[[], None]) -> _Waiter:
        waiter = _Waiter(wake)
        with self._lock:
            if self.stopped or (version not in self._waiting and self._room(version)):
                self._enter(version, waiter)
            else:
                self._waiting.setdefault(version, deque()).append(waiter)
        return waiter

    def _withdraw(self, version: str, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.inside:
                self._left(version)
            elif waiter in (queue := self._waiting.get(version, deque())):
                queue.remove(waiter)
                if not queue:
                    del self._waiting[version]

    def _version(self, version: str) -> _Version:
        return self._versions.setdefault(version, _Version())

    def _room(self, version: str) -> bool:
        return all(state.flying < self._allowed(state) for state in (self._all, self._version(version)))

    def _allowed(self, state: _Version) -> int:
        return self._most - len(self._refused) + state.good

    def _enter(self, version: str, waiter: _Waiter) -> None:
        self._version(version).flying += 1
        self._all.flying += 1
        waiter.inside = True

    def _left(self, version: str) -> None:
        self._version(version).flying -= 1
        self._all.flying -= 1
        self._wake()

    def _wake(self) -> None:
        for version in list(self._waiting):
            if not self.stopped and self._all.flying >= self._allowed(self._all):
                return
            queue = self._waiting[version]
            while queue and (self.stopped or self._room(version)):
                waiter = queue.popleft()
                self._enter(version, waiter)
                waiter.wake()
            if not queue:
                del self._waiting[version]


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Pass:
    """One login under way; ends once, with what became of it."""

    __slots__ = ("_gate", "_version")

    def __init__(self, gate: Gate, version: str) -> None:
        self._gate = gate
        self._version: str | None = version

    def unknown(self) -> None:
        """It ended without an answer, or takes so long that others need not wait for it."""
        version, self._version = self._version, None
        if version is not None:
            self._gate.leave(version)

    def good(self) -> None:
        if self._version is not None:
            self._gate.good(self._version)
        self.unknown()

    def refused(self, name: str) -> None:
        self._gate.refused(name)
        self.unknown()
