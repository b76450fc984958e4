"""What images may take of the machines' network: bytes per second of a rack, and agents that write at once.

Both are kept in memory: a site has one boot service. What is lost when it restarts comes back with what the agents say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST = 0.25  # seconds' worth that may leave at once after silence
PIECE = 64 * 1024  # bytes that are waited for together; an agent gives up a connection that is silent for 30 s
SILENT = 180.0  # seconds after which an agent that wrote is thought to be gone
GONE = 45.0  # the same for one that waits; it asks every 10 s
SETTLE = 15.0  # seconds after our start in which agents that write make themselves heard (they back off up to 10 s)

Clock = Callable[[], float]


class Bucket:
    """Bytes per second for many senders: each gets its time, in the order of asking (GCRA, ITU-T I.371)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = 0.0

    def take(self, size: int, now: float) -> float:
        """Seconds until these bytes may leave; they are taken."""
        at = max(self._due, now - BURST)
        self._due = at + size / self._rate
        return max(0.0, at - now)


class Racks:
    """One bucket for each rack; hosts that say none share one. `rate` None is no limit."""

    def __init__(
        self,
        rate: float | None,
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._buckets: dict[str, Bucket] = {}

    @property
    def limited(self) -> bool:
        return self._rate is not None

    async def pace(self, rack: str, size: int) -> None:
        """Returns when these bytes may leave."""
        if self._rate is None:
            return
        wait = self._buckets.setdefault(rack, Bucket(self._rate)).take(size, self._clock())
        if wait > 0:
            await self._sleep(wait)


class Turns:
    """Which agents may write: so many at once, the others in the order in which they first asked. `most` None: all."""

    def __init__(self, most: int | None, *, clock: Clock = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._began = clock()
        self._writing: dict[str, float] = {}  # deployment -> last heard
        self._waiting: dict[str, float] = {}  # in order

    def ask(self, deployment: str) -> str:
        """Empty: it may write. Else why it waits; it asks again."""
        if self._most is None:
            return ""
        now = self._clock()
        self._forget(now)
        if deployment in self._writing:
            self._writing[deployment] = now
            return ""
        self._waiting[deployment] = now
        before = list(self._waiting).index(deployment)
        settling = now - self._began < SETTLE
        if settling or before >= self._most - len(self._writing):
            many = f"{len(self._writing)} of {self._most} agents write now (boot.agents)"
            return f"{many}, {before} wait before it" if not settling else f"{many}; the controller has just started"
        del self._waiting[deployment]
        self._writing[deployment] = now
        return ""

    def heard(self, deployment: str) -> None:
        """It writes; also one that got its turn before we were started."""
        if self._most is not None:
            self._waiting.pop(deployment, None)
            self._writing[deployment] = self._clock()

    def done(self, deployment: str) -> None:
        self._writing.pop(deployment, None)
        self._waiting.pop(deployment, None)

    def _forget(self, now: float) -> None:
        for heard, limit in ((self._writing, SILENT), (self._waiting, GONE)):
            for name in [n for n, at in heard.items() if now - at > limit]:
                del heard[name]
