"""Logins of one scan: few at first, more as they turn out to be good, none after too many were refused."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque

from metalimmu.errors import ScanStopped


class _Version:
    """One version of credentials."""

    def __init__(self) -> None:
        self.good = 0
        self.flying = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Gate:
    """At one moment, at most as many logins with one version of credentials are under way as may still be refused, plus
    as many as were good. So a wrong password is refused by `most` BMCs and not by a thousand at once (which locks an
    account that many BMCs share), and a right one is soon used everywhere: what is allowed doubles with each round trip.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._refused: list[str] = []
        self._versions: defaultdict[str, _Version] = defaultdict(_Version)

    @property
    def stopped(self) -> bool:
        return len(self._refused) >= self._most

    def error(self) -> ScanStopped:
        names = ", ".join(self._refused[:5])
        times = "1 login was" if len(self._refused) == 1 else f"{len(self._refused)} logins were"
        return ScanStopped(f"not asked: the scan stopped when {times} refused ({names})")

    async def enter(self, version: str) -> Pass:
        """Raises ScanStopped."""
        state = self._versions[version]
        if not self.stopped and (state.waiting or state.flying >= self._allowed(state)):
            waiter = asyncio.get_running_loop().create_future()
            state.waiting.append(waiter)
            try:
                await waiter  # whoever wakes us has counted us as flying
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.leave(version)
                raise
        else:
            state.flying += 1
        if self.stopped:
            self.leave(version)
            raise self.error()
        return Pass(self, version)

    def leave(self, version: str) -> None:
        self._versions[version].flying -= 1
        self._wake()

    def good(self, version: str) -> None:
        self._versions[version].good += 1
        self._wake()

    def refused(self, name: str) -> None:
        self._refused.append(name)
        self._wake()

    def _allowed(self, state: _Version) -> int:
        return self._most - len(self._refused) + state.good

    def _wake(self) -> None:
        for state in self._versions.values():
            while state.waiting and (self.stopped or state.flying < self._allowed(state)):
                waiter = state.waiting.popleft()
                if not waiter.done():
                    state.flying += 1
                    waiter.set_result(None)


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
