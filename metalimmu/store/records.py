"""What the store keeps. Times are seconds since 1970 (UTC), sizes are bytes.

Records are frozen: changing one means asking the store, which reads, changes and writes in one transaction.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from metalimmu.lifecycle import Proof, State
from metalimmu.plan.push import Push
from metalimmu.wire.messages import Assignment, CheckIn, Failure, Progress, Report, RunTimeConfig, SystemReport


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is a column: plain ones as they are, structured ones as JSON text."""


class Quarantine(Record, frozen=True, kw_only=True):
    reason: str
    since: float
    run: str | None = None
    evidence: dict[str, Any] = {}


class ErrorText(Record, frozen=True, kw_only=True):
    """An error of metalimmu.errors, as it is kept."""

    code: str
    message: str
    hint: str = ""
    at: float = 0.0


class HealthRecord(Record, frozen=True, kw_only=True):
    """What the site's health checks said of a host after its last reimage."""

    word: str  # healthy | unhealthy
    why: str
    at: float
    run: str | None = None
    checks: list[dict[str, Any]] = []


class HostRecord(Record, frozen=True, kw_only=True):
    name: str
    state: State = State.enrolled
    proof: Proof = Proof.unproven
    proof_evidence: dict[str, Any] = {}
    proven_at: float | None = None
    health: HealthRecord | None = None  # None: its pool and role check none, or nobody has looked yet
    image: str | None = None  # name@version that is, or was last known to be, on the disk
    digest: str | None = None  # sha256:...
    previous_image: str | None = None  # what `rollback` goes back to
    previous_digest: str | None = None
    power: str | None = None  # as last seen
    power_at: float | None = None
    error: ErrorText | None = None
    quarantine: Quarantine | None = None
    maintenance: str | None = None  # the reason, while it lasts
    settles: float | None = None  # restarted: not counted as active until then, or until its system has reported
    efi_entries: tuple[str, ...] = ()  # descriptions of the boot entries that we made
    updated: float = 0.0


class RunStatus(StrEnum):
    queued = "queued"
    running = "running"
    interrupted = "interrupted"  # the worker died or was stopped; `run resume` goes on
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


FINAL = frozenset({RunStatus.succeeded, RunStatus.failed, RunStatus.cancelled})


class RunRecord(Record, frozen=True, kw_only=True):
    id: str  # see ids.run_id: sorts by time
    verb: str  # reimage | rollback | prove | ...
    host: str
    plan: dict[str, Any] = {}
    options: dict[str, Any] = {}  # what the caller asked for: force, reason, ...
    status: RunStatus = RunStatus.queued
    created: float = 0.0
    started: float | None = None
    finished: float | None = None
    error: ErrorText | None = None
    worker: str = ""
    cancel_requested: bool = False


class Outcome(StrEnum):
    running = "running"
    done = "done"
    skipped = "skipped"  # it was already so
    failed = "failed"


class Attempt(Record, frozen=True, kw_only=True):
    """An earlier try of a step that did not get to its end."""

    started: float
    finished: float | None
    outcome: Outcome
    summary: str = ""


class StepRecord(Record, frozen=True, kw_only=True):
    run: str
    seq: int
    name: str
    attempts: int = 1
    started: float
    finished: float | None = None
    outcome: Outcome = Outcome.running
    summary: str = ""  # one sentence for people
    evidence: dict[str, Any] = {}
    bytes: int = 0  # over the network
    earlier: tuple[Attempt, ...] = ()  # the newest 20

    @property
    def seconds(self) -> float | None:
        return None if self.finished is None else self.finished - self.started


class DeploymentRecord(Record, frozen=True, kw_only=True):
    """One machine being made into one image.

    Of the four secrets (agent's token, proof unit's token, paths of media and chunks) only SHA-256 hashes are kept;
    boot.tokens derives them again from the site's key.
    """

    id: str
    run: str
    host: str
    token_hash: str
    proof_hash: str
    media_hash: str
    chunk_hash: str
    assignment: Assignment  # what the machine is told; its stage, fence and clock are filled in at each answer
    fence: int
    config: RunTimeConfig | None = None  # without the proof unit's token, and with marks instead of secrets
    config_digest: str = ""  # of what the machine has
    config_key: str = ""  # SiteKey.id: hashes of secrets by another key say nothing
    config_at: float | None = None  # since when it is this one
    config_seen: str = ""  # digest over the files on the machine, as it said last
    config_seen_at: float | None = None
    host_key: str = ""  # base64 of the Ed25519 public key that the new system has made for itself
    push: Push | None = None  # the newest one
    proof_by: str = "report"  # how the new system proves itself: report | phone_home | ssh | none
    stage: str = "write"  # write | wait | done
    go: bool = False
    went: float | None = None  # when the machine was answered `go`
    stop: str = ""  # a reason
    intent: str = ""  # what the BMC was, or is about to be, asked to start the machine: recorded before it is asked
    intent_at: float | None = None
    check_in: CheckIn | None = None  # the first one: its identity binds the deployment
    checked_in: float | None = None
    boot_ids: tuple[str, ...] = ()  # of the ramdisk, oldest first
    last_seen: float | None = None
    progress: Progress | None = None
    progressed: float | None = None  # when phase or bytes last changed, or a new boot of the machine checked in
    report: Report | None = None
    read_back_ok: bool | None = None  # the controller's own comparison
    written: float | None = None
    failure: Failure | None = None  # the agent's word
    refusal: Failure | None = None  # the newest check-in that was refused, with both identities as evidence
    refused_at: float | None = None
    system: SystemReport | None = None  # the newest report of an installed system
    system_ok: bool = False  # it is the one that we wait for
    system_why: str = ""  # what differs, if not
    system_at: float | None = None
    media_bytes: int = 0
    chunk_bytes: int = 0
    created: float = 0.0
    ended: float | None = None
    queued: float | None = None  # since when its agent waits for its turn to write
    superseded: int | None = None  # a fence above ours that the machine has seen: another controller has it
    kind: str = "disk"  # of its image: disk | installer | live | iso
    answers_hash: str = ""  # of the address where an installer finds its files
    fetched: dict[str, float] = {}  # what the installer has asked for, and when first: preseed.cfg, begin, ...
    fetches: int = 0  # how often an installer began: it asked for its answers anew
    finished: float | None = None  # when the installer said that it has installed
    method: str = "virtual-media"  # how its machine is started: virtual-media | uefi-http | pxe
    offered: float | None = None  # since when its machine is served a boot from the network; None: it is not, now
    asked: int = 0  # how often its machine has asked what to boot
    asked_at: float | None = None

    @property
    def digest(self) -> str:
        return self.assignment.digest


class Beat(Record, frozen=True, kw_only=True):
    """What a deployment's machine did since the last beat; many are written in one transaction."""

    deployment: str
    seen: float | None = None
    progress: Progress | None = None
    media_bytes: int = 0  # to be added
    chunk_bytes: int = 0  # to be added
    log: tuple[str, ...] = ()


class EventRecord(Record, frozen=True, kw_only=True):
    id: int
    at: float
    host: str
    run: str = ""
    kind: str  # run | step | agent | proof | quarantine | release | ...
    text: str = ""
    data: dict[str, Any] = {}
    key: str | None = None  # writes with the same key are one event


class LeaseRecord(Record, frozen=True, kw_only=True):
    host: str
    fence: int
    run: str | None = None  # None: free
    holder: str = ""
    since: float = 0.0


class WorkerRecord(Record, frozen=True, kw_only=True):
    id: str
    pid: int
    hostname: str
    since: float
    seen: float


class LoginRecord(Record, frozen=True, kw_only=True):
    bmc: str
    version: str  # of the credential: a hash, never the credential
    at: float


class ObservationRecord(Record, frozen=True, kw_only=True):
    """What was seen from `at` to `seen`; the next record of the same kind is the change."""

    id: int
    host: str
    kind: str
    data: dict[str, Any]
    at: float
    seen: float
