"""A step and how it is performed. The same `observe` serves a first run, a second run and recovery after a crash."""

from __future__ import annotations

from typing import Any, ClassVar

from metalimmu import log
from metalimmu.engine.durable import Interrupted
from metalimmu.errors import BmcError, LeaseLost, MetalimmuError, StepTimeout, StoreError
from metalimmu.workflows.context import Cancelled, Context

logger = log.get("workflows")

Evidence = dict[str, Any]


class Step:
    """Observe, act, and wait until it is so. A step overrides what it needs."""

    name: ClassVar[str]
    pause: ClassVar[float] = 2.0  # seconds between looks
    again: ClassVar[float | None] = None  # act again after this share of the limit: BMCs accept and do nothing
    wakes: ClassVar[bool] = False  # a message of the machine ends the pause

    def observe(self, c: Context) -> Evidence | None:
        """What shows that the step is done, with a `summary`; None while it is not."""
        raise AssertionError(c)

    def act(self, c: Context) -> None:
        """Make it so; asked once, or more often when it had no effect or could not be asked."""

    def tend(self, c: Context) -> None:
        """While waiting: look at what may have been lost behind our back."""

    def held(self, c: Context) -> bool:  # noqa: ARG002
        """Does it wait for its turn? That time does not count."""
        return False

    def undo(self, c: Context) -> None:
        """Put back what this step has changed; asked after a failure."""

    def explain(self, c: Context) -> str:  # noqa: ARG002
        """Why the limit may have passed: the last thing known."""
        return ""

    def hint(self) -> str:
        """What the operator looks at when the limit has passed."""
        return ""


def perform(step: Step, c: Context, limit: float) -> dict[str, Any]:
    """Run a step to its end and return its outcome as data; raises nothing but Interrupted.

    ``{"outcome": "done" | "already" | "failed" | "cancelled", "summary": str, "evidence": {...}, "error": {...}}``
    """
    before = len(c.sent())
    c.notes = {}
    result: dict[str, Any]
    try:
        outcome, evidence = _until(step, c, limit)
    except LeaseLost as exc:  # another worker goes on with this run: not ours to judge or to clean up
        raise Interrupted from exc
    except StoreError:
        raise  # not the machine's failure: the worker gives up, and the run is left for the next one
    except Cancelled as exc:
        result = {"outcome": "cancelled", "summary": exc.message, "error": _error(exc)}
    except MetalimmuError as exc:
        result = {"outcome": "failed", "summary": exc.message, "error": _error(exc)}
    except Exception as exc:
        logger.exception("step %s of %s", step.name, c.run)
        fault = MetalimmuError(
            f"a fault in metalimmu itself: {type(exc).__name__}: {exc}",
            hint="please report it, with the log of --verbose",
        )
        result = {"outcome": "failed", "summary": fault.message, "error": _error(fault)}
    else:
        summary = str(evidence.pop("summary", ""))
        result = {"outcome": outcome, "summary": summary, "evidence": evidence}
    result.setdefault("evidence", {}).update(c.notes)
    sent = c.sent()[before:]
    if sent:
        result["evidence"]["requests"] = [{"method": r.method, "path": r.path, "body": r.body} for r in sent]
    safe: dict[str, Any] = log.redacted(result)  # it is kept, in checkpoints too
    return safe


def _until(step: Step, c: Context, limit: float) -> tuple[str, Evidence]:
    clock = c.tools.clock
    deadline = clock.monotonic() + limit
    acted_at: float | None = None
    away_since: float | None = None
    error: BmcError | None = None
    looked = clock.monotonic()
    while True:
        c.check()
        now = clock.monotonic()
        if step.held(c):
            deadline += now - looked
        looked = now
        try:
            evidence = step.observe(c)
            if evidence is not None:
                acts = type(step).act is not Step.act
                return ("already" if acts and acted_at is None else "done"), evidence
            if acted_at is None or (step.again is not None and now - acted_at > step.again * limit):
                if acted_at is not None:
                    c.notes["repeated"] = c.notes.get("repeated", 0) + 1
                step.act(c)
                acted_at = clock.monotonic()
                continue
            step.tend(c)
            away_since = None
            error = None
        except BmcError as exc:
            away_since = _patience(c, exc, away_since, now)
            error = exc
        if clock.monotonic() > deadline:
            last = error.message if error else _explained(step, c)
            raise StepTimeout(
                f"{step.name}: no success within {_span(limit)}" + (f": {last}" if last else ""), hint=step.hint()
            )
        _rest(step, c)


def _explained(step: Step, c: Context) -> str:
    try:
        return step.explain(c)
    except BmcError as exc:
        return exc.message


def _patience(c: Context, exc: BmcError, away_since: float | None, now: float) -> float:
    """A BMC may be away or busy for a while (it reboots, it is full); other errors are final."""
    if not exc.retry:
        raise exc
    c.drop_bmc()
    if away_since is None:
        c.event("bmc", f"BMC does not answer, waiting: {exc.message}")
        return now
    if now - away_since > c.spec.limits["bmc"]:
        raise exc
    return away_since


def _rest(step: Step, c: Context) -> None:
    seconds = step.pause * c.tools.pace
    if step.wakes:
        c.tools.media.wait(c.run, seconds)
    else:
        c.tools.stop.wait(seconds)


def _error(exc: MetalimmuError) -> dict[str, str]:
    return {"code": exc.code, "message": exc.message, "hint": exc.hint}


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
