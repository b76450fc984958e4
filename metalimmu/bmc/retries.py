"""Whether a request is sent again, and when: one rule for the blocking connector and the asynchronous collector. Pure."""

from __future__ import annotations

from metalimmu.bmc import answers
from metalimmu.bmc.unknown import NotSent
from metalimmu.errors import BmcBusy, BmcError, BmcUnreachable

READS = frozenset({"GET", "HEAD"})
FAULT_ATTEMPTS = 3
"""For 500: one that stays (sushy-tools' Storage) must not cost the whole patience for each resource; 503 may."""


class Retries:
    """One request's history. `after_*` give the seconds to wait before it is sent again, None when it is not.

    Reads are repeated while the BMC is busy or away; a write only when not a byte of it was sent, because a second POST
    may be a second action.
    """

    def __init__(self, method: str) -> None:
        self._reads = method in READS
        self._attempts = 0
        self._faults = 0

    def after_answer(self, status: int, retry_after: float | None, jitter: float) -> float | None:
        """`retry_after` is what the BMC asked for; `jitter` is between 0 and 1."""
        usual = self._usual(jitter)
        self._faults += status == 500
        if status not in answers.BUSY or not self._reads or self._faults >= FAULT_ATTEMPTS:
            return None
        return usual if retry_after is None else max(retry_after, 0.1)

    def after_error(self, error: BmcError, jitter: float) -> float | None:
        usual = self._usual(jitter)
        if isinstance(error, BmcBusy):  # already at the log-in: the request itself was not sent
            return usual
        if isinstance(error, BmcUnreachable) and (self._reads or isinstance(error, NotSent)):
            return usual
        return None

    def _usual(self, jitter: float) -> float:
        self._attempts += 1
        return float(min(0.4 * 2**self._attempts, 8.0) * (0.5 + jitter))
