"""A run that goes on after its controller was restored from a backup: observe first.

Between the backup and the loss the old controller went on, and nobody knows how far: it may have finished this run, and
another one may have followed. So before its first act such a run waits until the machine itself says where it is:

====================================================  =========================================================
heard since the restore                               then
====================================================  =========================================================
its agent, or a BMC that reads its media              it goes on
its new system                                        it goes on, and has only to record the proof
the system of before, and the run had not begun       it goes on: nothing was done to the machine
a later deployment, which this store does not know    it is left for a person
nothing, for as long as a boot may take               it is left for a person
====================================================  =========================================================

Silence decides nothing, and neither does a BMC: media that are out may never have been in, or have done their work.
"""

from __future__ import annotations

from metalimmu.engine.durable import Interrupted
from metalimmu.errors import NotFound, StepFailed
from metalimmu.store.facts import Restored
from metalimmu.store.records import ErrorText, RunStatus
from metalimmu.workflows.context import Context

AFTER_BACKUP = "after-backup"  # kind of observation: what a host runs that the store does not know
WAITS = "RestoredRunWaits"  # code of the error of a run that was left for a person

_SPARE = 1.25  # of the time between two reports


def since_restore(c: Context) -> Restored | None:
    """The restore that this run was taken over by, unless a person has resumed it since."""
    mark = c.tools.store.restored()
    if mark is None or c.tools.store.run(c.run).created > mark.at:
        return None
    resumed = c.tools.store.history(c.host, run=c.run, kind="resume", limit=1)
    return None if resumed and resumed[-1].at > mark.at else mark


def settle(c: Context, mark: Restored) -> None:
    """Returns when the machine was heard. Raises Interrupted; then the run waits for `run resume` or `run cancel`."""
    c.event("restored", f"run {c.run} waits until {c.host} is heard: what happened since the backup is not known")
    clock = c.tools.clock
    deadline = clock.monotonic() + _patience(c)
    while True:
        c.check()
        later = later_deployment(c, mark)
        if later:
            leave(
                c,
                f"{c.host} was deployed again after the backup: {later}",
                "`metalimmu run cancel {run}` gives this one up",
            )
        heard = sign(c, mark)
        if heard:
            c.event("heard", f"{c.host} was heard since the restore: {heard}; the run goes on")
            return
        if clock.monotonic() > deadline:
            leave(
                c,
                f"nothing was heard of {c.host} since the restore",
                f"look at {c.host}: `metalimmu run resume {{run}}` goes on as if nothing had happened since the backup, "
                "`metalimmu run cancel {run}` gives it up",
            )
        c.tools.media.wait(c.run, c.tools.pace)


def sign(c: Context, mark: Restored) -> str:
    """What the machine itself has said since; empty: nothing."""
    d = c.deployment()
    if d is not None and (d.system_at or 0.0) > mark.at and d.system_ok:
        return "its new system reports"
    if d is not None and (d.last_seen or 0.0) > mark.at:
        return "its ramdisk speaks, or its BMC reads the media"
    if d is None or not d.intent:
        return _before(c, mark)
    return ""


def later_deployment(c: Context, mark: Restored) -> str:
    seen = c.tools.store.observation(c.host, AFTER_BACKUP)
    if seen is None or seen.seen < mark.at or seen.data.get("deployment") == c.run:
        return ""
    return f"run {seen.data.get('deployment')}, {seen.data.get('what')}"


def leave(c: Context, why: str, hint: str) -> None:
    """For a person. Raises Interrupted."""
    now = c.tools.clock.now()
    error = ErrorText(code=WAITS, message=why, hint=hint.format(run=c.run), at=now)
    c.event("interrupt", f"{why}: the run waits for a person")
    c.tools.store.set_run(c.run, status=RunStatus.interrupted, error=error)
    raise Interrupted


def leave_superseded(c: Context, fence: int) -> None:
    """Another controller has this machine: its agent has seen a fence above ours. Raises Interrupted."""
    leave(
        c,
        f"another controller drives {c.host}: its machine has seen fence {fence}, ours is {c.fence}",
        "was this site restored from a backup elsewhere? stop this controller; that one goes on with run {run}",
    )


def _before(c: Context, mark: Restored) -> str:
    """The system that the store knows from before this run."""
    run = str(c.tools.store.host(c.host).proof_evidence.get("run", ""))
    if not run or run == c.run:
        return ""
    try:
        d = c.tools.store.deployment(run)
    except NotFound:
        return ""
    heard = d.system_ok and not d.system_why and (d.system_at or 0.0) > mark.at
    return f"it still runs {d.assignment.image} of run {run}" if heard else ""


def _patience(c: Context) -> float:
    """Seconds. A machine that was started may be in POST; one that was not says so when it next reports."""
    d = c.deployment()
    report = _SPARE * c.spec.limits.get("report_again", 0.0) + 30.0 * c.tools.pace
    try:
        boot = c.plan.step("check-in").limit
    except (KeyError, StopIteration, StepFailed):
        boot = 0.0
    return max(report, boot) if d is not None and d.intent else report
