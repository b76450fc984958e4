"""The agent's life: check in, obey, report, wait for go, reboot. Without a controller it waits and asks again.

It writes only under an assignment that says `write`, for this machine, with a fence that is not older than the newest
one seen. After a failure it writes again only when the controller comes back with a newer fence: somebody has decided.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import metalimmu
from metalimmu.agent import disks, identify
from metalimmu.agent.client import Backoff, Controller, Refused, Unreachable
from metalimmu.agent.deploy import Deployment
from metalimmu.agent.fetch import Breaks
from metalimmu.agent.link import Fence, Link, Log, Lost, patiently
from metalimmu.agent.machine import Machine
from metalimmu.errors import AgentError, FetchFailed
from metalimmu.wire.messages import DISK_WORK, Assignment, Boot, CheckIn, Disk, Failure

ASK_AGAIN = 10.0  # seconds between check-ins after a refusal or a failure
MOST_LOST = 5  # check-ins in a row that were granted while the chunks were still refused


class Agent:
    """One boot of the ramdisk. `state` is a folder that outlives this process; `sleep` is handed in by tests."""

    def __init__(
        self,
        boot: Boot,
        machine: Machine,
        *,
        log: Log | None = None,
        state: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.boot, self.machine, self.sleep = boot, machine, sleep
        self.log = log or Log()
        self.state = state
        self.fence = Fence(state / "fence" if state else None)
        self.boot_id = identify.boot_id(machine.root)
        self.controller = self._controller()
        self.breaks = Breaks(self.log)
        self.deployment: Deployment | None = None
        self.failed_at = -1  # fence under which a deployment failed
        self.lost = 0  # times in a row
        self.told = ""  # what was said last of a check-in

    def run(self) -> None:
        """Until the reboot."""
        try:
            self._run()
        finally:
            self.controller.close()

    def _run(self) -> None:
        while True:
            assignment = self.check_in()
            if self.failed_at >= assignment.fence:
                self.sleep(ASK_AGAIN)
                continue
            link = Link(self._controller(), self.fence, self.log, self.boot_id)
            link.start()
            try:
                self._obey(assignment, link)
            except (Lost, Refused) as exc:
                self.log(f"{exc.message}; checking in again")
                self._lost(assignment)
            except AgentError as exc:
                self._failed(exc, assignment, link.now)
            except Exception as exc:  # noqa: BLE001 - a fault of ours must be heard too, not only seen on a console
                for line in traceback.format_exc().splitlines():
                    self.log(line)
                self._failed(
                    AgentError(f"fault in the agent: {exc!r}", hint="please report this"), assignment, link.now
                )
            else:
                self.log("go: restarting into the new system")
                self.machine.reboot()
                return
            finally:
                link.close()

    def check_in(self) -> Assignment:
        """Asks until there is an assignment that may be obeyed."""
        backoff, told = Backoff(), ""
        seen = disks.list_disks(self.machine.root)
        if self.deployment:
            self.deployment.disks = seen
        while True:
            try:
                assignment = self.controller.check_in(self._check_in_message(seen))
            except Unreachable as exc:
                problem, pause = exc.message, backoff.next()
            except Refused as exc:
                problem, pause = exc.message, ASK_AGAIN
            else:
                if self.fence.accepts(assignment.fence):
                    return self._accepted(assignment, seen)
                problem = f"assignment with fence {assignment.fence} ignored: {self.fence.newest} was seen"
                pause = ASK_AGAIN
            if problem != told:
                self.log(f"check-in: {problem}; asking again")
                told = problem
            self.sleep(pause)

    def _accepted(self, assignment: Assignment, seen: tuple[Disk, ...]) -> Assignment:
        done = self.machine.set_clock(assignment.clock)
        if done:
            self.log(done)
        told = f"checked in: {assignment.stage} {assignment.image} (fence {assignment.fence})"
        if told != self.told:
            self.log(told)
            self.told = told
        if self.deployment is None:
            begun = self.state / "begun" if self.state else None
            self.deployment = Deployment(self.boot, self.machine, self.controller, self.breaks, disks=seen, begun=begun)
        return assignment

    def _obey(self, assignment: Assignment, link: Link) -> None:
        """Returns on go."""
        if assignment.stage == "write" and self.deployment:
            report = self.deployment.run(assignment, link)
            self.lost = 0
            link.obey(patiently(lambda: self.controller.report(replace(report, fence=self.fence.newest)), link))
            self.log(f"written, read back and configured: {assignment.image}; waiting for go")
        else:
            self.log(f"nothing to write (stage {assignment.stage}); waiting for go")
        link.phase("wait")
        link.wait_for_go()

    def _lost(self, assignment: Assignment) -> None:
        """A controller that grants the check-in but not the chunks does so for a moment after its restart."""
        self.lost += 1
        writing = assignment.stage == "write" and not (self.deployment and self.deployment.finished)
        if writing and self.lost >= MOST_LOST:
            self.lost = 0
            self._failed(
                FetchFailed(f"the controller grants the check-in but refuses what belongs to it, {MOST_LOST} times"),
                assignment,
            )
        else:
            self.sleep(min(2.0 ** min(self.lost, 8), ASK_AGAIN))

    def _failed(self, exc: AgentError, assignment: Assignment, phase: str = "") -> None:
        """Tell it until it was heard; then wait for a decision."""
        self.failed_at = max(self.fence.newest, assignment.fence)
        self.log(f"{exc.code}: {exc.message}")
        self.log(f"hint: {exc.hint}")
        seen = identify.identity(self.machine.root)
        failure = Failure(
            code=_public_code(exc),
            message=exc.message,
            hint=exc.hint,
            evidence={"serial": seen.serial, "uuid": seen.uuid, "nics": " ".join(n.mac for n in seen.nics)},
            disks=self.deployment.disks if self.deployment else (),
            boot_id=self.boot_id,
            phase=phase,
        )
        backoff = Backoff()
        while True:
            try:
                self.controller.failure(failure)
            except Unreachable:
                self.sleep(backoff.next())
            except Refused as refused:
                self.log(f"the failure could not be told: {refused.message}")
                return
            else:
                return

    def _check_in_message(self, seen: tuple[Disk, ...]) -> CheckIn:
        root = self.machine.root
        return CheckIn(
            identity=identify.identity(root),
            architecture=self.machine.architecture,
            firmware=self.machine.firmware,
            boot_id=self.boot_id,
            agent_version=metalimmu.__version__,
            secure_boot=identify.secure_boot(root),
            memory=identify.memory(root),
            clock=time.time(),
            disks=seen,
            fence=self.fence.newest,
            can=DISK_WORK,
        )

    def _controller(self) -> Controller:
        return Controller(self.boot.url, self.boot.token, self.boot.pin)


def _public_code(exc: AgentError) -> str:
    """The nearest class that errors.py knows: subclasses of the agent's own mean nothing to the controller."""
    return next(c.__name__ for c in type(exc).__mro__ if c.__module__ == "metalimmu.errors")
