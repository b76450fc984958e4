"""How a run of a switch ends when it does not end well."""

from __future__ import annotations

from typing import Any

from metalimmu.lifecycle import Proof, State, move
from metalimmu.store.records import ErrorText, Quarantine
from metalimmu.workflows.context import Context


def machine(c: Context) -> str:
    """How far the run has come: untouched, started, written or proven."""
    r = c.switch()
    if r is None or not r.went:
        return "untouched"
    if c.tools.store.host(c.host).proof_evidence.get("run") == c.run:
        return "proven"
    return "written" if r.delivered else "started"


def close(c: Context) -> None:
    """Whatever comes later, this switch gets nothing more from this run."""
    if c.switch() is not None:
        c.tools.store.switches.update(c.run, armed=False, stop="the run has ended", ended=c.tools.clock.now())


def failed(c: Context, result: dict[str, Any], error: ErrorText) -> None:
    """A switch that was restarted is in quarantine until it is proven again; one that was not stays what it was."""
    now = c.tools.clock.now()
    step = str(result.get("step", ""))
    r = c.switch()
    far = machine(c)
    touched = far in ("started", "written")
    wiped = r is not None and r.method == "onie" and r.delivered > 0
    reason = f"{step}: {result['summary']}"
    evidence = {"run": c.run, "step": step, **result.get("evidence", {}), "clean_up": result.get("clean_up", [])}
    record = c.tools.store.host(c.host)
    state = record.state
    if state is State.deploying:
        state = move(state, State.active if record.image and not wiped and far != "proven" else State.enrolled)
    changes: dict[str, Any] = {"state": state, "error": error}
    if touched:
        changes["proof"] = Proof.unproven
    if far != "untouched":
        changes["quarantine"] = Quarantine(reason=reason, since=now, run=c.run, evidence=evidence)
    if wiped and far != "proven":
        changes.update(state=State.enrolled, image=None, digest=None)
        if record.image and record.previous_digest != c.plan.image.digest:  # a failed rollback keeps its target
            changes.update(previous_image=record.image, previous_digest=record.digest)
    c.tools.store.update_host(c.host, **changes)
    kind = "failed" if far == "untouched" else "quarantine"
    c.event(kind, f"{c.host}: {reason}", evidence=evidence, clean_up=result.get("clean_up", []))
