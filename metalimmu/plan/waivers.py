"""Which findings are waived: accepted by a person, for a value and until a day."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from metalimmu.desired.waiver import Waiver, accepted_at
from metalimmu.plan.types import DRIFT, Finding


class Waivers:
    """The waivers of a site, found by host and setting. Pure."""

    def __init__(self, waivers: Iterable[Waiver]) -> None:
        self._by: dict[tuple[str, str], list[Waiver]] = {}
        for waiver in waivers:
            for host in waiver.hosts:
                self._by.setdefault((host, waiver.setting), []).append(waiver)

    @property
    def hosts(self) -> frozenset[str]:
        """Those of which something is waived."""
        return frozenset(host for host, _ in self._by)

    def all_of(self, host: str, setting: str) -> tuple[Waiver, ...]:
        return tuple(self._by.get((host, setting), ()))

    def younger(self, finding: Finding, moment: float) -> bool:
        """Does it depend on when the value was first seen so? Not if that was before all waivers of it were accepted."""
        return any(moment > (accepted_at(w) or 0.0) for w in self.all_of(finding.host, finding.setting))

    def why(self, finding: Finding, now: float, began: float) -> str:
        """`until DAY: REASON` while a waiver holds; else empty. An unknown is not waived: nobody knows what would be accepted.
        `began`: when the value was first seen to be as it is, without a break.
        """
        if not self._by or finding.word not in DRIFT:
            return ""
        held = [w for w in self.all_of(finding.host, finding.setting) if not lapsed(w, finding.actual, now, began)]
        best = max(held, key=lambda w: w.until, default=None)
        return f"until {best.until}: {best.reason}" if best else ""

    def apply(self, finding: Finding, now: float, began: float) -> Finding:
        """With `waived` set as `why` says."""
        why = self.why(finding, now, began)
        return msgspec.structs.replace(finding, waived=why) if why != finding.waived else finding


def lapsed(waiver: Waiver, actual: str, now: float, began: float) -> str:
    """Why it does not hold for this value, which is as it is since `began`, in words; empty: it holds."""
    if time.strftime("%Y-%m-%d", time.gmtime(now)) > waiver.until:
        return f"its day, {waiver.until}, has passed"
    if actual != waiver.actual:
        return f"the value is {actual or 'missing'} now, {waiver.actual or 'that it is missing'} was accepted"
    if began > (accepted_at(waiver) or 0.0):
        return "the value has changed since it was accepted, and has come back"
    return ""
