"""One health check over time: good for so long without a break, looked at so often, given up after so long. Pure.

What counts is what was seen: a check is good from the end of its first good look to the start of its last one, and time
in which nobody looked (a controller that was stopped) is no time in which it was good.
"""

from __future__ import annotations

from typing import Any

_KEPT = 10  # breaks at each end that the evidence has in full


class Watch:
    """Times are seconds of one clock that does not jump."""

    def __init__(self, *, hold: float, every: float, limit: float, patience: float, begun: float) -> None:
        """`patience`: seconds that may lie between two looks beyond `every`, as other checks are looked at meanwhile."""
        self._hold = hold
        self._every = every
        self._limit = limit
        self._gap = every + patience
        self._begun = begun
        self._next = begun
        self._since: float | None = None  # end of the first good look without a break
        self._last: float | None = None  # end of the last look
        self._good_until: float = begun  # start of the last good look
        self._breaks: list[dict[str, Any]] = []
        self._longest = 0.0
        self._looks = self._bad = 0
        self.words = "not looked at"

    def due(self, now: float) -> bool:
        return now >= self._next

    def saw(self, good: bool, words: str, *, start: float, end: float) -> str:
        """Take in one look. A sentence when something that was good is no longer, else nothing."""
        self._looks += 1
        self._next = start + self._every
        before, self._last, self.words = self._last, end, words
        broken = ""
        if before is not None and self._since is not None and start - before > self._gap:
            broken = self._break(before, f"nobody looked for {start - before:.0f} s")
        if not good:
            self._bad += 1
            if self._since is not None:
                broken = self._break(start, words)
            return broken
        if self._since is None:
            self._since = end
        self._good_until = max(start, self._since)
        self._longest = max(self._longest, self.held)
        return broken

    def _break(self, at: float, words: str) -> str:
        held = self.held
        self._breaks.append({"after": round(at - self._begun, 1), "good_for": round(held, 1), "words": words})
        self._since = None
        return f"was good for {held:.0f} s, then: {words}"

    @property
    def held(self) -> float:
        """Seconds that it was seen good without a break."""
        return 0.0 if self._since is None else self._good_until - self._since

    @property
    def steady(self) -> bool:
        return self._since is not None and self.held >= self._hold

    @property
    def breaks(self) -> int:
        return len(self._breaks)

    def given_up(self, now: float) -> bool:
        return not self.steady and now - self._begun > self._limit

    def verdict(self) -> str:
        """Why it was given up."""
        wanted = f"good for {self._hold:g} s without a break" if self._hold else "good"
        said = f"not {wanted} within {self._limit:g} s; last: {self.words}"
        if self._longest or self._breaks:
            said += f"; it was good for {self._longest:.0f} s at most, with {self.breaks} breaks"
        return said

    def evidence(self) -> dict[str, Any]:
        many = len(self._breaks) > 2 * _KEPT
        kept = [*self._breaks[:_KEPT], *self._breaks[-_KEPT:]] if many else list(self._breaks)
        return {
            "good": self.steady,
            "good_for": round(self.held, 1),
            "wanted_for": self._hold,
            "looks": self._looks,
            "bad": self._bad,
            "breaks": self.breaks,
            "history": kept,
            "last": self.words,
        }
