"""What the steps of one run work with: the plan, the machine's BMC, its deployment, the clock, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from metalimmu import log
from metalimmu.engine.durable import Interrupted
from metalimmu.errors import BmcError, BmcUnsupported, MetalimmuError, NotFound

if TYPE_CHECKING:
    from metalimmu.bmc.ports import Bmc
    from metalimmu.desired.types import HostSpec
    from metalimmu.nos.ports import Nos
    from metalimmu.observed.types import MediaSlot, WriteRequest
    from metalimmu.plan.types import Plan
    from metalimmu.store.facts import Restored
    from metalimmu.store.protocol import Store
    from metalimmu.store.records import DeploymentRecord, RunRecord
    from metalimmu.store.switch_records import SwitchRecord
    from metalimmu.workflows.calls import Calls
    from metalimmu.workflows.switch_tools import SwitchTools

logger = log.get("workflows")


class Cancelled(MetalimmuError):
    default_hint = "start again with `metalimmu reimage`"


class Clock(Protocol):
    """Time, passed in so that tests need not wait."""

    def now(self) -> float: ...  # seconds since 1970
    def monotonic(self) -> float: ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Connect(Protocol):
    def __call__(self, spec: HostSpec, *, before_write: Callable[[], None]) -> Bmc: ...


class Media(Protocol):
    """The boot service, as far as a run needs it."""

    def media_url(self, deployment: str) -> str:
        """Where the BMC finds this deployment's boot media."""
        ...

    def loader_url(self) -> str:
        """Where firmware finds a boot loader for UEFI HTTP boot; empty: machines cannot reach us in the clear."""
        ...

    def dhcp(self) -> str:
        """Who answers machines that boot the network, so that we hear them: dhcp | proxy; off: others."""
        ...

    def is_media_of(self, deployment: str, image: str) -> bool:
        """Is the address that a BMC shows this deployment's? BMCs cut, unquote or lower-case what they show."""
        ...

    def wait(self, deployment: str, seconds: float) -> None:
        """Return when something about the deployment may have changed, or after `seconds`."""
        ...


class Images(Protocol):
    """The image store, as far as a run needs it."""

    def missing(self, digest: str) -> list[str]:
        """Chunks of that image that are not there. Raises ImageRevoked."""
        ...


class Deployments(Protocol):
    """Makes the record that the boot service answers from."""

    def rehearse(self, run: str, plan: Plan) -> None:
        """Raises what `create` would raise: a secret of the run-time config cannot be read, …"""
        ...

    def create(self, run: str, plan: Plan, fence: int) -> None: ...


class Outside(Protocol):
    """Proof of images that cannot report by themselves."""

    def ask(self, spec: HostSpec) -> dict[str, str] | None:
        """os-release and what else was asked, by SSH; None while there is no answer."""
        ...


class Guarded(Protocol):
    """The site's guards. Raises GuardRefused."""

    def __call__(self, run: RunRecord, stage: str) -> None:
        """`stage`: begin | power, of plan.guards.Stage."""
        ...


def unguarded(run: RunRecord, stage: str) -> None:
    """For workflows that change nothing."""


@dataclass(frozen=True)
class Tools:
    """Everything around a run; one per worker."""

    store: Store
    connect: Connect
    media: Media
    images: Images
    deployments: Deployments
    outside: Outside
    calls: Calls
    clock: Clock
    stop: Event
    worker: str
    pace: float = 1.0  # scales pauses between looks at a BMC; tests and the lab look more often
    guard: Guarded = unguarded
    switches: SwitchTools | None = None


@dataclass
class Context:
    run: str
    plan: Plan
    fence: int
    tools: Tools
    since: float  # when this execution began: silence before that may have been ours, not the machine's
    _bmc: Bmc | None = None
    _nos: Nos | None = None
    _sent: list[WriteRequest] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  # evidence that a step gathers while it works
    restored: Restored | None = None  # the controller's loss that this run outlived: see aftermath

    @property
    def spec(self) -> HostSpec:
        return self.plan.spec

    @property
    def host(self) -> str:
        return self.plan.host

    @property
    def bmc(self) -> Bmc:
        """Connected; one session for the whole run, a new one after the BMC was away."""
        if self._bmc is None:
            self._bmc = self.tools.connect(self.spec, before_write=self.check_fence)
        return self._bmc

    @property
    def switches(self) -> SwitchTools:
        if self.tools.switches is None:
            raise BmcUnsupported("this worker serves no switches")
        return self.tools.switches

    @property
    def nos(self) -> Nos:
        """The switch's NOS, over SSH; its host key is the one that is right at this point of the run."""
        if self._nos is None:
            self._nos = self.switches.connect(self.spec, run=self.run, before_write=self.check_fence, check=self._alive)
        return self._nos

    def switch(self) -> SwitchRecord | None:
        """A run of a switch has one deployment, under its own id."""
        if self.spec.kind != "switch":
            return None
        try:
            return self.tools.store.switches.get(self.run)
        except NotFound:
            return None

    def _alive(self) -> None:
        """While a command runs on a switch. A clean-up after a cancellation runs commands too: only a stop ends those."""
        if self.tools.stop.is_set():
            raise Interrupted

    def drop_nos(self) -> None:
        if self._nos is not None:
            self._sent += self._nos.sent()
            self._nos = None

    def drop_bmc(self) -> None:
        self.drop_nos()
        if self._bmc is not None:
            self._sent += self._bmc.sent()
            self._bmc.close()
            self._bmc = None

    def sent(self) -> list[WriteRequest]:
        """Writes that this process sent for this run so far."""
        open_ = [driver.sent() for driver in (self._bmc, self._nos) if driver is not None]
        return [*self._sent, *(request for each in open_ for request in each)]

    def slot(self) -> MediaSlot:
        """The plan's slot as it is now. Raises BmcError."""
        planned = self.plan.slot
        found = next((m for m in self.bmc.media() if planned is not None and m.uri == planned.uri), None)
        if found is None:
            raise BmcError(
                f"the virtual media slot {planned.uri if planned else '-'} of the plan is gone",
                hint="make a new plan: `metalimmu plan HOST`",
            )
        return found

    def deployment(self) -> DeploymentRecord | None:
        """A run has one deployment, under its own id."""
        try:
            return self.tools.store.deployment(self.run)
        except NotFound:
            return None

    def outlived(self, d: DeploymentRecord) -> bool:
        """Did the machine get to its new system under a controller whose memory is lost? That system's report carries the
        proof token, which the agent writes to the disk only after it has read the whole image back.
        """
        return self.restored is not None and d.report is None and d.system_ok

    def deployed(self) -> DeploymentRecord:
        return self.tools.store.deployment(self.run)

    def check_fence(self) -> None:
        """Before every write to a BMC. Raises LeaseLost."""
        self.tools.store.check_fence(self.host, self.fence)

    def check(self) -> None:
        """Raises Interrupted when the worker stops, Cancelled when somebody said so."""
        if self.tools.stop.is_set():
            raise Interrupted
        d = self.deployment()
        if d is not None and d.superseded is not None and d.superseded > self.fence:
            from metalimmu.workflows.aftermath import leave_superseded

            leave_superseded(self, d.superseded)
        if self.tools.store.run(self.run).cancel_requested:
            raise Cancelled(f"run {self.run} was cancelled")

    def guard(self, stage: str) -> None:
        """Guards count what is at the time of each act, so they are asked again. Raises GuardRefused."""
        self.tools.guard(self.tools.store.run(self.run), stage)

    def quiet(self) -> float:
        """Seconds since the machine was started, was heard, or read its media, as far as we were there to hear."""
        d = self.deployed()
        return self.tools.clock.now() - max(d.intent_at or d.created, d.last_seen or 0.0, self.since)

    def event(self, kind: str, text: str, **data: Any) -> None:
        logger.info("%s: %s", self.host, text)
        self.tools.store.add_event(self.host, kind, log.redact(text), run=self.run, data=log.redacted(data))
