"""The boot failed before anything was written: the same run goes on by the next method that its plan has."""

from __future__ import annotations

from typing import Any

from metalimmu.errors import BmcError, StepTimeout, by_code
from metalimmu.plan.method import STEPS
from metalimmu.plan.types import PlanStep, Way
from metalimmu.workflows.context import Context

MAY_FAIL = frozenset({"read", "fetch", "check-in"} | {n for names in STEPS.values() for n in names[:2]})
"""Steps whose failure says that the method does not work here. Power that does not obey would not obey another one either."""


def next_way(c: Context, step: str, result: dict[str, Any], *, written: bool) -> Way | None:
    """None: the failure stands."""
    if not c.plan.ways or step not in MAY_FAIL or result["outcome"] != "failed":
        return None
    kind = by_code(str(result.get("error", {}).get("code", "")))
    if not issubclass(kind, (BmcError, StepTimeout)):
        return None  # another machine, a refusal, a fault: no method mends that
    d = c.deployment()
    if d is None or written or d.check_in is not None or d.system_ok or d.failure is not None or d.refusal is not None:
        return None
    return c.plan.ways[0]


def switch(c: Context, way: Way, step: str, why: str) -> None:
    """The deployment is the same, and so is its token; its machine has not been started by the new method."""
    c.tools.store.update_deployment(c.run, method=way.method, offered=None, intent="", intent_at=None)
    c.event("falls-back", f"{c.host}: {c.plan.method} does not work, {way.method} is tried: {step}: {why}")


def left(c: Context, way: Way) -> list[PlanStep]:
    """The steps from the new method's first one on; the plan is that method's from now on."""
    first = min(i for i, s in enumerate(c.plan.steps) if s.name in STEPS[c.plan.method])
    c.plan = c.plan.by(way)
    return list(c.plan.steps[first:])
