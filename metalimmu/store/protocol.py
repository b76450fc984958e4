"""The store as everybody else sees it. Each implementation passes tests/store/test_store_contract.py.

All methods may be called from any thread and block for at most about the busy time limit (30 s). They raise
StoreError when the store cannot be read or written, and NotFound for a run or deployment that is not there.
A write that returned is on disk, except `beat`: the last second of progress may be lost with the power.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

from metalimmu.store.facts import FactStore
from metalimmu.store.netboot_records import NetbootStore
from metalimmu.store.protocol_plans import PlanStore
from metalimmu.store.protocol_rollouts import Guarding, RolloutStore
from metalimmu.store.protocol_triggers import TriggerStore
from metalimmu.store.records import (
    DeploymentRecord,
    EventRecord,
    HostRecord,
    LeaseRecord,
    ObservationRecord,
    Outcome,
    RunRecord,
    RunStatus,
    StepRecord,
    WorkerRecord,
)
from metalimmu.store.rollout_records import Place
from metalimmu.store.salvages import SalvageStore
from metalimmu.store.scan_protocol import ScanStore
from metalimmu.store.switch_protocol import Switches
from metalimmu.wire.messages import Progress

Secret = Literal["agent", "proof", "media", "chunk", "answers"]


class Beat(Protocol):
    """What one deployment's machine did since the last beat; records.Beat and boot's own fit."""

    @property
    def deployment(self) -> str: ...
    @property
    def seen(self) -> float | None: ...
    @property
    def progress(self) -> Progress | None: ...
    @property
    def media_bytes(self) -> int:
        """To be added."""
        ...

    @property
    def chunk_bytes(self) -> int:
        """To be added."""
        ...

    @property
    def log(self) -> tuple[str, ...]: ...


class Store(ScanStore, FactStore, NetbootStore, SalvageStore, Protocol):
    @property
    def triggers(self) -> TriggerStore:
        """Schedules, alerts and their outbox."""
        ...

    @property
    def rollouts(self) -> RolloutStore:
        """Runs over many hosts, and freezes."""
        ...

    @property
    def switches(self) -> Switches:
        """Deployments of switches."""
        ...

    @property
    def plans(self) -> PlanStore:
        """Saved plans that are carried out."""
        ...

    def close(self) -> None: ...

    # hosts
    def host(self, name: str) -> HostRecord:
        """An unknown host is enrolled and unproven."""
        ...

    def hosts(self) -> dict[str, HostRecord]:
        """Those that anything is known of, by name."""
        ...

    def update_host(
        self, name: str, change: Callable[[HostRecord], Mapping[str, Any]] | None = None, **fields: Any
    ) -> HostRecord:
        """Read, change, write, in one transaction. `change` gets the record and returns the fields that change;
        `fields` are set beside them. Raises lifecycle.IllegalMove for a state that does not follow.
        `change` runs inside the transaction: it must be quick and must not call the store.
        """
        ...

    # runs
    def add_run(self, run: RunRecord) -> RunRecord:
        """A second add of the same id returns what is there."""
        ...

    def run(self, run: str) -> RunRecord: ...

    def runs(
        self, *, host: str | None = None, status: RunStatus | Iterable[RunStatus] | None = None, limit: int = 100
    ) -> list[RunRecord]:
        """The newest first."""
        ...

    def set_run(self, run: str, **fields: Any) -> RunRecord:
        """A status that is final stays: later statuses are ignored, so that replays are harmless."""
        ...

    # steps
    def start_step(self, run: str, seq: int, name: str) -> StepRecord:
        """A step that is done or skipped stays so; one that broke off gets another attempt."""
        ...

    def finish_step(
        self,
        run: str,
        seq: int,
        name: str,
        outcome: Outcome,
        *,
        summary: str = "",
        evidence: Mapping[str, Any] | None = None,
        bytes: int = 0,  # noqa: A002  # the column's name
    ) -> StepRecord:
        """Done and skipped are final: a second finish returns what is there."""
        ...

    def steps(self, run: str) -> list[StepRecord]: ...

    # deployments
    def add_deployment(self, deployment: DeploymentRecord) -> DeploymentRecord:
        """A second add of the same id returns what is there."""
        ...

    def deployment(self, deployment: str) -> DeploymentRecord: ...

    def find_deployment(self, secret: Secret, hashed: str) -> DeploymentRecord | None:
        """By the SHA-256 (hex) of one of its secrets."""
        ...

    def deployments(
        self, *, host: str | None = None, run: str | None = None, live: bool = False, limit: int = 100
    ) -> list[DeploymentRecord]:
        """The newest first; `live`: only those that have not ended."""
        ...

    def update_deployment(
        self, deployment: str, change: Callable[[DeploymentRecord], Mapping[str, Any]] | None = None, **fields: Any
    ) -> DeploymentRecord: ...

    def beat(self, beats: Iterable[Beat]) -> None:
        """Many machines' progress in one transaction; log lines become events of kind `agent`."""
        ...

    # history
    def add_event(
        self,
        host: str,
        kind: str,
        text: str,
        *,
        run: str = "",
        data: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        """With a `key` (for example run/step), a second event of that key is not written."""
        ...

    def history(
        self,
        host: str | None = None,
        *,
        run: str | None = None,
        kind: str | None = None,
        after: int = 0,
        limit: int = 1000,
    ) -> list[EventRecord]:
        """The newest `limit`, oldest first. `after`: only ids above it, so that a watcher reads on."""
        ...

    # leases
    def admit(
        self,
        run: RunRecord,
        holder: str,
        *,
        guard: Guarding | None = None,
        place: Place | None = None,
    ) -> RunRecord:
        """Ask the guard, give the lease, add the run, and set fields of its host in its rollout: all of it, or nothing.
        A run that is there already is returned. Raises LeaseHeld, what `guard` raises, and GuardRefused where its place
        in the rollout is not what the caller thinks.
        """
        ...

    def acquire_lease(self, host: str, run: str, holder: str, *, guard: Guarding | None = None) -> int:
        """The fence: greater than every earlier one of this host, for ever. Raises LeaseHeld, which names run, holder
        and since. The same run and holder get the fence they have; the same run with another holder takes over.
        `guard` sees the store as it is in this transaction, before the lease; with one, a lease that a crash has left
        is taken over. Without a run it must be renewed (`renew_lease`).
        """
        ...

    def take_over(self, host: str, run: str, holder: str) -> int:
        """A higher fence for the run that holds the lease. Raises LeaseLost when another run, or none, holds it."""
        ...

    def check_fence(self, host: str, fence: int) -> None:
        """Raises LeaseLost unless `fence` is the newest and held."""
        ...

    def renew_lease(self, host: str, fence: int) -> None:
        """It is still used: a lease that has no run counts as left by a crash after `leases.UNUSED` seconds. Raises
        LeaseLost.
        """
        ...

    def release_lease(self, host: str, run: str, *, fence: int | None = None) -> None:
        """Nothing happens when another run, or (if given) a newer fence, holds it."""
        ...

    def lease(self, host: str) -> LeaseRecord | None: ...

    def leases(self) -> list[LeaseRecord]:
        """Those that are held."""
        ...

    # workers
    def heartbeat(self, worker: str, *, pid: int, hostname: str) -> None: ...

    def workers(self, *, within: float | None = None) -> list[WorkerRecord]:
        """Those seen in the last `within` seconds, or all."""
        ...

    def forget_worker(self, worker: str) -> None: ...

    # logins: bmc's LoginLedger
    def refused(self, bmc: str, version: str) -> str | None:
        """When this BMC refused this version of the credentials, as text; None: never."""
        ...

    def record_refusal(self, bmc: str, version: str, when: float) -> None: ...

    def clear(self, bmc: str) -> None: ...

    # observations
    def observe(self, host: str, kind: str, data: Mapping[str, Any]) -> bool:
        """Keep what was seen. False: the same as last time, whose `seen` moves on."""
        ...

    def observation(self, host: str, kind: str) -> ObservationRecord | None:
        """The newest."""
        ...

    def observations(self, host: str, kind: str | None = None, *, limit: int = 100) -> list[ObservationRecord]:
        """The newest first."""
        ...
