"""A reimage, from its plan to its end: the steps that the plan names, one after the other, each a checkpoint.

Whatever kills the worker, the next one comes here again: finished steps are answered from their checkpoints, the one
that was under way looks first at what is so already.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import Any

from metalimmu import log
from metalimmu.engine.durable import Checkpoint, Interrupted
from metalimmu.errors import BmcError, LeaseLost, MetalimmuError, StoreError
from metalimmu.lifecycle import Proof, State, move
from metalimmu.plan.method import STEPS as STEPS_OF_METHODS
from metalimmu.plan.types import Plan
from metalimmu.store.records import DeploymentRecord, ErrorText, HostRecord, Outcome, Quarantine, RunStatus
from metalimmu.wire.messages import PHASES
from metalimmu.workflows import (
    aftermath,
    boot_steps,
    disk_steps,
    fallback,
    health_steps,
    hook_steps,
    kind_steps,
    prepare_steps,
    switch_end,
)
from metalimmu.workflows.context import Cancelled, Context, Tools
from metalimmu.workflows.step import Step, perform
from metalimmu.workflows.switch_proof_steps import STEPS as SWITCH_STEPS

logger = log.get("workflows")

STEPS: dict[str, type[Step]] = {
    s.name: s
    for s in (
        boot_steps.Preflight,
        hook_steps.Drain,
        boot_steps.Prepare,
        boot_steps.Insert,
        boot_steps.Override,
        boot_steps.Offer,
        boot_steps.HttpBoot,
        boot_steps.Pxe,
        boot_steps.PowerUp,
        boot_steps.CheckIn,
        prepare_steps.BurnIn,
        prepare_steps.Salvage,
        prepare_steps.Erase,
        disk_steps.Write,
        disk_steps.Verify,
        disk_steps.Configure,
        prepare_steps.EraseAfter,
        disk_steps.Eject,
        disk_steps.Withdraw,
        disk_steps.Go,
        disk_steps.SystemReports,
        disk_steps.Prove,
        kind_steps.Fetch,
        kind_steps.Install,
        kind_steps.Read,
        kind_steps.Quiet,
        kind_steps.Clear,
        health_steps.Health,
        hook_steps.Undrain,
    )
}
STEPS |= {s.name: s for s in SWITCH_STEPS}

_CLEAN_UP = 120.0  # seconds for a BMC to take back media and override after a failure


def execute(run: str, checkpoint: Checkpoint, tools: Tools) -> None:
    """The body of the durable workflow. Raises nothing but Interrupted."""
    record = tools.store.run(run)
    plan = Plan.decode(record.plan)
    try:
        fence = tools.store.take_over(record.host, run, tools.worker)
    except LeaseLost:
        logger.warning("run %s has no lease any more: another worker has it, or it has ended", run)
        return
    c = Context(run=run, plan=plan, fence=fence, tools=tools, since=tools.clock.now())
    if c.deployment() is not None:
        tools.store.update_deployment(run, fence=fence)  # from now on the agent listens to us and not to who was before
    begun = record.started or tools.clock.now()
    tools.store.set_run(run, status=RunStatus.running, worker=tools.worker, started=begun, error=None)
    if record.started:
        c.event("resumed", f"run {run} goes on in {tools.worker}")
    try:
        _observe_first(c)
        result = _steps(c, checkpoint)
        checkpoint("end", lambda: _end(c, result))
    finally:
        c.drop_bmc()


def _observe_first(c: Context) -> None:
    c.restored = aftermath.since_restore(c)
    if c.restored is not None:
        with suppress(Cancelled):  # the first step says so again, and cleans up
            aftermath.settle(c, c.restored)


def _steps(c: Context, checkpoint: Checkpoint) -> dict[str, Any]:
    result: dict[str, Any] = {"outcome": "done"}
    todo, done = list(c.plan.steps), list[Step]()
    for seq in count():
        if not todo:
            break
        planned = todo.pop(0)
        step = STEPS[planned.name]()
        done.append(step)

        def work(seq: int = seq, step: Step = step, limit: float = planned.limit) -> dict[str, Any]:
            return _recorded(c, seq, step, limit)

        result = checkpoint(planned.name, work)
        if result["outcome"] in ("done", "already"):
            continue
        if c.plan.ways:

            def fall_back(
                name: str = planned.name, result: dict[str, Any] = result, done: list[Step] = done
            ) -> dict[str, Any]:
                return _fall_back(c, name, result, done)

            fallen = checkpoint("fall-back", fall_back)
            way = next((w for w in c.plan.ways if w.method == fallen.get("method")), None)
            if way is not None:
                todo, done = fallback.left(c, way), [s for s in done if s.name not in _BY_METHOD]
                continue
        cleaned = checkpoint("clean-up", lambda done=done: _clean_up(c, done))  # type: ignore[misc]
        return {**result, "step": planned.name, "clean_up": cleaned.get("problems", [])}
    return result


_BY_METHOD = frozenset(name for names in STEPS_OF_METHODS.values() for name in names)


def _fall_back(c: Context, step: str, result: dict[str, Any], done: list[Step]) -> dict[str, Any]:
    """The method that goes on; empty: none. What the one before has left with the BMC is taken back first."""
    d = c.deployment()
    way = fallback.next_way(c, step, result, written=d is not None and _written(d))
    if way is None:
        return {"method": ""}
    problems = _undo(c, [s for s in done if s.name in _BY_METHOD])
    fallback.switch(c, way, step, "; ".join([str(result["summary"]), *problems]))
    return {"method": way.method, "problems": problems}


def _recorded(c: Context, seq: int, step: Step, limit: float) -> dict[str, Any]:
    store = c.tools.store
    store.start_step(c.run, seq, step.name)
    result = perform(step, c, limit)
    word = {"done": Outcome.done, "already": Outcome.skipped}.get(result["outcome"], Outcome.failed)
    evidence = dict(result["evidence"])
    moved = int(evidence.pop("bytes", 0) or 0)
    store.finish_step(c.run, seq, step.name, word, summary=result["summary"], evidence=evidence, bytes=moved)
    return result


def _clean_up(c: Context, done: list[Step]) -> dict[str, Any]:
    """Media out and override cleared where the BMC still answers; what could not be undone is said."""
    if c.deployment() is not None:
        c.tools.store.update_deployment(c.run, stop="the run has ended", stage="done", ended=c.tools.clock.now())
    switch_end.close(c)
    return {"problems": _undo(c, done)}


def _undo(c: Context, done: list[Step]) -> list[str]:
    """Returns what could not be undone."""
    problems: list[str] = []
    deadline = c.tools.clock.monotonic() + min(_CLEAN_UP, c.spec.limits["bmc"])
    for step in reversed(done):
        while True:
            if c.tools.stop.is_set():
                raise Interrupted
            try:
                step.undo(c)
                break
            except LeaseLost as exc:
                raise Interrupted from exc
            except StoreError:
                raise
            except MetalimmuError as exc:
                c.drop_bmc()
                if not (isinstance(exc, BmcError) and exc.retry) or c.tools.clock.monotonic() > deadline:
                    problems.append(f"{step.name} could not be undone: {exc.message}")
                    break
                c.tools.stop.wait(2 * c.tools.pace)
    return problems


def _end(c: Context, result: dict[str, Any]) -> dict[str, Any]:
    store = c.tools.store
    now = c.tools.clock.now()
    if result["outcome"] in ("done", "already"):
        store.set_run(c.run, status=RunStatus.succeeded, finished=now)
    else:
        _failed(c, result)
        status = RunStatus.cancelled if result["outcome"] == "cancelled" else RunStatus.failed
        store.set_run(c.run, status=status, finished=now, error=_error(result, now))
    store.release_lease(c.host, c.run, fence=c.fence)
    return {"outcome": result["outcome"]}


def _failed(c: Context, result: dict[str, Any]) -> None:
    """A machine that was touched is in quarantine until it is proven again; one that was not stays what it was."""
    store = c.tools.store
    now = c.tools.clock.now()
    if c.spec.kind == "switch":
        switch_end.failed(c, result, _error(result, now))
        return
    step = str(result.get("step", ""))
    d = c.deployment()
    touched = d is not None and bool(d.intent)
    written = d is not None and _written(d)
    proven = _proven_before(c, step)
    reason = f"{step}: {result['summary']}"
    evidence = {"run": c.run, "step": step, **result.get("evidence", {}), "clean_up": result.get("clean_up", [])}
    record = store.host(c.host)
    state = record.state
    if state is State.deploying:
        state = move(state, State.active if record.image and not written else State.enrolled)  # unhealthy: not active
    changes: dict[str, Any] = {"state": state, "error": _error(result, now)}
    if touched and not proven:
        changes["proof"] = Proof.unproven
    if touched:
        changes["quarantine"] = Quarantine(reason=reason, since=now, run=c.run, evidence=evidence)
    if written and not proven:
        changes.update(state=State.enrolled, image=None, digest=None, efi_entries=_labels(record, d))
        if record.image and record.previous_digest != c.plan.image.digest:  # a failed rollback keeps its target
            changes.update(previous_image=record.image, previous_digest=record.digest)
    store.update_host(c.host, **changes)
    kind = "quarantine" if touched else "failed"
    c.event(kind, f"{c.host}: {reason}", evidence=evidence, clean_up=result.get("clean_up", []))


def _proven_before(c: Context, step: str) -> bool:
    """Failed after it was proven: the image on the disk is what it should be, whatever its health."""
    names = [s.name for s in c.plan.steps]
    return step in names and "prove" in names[: names.index(step)]


_BEFORE_WRITING = frozenset(
    {"DiskSelectionError", "DiskUnsuitable", "ForeignSignature", "IdentityMismatch"}
    | {"DiskKept", "EraseFailed", "SalvageFailed", "BurnInFailed"}
)
_ONLY_LOOKING = PHASES[: PHASES.index("erase")]  # those in which an agent writes nothing


def _refused_before_writing(d: DeploymentRecord) -> bool:
    """Once told what to write, an agent that we do not hear may be writing: only its own word says that it is not."""
    if d.failure is None or d.failure.code not in _BEFORE_WRITING:
        return False
    return (d.failure.phase or (d.progress.phase if d.progress else "identify")) in _ONLY_LOOKING


def _written(d: DeploymentRecord) -> bool:
    """May something have been written to a disk?"""
    if d.kind == "installer":
        return bool(d.fetched) or (d.media_bytes > 0 and d.refusal is None)
    if d.kind == "iso":
        return d.media_bytes > 0
    return d.check_in is not None and not _refused_before_writing(d)


def _labels(record: HostRecord, d: DeploymentRecord | None) -> tuple[str, ...]:
    """Boot entries that are, or may be, ours: the newest twenty."""
    return tuple(dict.fromkeys((*record.efi_entries, *((d.assignment.efi_label,) if d else ()))))[-20:]


def _error(result: dict[str, Any], now: float) -> ErrorText:
    error = result.get("error", {})
    message = "; ".join([error.get("message", ""), *result.get("clean_up", [])])
    return ErrorText(code=error.get("code", ""), message=message, hint=error.get("hint", ""), at=now)
