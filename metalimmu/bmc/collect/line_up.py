"""Who is read next: in the order given, but a rack that is full does not hold up the others, and no BMC is read twice at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from metalimmu.bmc.address import base_url
from metalimmu.bmc.budget import Full
from metalimmu.bmc.collect.types import ScanTarget
from metalimmu.bmc.ports import rack

P = TypeVar("P")
LOOK_AHEAD = 20_000
"""Targets that are looked at while the racks of those before them have no turn."""


class LineUp:
    """Draws targets as they are needed."""

    def __init__(self, targets: Iterable[ScanTarget], refused: Callable[[ScanTarget], bool]) -> None:
        """`refused` takes away those that cannot be read at all."""
        self._rest = iter(targets)
        self._refused = refused
        self._put_back: ScanTarget | None = None
        self._drained = False
        self._parked: dict[str | None, deque[ScanTarget]] = {}
        self._parked_count = 0
        self._open: dict[str | None, None] = {}  # racks with parked targets that may have a turn
        self._busy: set[str] = set()  # BMCs that are being talked to
        self._twins: dict[str, deque[ScanTarget]] = {}  # further targets behind one of these

    @property
    def empty(self) -> bool:
        return self._drained and not (self._parked_count or self._twins)

    @property
    def waits(self) -> bool:
        """Somebody waits for a turn, which another process may give back without a word."""
        return bool(self._parked_count or self._put_back)

    def next(self, enter: Callable[[ScanTarget], P | Full]) -> tuple[ScanTarget, P] | None:
        """The first that may begin, with what `enter` gave for it. It counts as talked to until `ended`."""
        while self._open:
            name = next(iter(self._open))
            queue = self._parked[name]
            place = enter(queue[0])
            if place is Full.site:
                return None
            del self._open[name]
            if not isinstance(place, Full):
                target = self._unpark(name)
                if name in self._parked:
                    self._open[name] = None
                return self._begun(target, place)
        while self._parked_count < LOOK_AHEAD and (fresh := self._pull()) is not None:
            if self._refused(fresh) or self._twin(fresh):
                continue
            place = Full.rack if rack(fresh) in self._parked else enter(fresh)
            if not isinstance(place, Full):
                return self._begun(fresh, place)
            if place is Full.site:
                self._put_back = fresh
                return None
            self._park(fresh)
        return None

    def anyone(self) -> ScanTarget | None:
        """Whoever is left, when nobody is to begin any more."""
        self._open.clear()
        for name in self._parked:
            return self._unpark(name)
        for base, twins in self._twins.items():
            target = twins.popleft()
            if not twins:
                del self._twins[base]
            return target
        return self._pull()

    def left(self, name: str | None) -> None:
        """A place in this rack became free."""
        if name in self._parked:
            self._open[name] = None

    def look_again(self) -> None:
        """Another process may have given turns back, in any rack."""
        self._open = dict.fromkeys(self._parked)

    def ended(self, target: ScanTarget) -> None:
        """Another host behind the same BMC may begin."""
        base = base_url(target.bmc)
        self._busy.discard(base)
        waiting = self._twins.get(base)
        if waiting:
            self._busy.add(base)  # until it begins: a third one must not come in between
            self._park(waiting[0])
            self._open[rack(waiting.popleft())] = None
            if not waiting:
                del self._twins[base]

    def _begun(self, target: ScanTarget, place: P) -> tuple[ScanTarget, P]:
        self._busy.add(base_url(target.bmc))
        return target, place

    def _pull(self) -> ScanTarget | None:
        target, self._put_back = self._put_back or next(self._rest, None), None
        self._drained = target is None
        return target

    def _park(self, target: ScanTarget) -> None:
        self._parked.setdefault(rack(target), deque()).append(target)
        self._parked_count += 1

    def _unpark(self, name: str | None) -> ScanTarget:
        queue = self._parked[name]
        self._parked_count -= 1
        target = queue.popleft()
        if not queue:
            del self._parked[name]
        return target

    def _twin(self, target: ScanTarget) -> bool:
        """One conversation per BMC is enough."""
        base = base_url(target.bmc)
        if base in self._busy:
            self._twins.setdefault(base, deque()).append(target)
        return base in self._busy
