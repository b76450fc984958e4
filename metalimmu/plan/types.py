"""A plan: data, complete, and what gets executed. How it came about does not influence the run."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from metalimmu import structs
from metalimmu.desired.types import HostSpec
from metalimmu.observed.types import MediaSlot, SystemIdentity, WriteRequest
from metalimmu.plan.method import STEPS
from metalimmu.wire.manifest import Nos


class Word(StrEnum):
    """What a comparison found. Never a boolean."""

    match = "match"
    differs = "differs"
    staged = "staged"  # the right value waits for a reboot
    job_running = "job-running"
    missing = "missing"
    unknown = "unknown"


DRIFT = frozenset({Word.differs, Word.missing, Word.staged, Word.job_running})
"""Not as it must be. `staged` and `job-running` are on their way, and not there yet."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    setting: str
    word: Word
    expected: str = ""
    actual: str = ""
    reason: str = ""  # of unknown, or a sentence that helps
    source: str = ""  # URI or "store"
    at: float = 0.0  # when it was read
    host: str = ""
    severity: str = ""  # info | warning | critical; empty for findings of a plan
    owner: str = ""
    profile: str = ""
    waived: str = ""  # until when and why, while a waiver holds


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `requests` are the writes that it sends to the BMC; `if_needed` those it sends only where the BMC has
    not done it by itself (a one-time override that the boot has used up).
    """

    name: str
    title: str
    limit: float  # seconds, after which the step has failed
    stall: float | None = None  # seconds without progress, after which it has failed before
    seconds: float  # estimated
    boots: int = 0
    requests: tuple[WriteRequest, ...] = ()
    if_needed: tuple[WriteRequest, ...] = ()
    calls: tuple[str, ...] = ()  # hooks and health checks, a line each


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan must know of an image. Bytes are compressed, as they travel."""

    ref: str
    digest: str
    kind: str
    architecture: str
    firmware: tuple[str, ...]
    size: int
    all_bytes: int
    build_id: str = ""
    revoked: str | None = None
    answers: str = ""  # what an installer asks for: preseed | kickstart | autoinstall | esxi
    from_media: bool = False  # what is booted goes on reading its media
    nos: Nos | None = None  # of kind nos
    boot_bytes: int = 0  # of kernel and initrd: less cannot have been read by a machine that boots them


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Another method that a run may fall back to, with the steps that differ."""

    method: str
    steps: tuple[PlanStep, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` empty: nothing is to do, and `why` says the reason."""

    verb: str  # reimage | rollback
    host: str
    spec: HostSpec
    image: ImageFacts
    previous: str | None  # name@version on the machine now, as far as we know
    previous_digest: str | None
    identity: SystemIdentity  # what the BMC says it is: the machine that checks in must be the same
    method: str  # virtual-media | uefi-http | pxe; of a switch: onie | two-slot
    why: str
    findings: tuple[Finding, ...]
    steps: tuple[PlanStep, ...]
    transfer: int  # bytes over the machine's network, estimated
    slot: MediaSlot | None = None
    warnings: tuple[str, ...] = ()
    created: float = 0.0
    method_why: str = ""
    rejected: tuple[str, ...] = ()  # methods that were allowed and cannot be, each with its reason
    ways: tuple[Way, ...] = ()  # what is tried when this method fails before anything was written, in order

    @property
    def nothing(self) -> bool:
        return not self.steps

    @property
    def boots(self) -> int:
        return sum(s.boots for s in self.steps)

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.steps)

    def step(self, name: str) -> PlanStep:
        return next(s for s in self.steps if s.name == name)

    def by(self, way: Way) -> Plan:
        """The same by another method; what it may fall back to then are those after it."""
        instead = dict(zip(STEPS[self.method], STEPS[way.method], strict=True))
        theirs = {s.name: s for s in way.steps}
        steps = tuple(theirs.get(instead.get(s.name, ""), s) for s in self.steps)
        left = self.ways[self.ways.index(way) + 1 :]
        return msgspec.structs.replace(self, method=way.method, method_why="fallen back", steps=steps, ways=left)

    def encode(self) -> dict[str, Any]:
        """As the store keeps it, and as `plan -o json` prints it."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    @classmethod
    def decode(cls, data: dict[str, Any]) -> Plan:
        return structs.convert(data, cls)
