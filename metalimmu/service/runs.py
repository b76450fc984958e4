"""Submit, cancel, resume, list. A run belongs to the store; whichever process is the site's worker executes it."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from metalimmu import log
from metalimmu.desired.edit import pin
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import LeaseHeld, LeaseLost, NotFound, StoreError, UsageError
from metalimmu.lifecycle import Proof
from metalimmu.plan.guards import Guard
from metalimmu.service.guarding import Guards, act, refused
from metalimmu.store import leases
from metalimmu.store.ids import run_id
from metalimmu.store.records import FINAL, ErrorText, Quarantine, RunRecord, RunStatus

if TYPE_CHECKING:
    from metalimmu.plan.guards import Act
    from metalimmu.plan.types import Plan
    from metalimmu.service.site import OpenSite


logger = log.get("runs")


def who() -> str:
    """For leases and history: a person on a machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def submit(site: OpenSite, plan: Plan, *, options: dict[str, Any] | None = None, run: str = "") -> RunRecord:
    """Queue the plan as a run. Raises GuardRefused; LeaseHeld, naming the run that works on this host.

    `options` that guards know: allow_protected (with a reason), allow_same_domain. `run`: its id, where it must be one and
    the same however often it is asked for.
    """
    pin_image(site, plan)
    record = record_of(plan, run or run_id(), options or {})
    guard = Guards(site).inside(act(plan.verb, plan.host, record.options))
    try:
        record = site.store.admit(record, who(), guard=guard)
    except LeaseHeld:
        refuse_held(site, plan.host)
        raise
    announce(site, record, plan)
    return record


def record_of(plan: Plan, run: str, options: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        id=run,
        verb=plan.verb,
        host=plan.host,
        plan=plan.encode(),
        options={"by": who(), **options},
        created=time.time(),
    )


def announce(site: OpenSite, run: RunRecord, plan: Plan) -> None:
    """Once, however often a controller dies after the run was admitted."""
    text = f"{plan.verb} to {plan.image.ref} asked by {run.options.get('by', who())}: {plan.why}"
    data = {k: v for k, v in run.options.items() if k != "by"}
    site.store.add_event(plan.host, "run", text, run=run.id, data=data, key=f"{run.id}/asked")


def pin_image(site: OpenSite, plan: Plan) -> None:
    """From its first use on a name means this content, on every controller of the site. Raises ImageExists."""
    try:
        if pin(site.folder, plan.image.ref, plan.image.digest):
            logger.info("%s is pinned in images.lock: commit it", plan.image.ref)
    except OSError as exc:
        logger.warning("images.lock was not written: %s", exc)


@contextmanager
def leased(site: OpenSite, host: str, asked: Act) -> Iterator[Callable[[], None]]:
    """Hold the host for an act that is no run, for as long as this process lives; gives what raises LeaseLost when it is
    held no more. Raises GuardRefused, LeaseHeld.
    """
    name = f"{asked.verb} {run_id()}"
    try:
        fence = site.store.acquire_lease(host, name, who(), guard=Guards(site).inside(asked))
    except LeaseHeld:
        refuse_held(site, host)
        raise
    over = Event()
    renewing = Thread(target=_renew, args=(site, host, fence, over), name="metalimmu-lease", daemon=True)
    renewing.start()
    try:
        yield lambda: site.store.check_fence(host, fence)
    finally:
        over.set()
        renewing.join()
        site.store.release_lease(host, name, fence=fence)


def _renew(site: OpenSite, host: str, fence: int, over: Event) -> None:
    """A BMC may take minutes for one answer: the act cannot do it between its steps."""
    while not over.wait(leases.UNUSED / 6):
        try:
            site.store.renew_lease(host, fence)
        except LeaseLost:
            return
        except StoreError as exc:
            logger.warning("the lease of %s was not renewed: %s", host, exc)


def refuse_held(site: OpenSite, host: str) -> None:
    """Raises LeaseHeld while a run has the host; says so when nobody executes that run."""
    lease = site.store.lease(host)
    if lease is None or lease.run is None or _dead(site, lease.run, lease.since):
        return
    try:
        record = site.store.run(lease.run)
    except NotFound:
        raise LeaseHeld(f"{lease.run} of {lease.holder} works on {host}", hint="it takes a moment: try again") from None
    if record.status is RunStatus.interrupted or (record.status is RunStatus.running and nobody_works(site)):
        why = "was interrupted" if record.status is RunStatus.interrupted else "lost its worker"
        hint = f"`metalimmu run resume {record.id}` finishes it, `metalimmu run cancel {record.id}` gives it up"
        raise LeaseHeld(f"run {record.id} has {host} and {why}", hint=hint)
    hint = f"wait for it (`metalimmu run watch {record.id}`) or `metalimmu run cancel {record.id}`"
    raise LeaseHeld(f"run {record.id} of {lease.holder} works on {host}", hint=hint)


def nobody_works(site: OpenSite) -> bool:
    """Has this site no worker just now?"""
    lock = WorkerLock(site.state / "worker.lock")
    free = lock.take()
    lock.release()
    return free


def _dead(site: OpenSite, run: str, since: float) -> bool:
    try:
        return site.store.run(run).status in FINAL
    except NotFound:
        return time.time() - since > leases.UNUSED


def cancel(site: OpenSite, run: str) -> RunRecord:
    """Ask for the end of a run: the worker stops at the next safe point and cleans up."""
    record = site.store.run(run)
    if record.status in FINAL:
        raise UsageError(f"run {run} has {record.status} already", hint="`metalimmu run list` shows those under way")
    site.store.add_event(record.host, "cancel", f"cancel asked by {who()}", run=run)
    record = site.store.set_run(run, cancel_requested=True)
    return resume(site, run) if record.status is RunStatus.interrupted else record  # cleaning up needs a worker


def resume(site: OpenSite, run: str) -> RunRecord:
    record = site.store.run(run)
    if record.status in FINAL:
        raise UsageError(
            f"run {run} has {record.status}: there is nothing to resume",
            hint="`metalimmu reimage HOST` starts a new run",
        )
    if record.status is RunStatus.interrupted:
        guards = Guards(site)
        found = guards.refusals(act(record.verb, record.host, record.options))
        if frozen := [r for r in found if r.guard is Guard.freeze]:
            raise refused(frozen)
        site.store.add_event(record.host, "resume", f"resume asked by {who()}", run=run)
        record = site.store.set_run(run, status=RunStatus.queued)
    return record


def interrupt(site: OpenSite, run: str) -> None:
    """Leave a run as it is, for `resume`: no worker takes it up by itself."""
    record = site.store.run(run)
    if record.status not in FINAL:
        site.store.set_run(run, status=RunStatus.interrupted)
        site.store.add_event(record.host, "interrupt", f"interrupted by {who()}", run=run)


def abandon(site: OpenSite, run: str, why: str) -> None:
    """End a run that cannot be executed at all. What its machine carries is not known: quarantine."""
    record = site.store.run(run)
    now = time.time()
    if site.store.history(record.host, run=run, kind="hook", limit=1):
        why += "; what its hooks have done was not undone"
    error = ErrorText(
        code="Fault", message=why, hint="please report it with the log of -vv, then reimage the host", at=now
    )
    site.store.set_run(run, status=RunStatus.failed, finished=now, error=error)
    if site.store.deployments(run=run, live=True):
        site.store.update_deployment(run, stop="the run has ended", stage="done", ended=now)
        site.store.update_host(
            record.host,
            proof=Proof.unproven,
            error=error,
            quarantine=Quarantine(reason=why, since=now, run=run),
        )
    for switch in site.store.switches.of(record.host, limit=5):
        if switch.run == run and switch.ended is None:
            site.store.switches.update(run, armed=False, stop="the run has ended", ended=now)
            site.store.update_host(
                record.host, proof=Proof.unproven, error=error, quarantine=Quarantine(reason=why, since=now, run=run)
            )
    site.store.add_event(record.host, "quarantine", f"run {run} was given up: {why}", run=run)
    site.store.release_lease(record.host, run)
