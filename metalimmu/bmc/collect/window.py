"""Who may talk at this moment: so many BMCs at once, and of these so many of a rack and a site as the budget has turns."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

from metalimmu.bmc.budget import GLANCE, Account, Full, NoTurn, Turn


class Window:
    def __init__(self, size: int, left: Callable[[str | None], None]) -> None:
        """`left` is told the rack in which a place became free."""
        self._free = size
        self._left = left
        self._waiting: Counter[str | None] = Counter()

    def try_enter(self, account: Account | None, rack: str | None) -> Place | Full:
        """For a BMC that has not begun. Those that have, and fell silent, go first. `Full.site` is also a full window."""
        if self.full:
            return Full.site
        if self._waiting[rack]:
            return Full.rack
        return self._enter(account, rack)

    @property
    def full(self) -> bool:
        return self._free <= self._waiting.total()

    async def enter(self, account: Account | None, rack: str | None, patience: float) -> Place:
        """Waits: for one that fell silent and speaks again. Raises NoTurn."""
        deadline = time.monotonic() + patience
        self._waiting[rack] += 1
        try:
            while isinstance(place := self._enter(account, rack), Full):
                if time.monotonic() > deadline:
                    raise NoTurn(f"no turn became free in {patience:.0f} s")
                # Nobody tells us when another process gives a turn back.
                await asyncio.sleep(GLANCE * (0.5 + random.random()))  # noqa: S311  not a secret
            return place
        finally:
            self._waiting[rack] -= 1

    def _enter(self, account: Account | None, rack: str | None) -> Place | Full:
        if self._free <= 0:
            return Full.site
        turn = account.enter() if account else None
        if isinstance(turn, Full):
            return turn
        self._free -= 1
        return Place(self, turn, rack)

    def leave(self, rack: str | None) -> None:
        self._free += 1
        self._left(rack)


class Place:
    """Given back once, by whoever comes first: the end of the conversation or its silence."""

    __slots__ = ("_rack", "_turn", "_window", "held")

    def __init__(self, window: Window, turn: Turn | None, rack: str | None) -> None:
        self._window = window
        self._turn = turn
        self._rack = rack
        self.held = True

    def leave(self) -> None:
        if self.held:
            self.held = False
            if self._turn:
                self._turn.leave()
            self._window.leave(self._rack)
