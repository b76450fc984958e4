"""One budget of requests for all that talks to a site's BMCs, in every process: scans, reimages, probes, people.

- per BMC a rate (GCRA: one time per BMC, "the next request may leave then"), and a time until which a BMC that said 503
  or broke off its connections is left alone by everybody;
- per rack and per site a number of turns: requests, or conversations with one request in flight each.

The times stand in a file that all processes map (`STATE/bmc-budget`); a turn is a lock on one byte of that file (open
file description locks, fcntl(2)), so the kernel gives it back in the moment in which its holder dies, however it dies.
Nothing here is needed for correctness: where the file cannot be made, each process keeps a budget of its own.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from metalimmu import log
from metalimmu.bmc.budget_file import BudgetFile
from metalimmu.errors import BmcBusy

LOG = log.get("bmc")

FARTHEST = 3600.0
"""A time further ahead than that is no time that anybody wrote on purpose."""
SHARE = 8
"""One in so many turns is left for single acts, so that a scan does not hold up a reimage."""
GLANCE = 0.03
"""Seconds between two looks for a free turn; nobody tells other processes that one is free."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """None is no limit."""

    rate: float | None = None  # requests per second to one BMC
    per_rack: int | None = None
    per_site: int | None = 1000


class Full(enum.Enum):
    """Why there is no turn at this moment."""

    site = "site"
    rack = "rack"


class NoTurn(BmcBusy):
    """Not sent: the budget had no turn for it within the patience."""

    default_hint = "try again later, or raise `bmc.rate`, `bmc.per_rack` or `bmc.per_site` in site.yaml"


class Budget:
    """`file` None is a budget of this process alone. Safe for threads and for one asyncio loop."""

    def __init__(self, limits: Limits | None = None, file: Path | None = None) -> None:
        self.limits = limits or Limits()
        self._file = BudgetFile.open(file)
        self._lock = threading.Lock()
        self._held: set[int] = set()  # bytes that this process has locked: its own locks are no obstacle to itself

    def close(self) -> None:
        """From now on nothing is limited: what still runs ends soon."""
        self._file.close()

    def account(self, bmc: str, rack: str | None = None, *, bulk: bool = False) -> Account:
        """For one BMC (any text that names it, everywhere the same: its URL). `bulk` leaves turns for single acts."""
        return Account(self, bmc, rack, bulk=bulk)

    # turns

    def enter(self, rack: str | None, *, bulk: bool = False) -> Turn | Full:
        """A turn, or what is full at this moment. Microseconds."""
        with self._lock:
            taken: list[int] = []
            if self.limits.per_site is not None:
                place = self._claim(_TURNS, self.limits.per_site, bulk)
                if place is None:
                    return Full.site
                taken.append(place)
            if self.limits.per_rack is not None and rack is not None:
                place = self._claim(_TURNS + (zlib.crc32(rack.encode()) + 1) * _WIDTH, self.limits.per_rack, bulk)
                if place is None:
                    self._release(taken)
                    return Full.rack
                taken.append(place)
            return Turn(self, taken)

    def _claim(self, base: int, limit: int, bulk: bool) -> int | None:
        usable = limit - max(1, limit // SHARE) if bulk and limit > 1 else limit
        # Single acts begin at the end that is left to them; a scan begins anywhere.
        order = range(limit - 1, -1, -1) if not bulk else _rotated(usable)
        for i in order:
            place = base + i
            if place not in self._held and self._file.lock(place):
                self._held.add(place)
                return place
        return None

    def leave(self, places: list[int]) -> None:
        with self._lock:
            self._release(places)

    def _release(self, places: list[int]) -> None:
        for place in places:
            self._held.discard(place)
            self._file.unlock(place)

    # times

    def reserve(self, slot: int, key: bytes, patience: float) -> tuple[int, float]:
        """(slot, seconds to wait). The time is taken unless it lies further away than `patience`."""
        rate = self.limits.rate
        file = self._file
        now = time.monotonic()
        if file.closed:
            return slot, 0.0
        if rate is None:
            slot = file.look(slot, key)
            return slot, 0.0 if slot < 0 else _ahead(file.read(slot)[1], now)
        with self._lock, file.exclusive():
            slot = file.find(slot, key, now)
            due, until = file.read(slot)
            burst = max(1.0, rate)  # a second's worth
            at = max(now, now + _ahead(until, now), now + _ahead(due, now) - (burst - 1) / rate)
            if at - now <= patience:
                file.write(slot, now + max(_ahead(due, now), at - now) + 1 / rate, until)
            return slot, at - now

    def back_off(self, slot: int, key: bytes, seconds: float) -> int:
        now = time.monotonic()
        if self._file.closed:
            return slot
        with self._lock, self._file.exclusive():
            slot = self._file.find(slot, key, now)
            due, until = self._file.read(slot)
            self._file.write(slot, due, now + max(_ahead(until, now), min(seconds, FARTHEST)))
            return slot


_TURNS = 1 << 40  # far behind the times: a lock needs no byte that is there
_WIDTH = 1 << 16


def _rotated(count: int) -> Iterator[int]:
    start = int(random.random() * count)  # noqa: S311  not a secret
    for i in range(count):
        yield (start + i) % count


def _ahead(at: float, now: float) -> float:
    """Seconds until `at`; 0 when it has passed, or was never a time."""
    seconds = at - now
    return seconds if 0.0 < seconds <= FARTHEST + 60 else 0.0


class Turn:
    """Given back by `leave`, which may be called again, or by the end of the process."""

    __slots__ = ("_budget", "_places")

    def __init__(self, budget: Budget, places: list[int]) -> None:
        self._budget = budget
        self._places = places

    def leave(self) -> None:
        places, self._places = self._places, []
        if places:
            self._budget.leave(places)


class Account:
    """The budget as one conversation with one BMC sees it."""

    def __init__(self, budget: Budget, bmc: str, rack: str | None, *, bulk: bool) -> None:
        self.bmc = bmc
        self.rack = rack
        self._budget = budget
        self._bulk = bulk
        self._key = hashlib.blake2b(bmc.encode(), digest_size=8).digest()
        self._slot = -1

    def reserve(self, patience: float = FARTHEST) -> float:
        """Seconds until the next request may leave. Longer than `patience`: it may not, and nothing was taken."""
        self._slot, wait = self._budget.reserve(self._slot, self._key, patience)
        return wait

    def back_off(self, seconds: float) -> None:
        """Nobody sends this BMC a request for so long."""
        self._slot = self._budget.back_off(self._slot, self._key, seconds)

    def enter(self) -> Turn | Full:
        return self._budget.enter(self.rack, bulk=self._bulk)

    @contextlib.contextmanager
    def turn(self, patience: float, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Around one blocking request. Raises NoTurn after `patience` seconds."""
        wait = self.reserve(patience)
        if wait > patience:
            raise self.too_long(wait)
        if wait > 0:
            sleep(wait)
        deadline = time.monotonic() + patience - wait
        while isinstance(turn := self.enter(), Full):
            if time.monotonic() > deadline:
                raise self.none_free()
            sleep(GLANCE * (0.5 + random.random()))  # noqa: S311  not a secret
        try:
            yield
        finally:
            turn.leave()

    def too_long(self, wait: float) -> NoTurn:
        return NoTurn(
            f"{self.bmc}: it is left alone for {wait:.0f} s more, because it said that it is busy, or by its rate"
        )

    def none_free(self) -> NoTurn:
        limits = self._budget.limits
        rack = f", {limits.per_rack} in rack {self.rack}" if self.rack and limits.per_rack else ""
        return NoTurn(f"{self.bmc}: no turn became free ({limits.per_site} at once in the site{rack})")
