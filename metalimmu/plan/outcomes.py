"""What the end of a host's run, or of its soak, makes of its place in the rollout: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from metalimmu.errors import GuardRefused, by_code
from metalimmu.plan.guards import Standing
from metalimmu.plan.waves import RowState

AGAIN = 10.0
"""Seconds before a host is tried again that a guard has refused just before anything was written."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How the newest run of a host ended."""

    run: str
    ok: bool
    cancelled: bool = False
    code: str = ""  # of metalimmu.errors
    text: str = ""
    touched: bool = False  # the host is in quarantine because of this run

    @property
    def held_up(self) -> bool:
        """A guard had the last word, and nothing was changed: this is no failure."""
        return not self.ok and not self.touched and issubclass(by_code(self.code), GuardRefused)


def ended(state: RowState, ending: Ending, soak: float, why: str, now: float, *, cancelling: bool) -> dict[str, Any]:
    """Fields that change. `why` is the reason that stood there: of a host that goes back, why it does."""
    if state is RowState.rolling_back:
        return _returned(ending, why, now)
    if ending.ok:
        if soak:
            return {"state": RowState.soaking, "after": now + soak, "reason": ""}
        return {"state": RowState.done, "reason": ""}
    if ending.held_up and not cancelling:
        return {"state": RowState.waiting, "after": now + AGAIN, "reason": ending.text}
    if ending.held_up or (ending.cancelled and not ending.touched):
        return {"state": RowState.untouched, "reason": ending.text}
    return {"state": RowState.failed, "reason": ending.text}


def _returned(ending: Ending, why: str, now: float) -> dict[str, Any]:
    if ending.ok:
        return {"state": RowState.rolled_back, "reason": f"{why or 'another host of its wave failed'}; it went back"}
    if ending.held_up:
        return {"state": RowState.failed, "after": now + AGAIN}
    # It is not tried again: what a person must look at is not hidden behind a third reimage.
    return {"state": RowState.failed, "before_image": None, "reason": f"{why}; going back failed: {ending.text}"}


def soaked(host: str, after: float, standing: Standing, now: float) -> Mapping[str, Any]:
    """Fields of a soaking host that change, if any."""
    if host not in standing.active and host not in standing.changing:
        reason = f"it did not stay well during its soak: `metalimmu history {host}` says what happened"
        return {"state": RowState.failed, "reason": reason}
    return {"state": RowState.done} if after <= now else {}
