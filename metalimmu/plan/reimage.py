"""What a reimage changes, in which steps, with how many boots: pure.

Two boots, and no fewer are possible: into the ramdisk by the BMC, into the new system by the agent.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from metalimmu.desired.hook_words import health_limit
from metalimmu.desired.types import Hook, HostSpec
from metalimmu.desired.units import seconds
from metalimmu.errors import BmcUnsupported, ImageError, ImageRevoked
from metalimmu.lifecycle import Proof, State
from metalimmu.observed.types import BootOverride, MediaSlot, PowerState, SystemIdentity, WriteRequest
from metalimmu.plan import disk_work, kinds
from metalimmu.plan import method as ways
from metalimmu.plan.identity import same_serial
from metalimmu.plan.method import STEPS, VIRTUAL_MEDIA, Choice, as_media, renamed
from metalimmu.plan.types import Finding, ImageFacts, Plan, PlanStep, Way, Word

MEDIA_URL = "<media URL of the deployment>"

# Seconds, until a host's own history says better: servers need minutes in POST.
_ESTIMATE = {
    "preflight": 5.0,
    "drain": 60.0,
    "undrain": 10.0,
    "media": 1.0,
    "insert": 10.0,
    "override": 5.0,
    "power": 10.0,
    "check-in": 240.0,
    "config": 2.0,
    "eject": 10.0,
    "boot": 5.0,
    "report": 240.0,
    "prove": 5.0,
}
_STALLS = frozenset({"burn-in", "salvage", "erase", "write", "verify", "config", "erase-after"})
_WRITE_RATE = 200e6  # bytes per second, with the read-back

TITLES = {
    "preflight": "look at host, image and config",
    "drain": "hooks before the reimage",
    "media": "prepare boot media and deployment",
    "insert": "insert virtual media",
    "override": "boot once from the media",
    "power": "start the machine",
    "check-in": "ramdisk checks in",
    "burn-in": "test the machine",
    "salvage": "save files of the old system",
    "erase": "erase disks",
    "write": "write the image",
    "verify": "read the disk back",
    "config": "write run-time config",
    "erase-after": "erase other disks",
    "eject": "eject media, clear the override",
    "boot": "let the machine boot its disk",
    "report": "new system reports",
    "prove": "prove and record",
    "health": "health checks of the new system",
    "undrain": "hooks after the reimage",
}


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the store remembers of the host."""

    state: State = State.enrolled
    proof: Proof = Proof.unproven
    image: str | None = None
    digest: str | None = None
    quarantined: str = ""
    seconds: dict[str, float] = {}  # by step, of this host's last run


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the BMC said just now."""

    identity: SystemIdentity
    power: PowerState
    boot: BootOverride
    media: tuple[MediaSlot, ...]


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """Writes per step, from a rehearsal of the driver."""

    will: dict[str, tuple[WriteRequest, ...]] = {}
    may: dict[str, tuple[WriteRequest, ...]] = {}


def choose_slot(media: tuple[MediaSlot, ...]) -> MediaSlot:
    """A slot that takes a CD: an empty one first, then the lowest id. Raises BmcUnsupported."""
    fit = sorted((m for m in media if m.takes_cd), key=lambda m: (m.inserted is True, len(m.id), m.id))
    if not fit:
        have = ", ".join(f"{m.id} ({'/'.join(m.media_types) or 'no types'})" for m in media) or "none at all"
        raise BmcUnsupported(
            f"the BMC offers no virtual CD; it has: {have}",
            hint="check the BMC's licence for virtual media, or boot over the network: `boot: pxe` in the role",
        )
    return fit[0]


def check_image(spec: HostSpec, image: ImageFacts) -> None:
    """Raises ImageError when this image can never be right for this host."""
    if image.revoked:
        raise ImageRevoked(f"{image.ref} is revoked: {image.revoked}")
    kinds.check(spec, image)
    disk_work.check(spec, image)
    if image.architecture != "x86_64":
        raise ImageError(
            f"{image.ref} is for {image.architecture}, and {spec.name} is x86_64",
            hint="build the image for x86_64; other architectures are not supported yet",
        )
    if spec.firmware not in image.firmware:
        raise ImageError(
            f"{image.ref} boots by {', '.join(image.firmware) or 'no firmware known to us'}, but {spec.name} boots by {spec.firmware}",
            hint="set `firmware:` of the role to what the image can, or build the image for both",
        )
    if spec.digest and spec.digest != image.digest and spec.image == image.ref:
        raise ImageError(
            f"images.lock pins {image.ref} to {spec.digest[:19]}…, the store holds {image.digest[:19]}…",
            hint="somebody made another image under this name: find out who, then correct images.lock",
        )


def findings(spec: HostSpec, image: ImageFacts, memory: Memory, seen: Seen) -> tuple[Finding, ...]:
    now = memory.image or ""
    if memory.digest is None:
        image_word = Word.unknown
    else:
        image_word = Word.match if memory.digest == image.digest else Word.differs
    serial = seen.identity.serial
    if not spec.serial or not serial:
        serial_word = Word.unknown
    else:
        serial_word = Word.match if same_serial(serial, spec.serial) else Word.differs
    return (
        Finding(setting="image", word=image_word, expected=image.ref, actual=now, source="store"),
        Finding(
            setting="proof",
            word=Word.match if memory.proof is Proof.proven else Word.unknown,
            expected="proven",
            actual=memory.proof,
        ),
        Finding(
            setting="serial", word=serial_word, expected=spec.serial or "", actual=serial, source=seen.identity.uri
        ),
    )


def plan_reimage(
    spec: HostSpec,
    image: ImageFacts,
    memory: Memory,
    seen: Seen,
    *,
    verb: str = "reimage",
    transfer: int,
    requests: Requests,
    slot: MediaSlot | None,
    choice: Choice | None = None,
    calls: Mapping[str, tuple[str, ...]] | None = None,
    force: bool = False,
    now: float = 0.0,
) -> Plan:
    """The whole plan, or one without steps when the host is already proven at this image. `calls`: what hooks and health
    checks will do, in words, by step.
    """
    chosen = choice or Choice(method=VIRTUAL_MEDIA, why="")
    found = findings(spec, image, memory, seen)
    already = memory.digest == image.digest and memory.proof is Proof.proven and memory.state is State.active
    if already and not memory.quarantined and not force:
        why = f"{spec.name} is already proven at {image.ref}; --force reimages it all the same"
        steps: tuple[PlanStep, ...] = ()
    else:
        why = _why(spec, image, memory, force=force)
        steps = _steps(spec, image, memory, requests, calls or {}, chosen.method)
    return Plan(
        verb=verb,
        host=spec.name,
        spec=spec,
        image=image,
        previous=memory.image,
        previous_digest=memory.digest,
        identity=seen.identity,
        method=chosen.method,
        method_why=chosen.why,
        rejected=chosen.rejected,
        ways=tuple(_way(m, spec, image, memory, requests) for m in chosen.others) if steps else (),
        why=why,
        findings=found,
        steps=steps,
        transfer=transfer if steps else 0,
        slot=slot if VIRTUAL_MEDIA in (chosen.method, *chosen.others) else None,
        warnings=tuple(_warnings(spec, image, seen, memory)),
        created=now,
    )


def _why(spec: HostSpec, image: ImageFacts, memory: Memory, *, force: bool) -> str:
    if memory.quarantined:
        return f"{spec.name} is in quarantine ({memory.quarantined}); a proven reimage ends that"
    if memory.digest is None:
        return f"nothing is known of what {spec.name} carries; {image.ref} is wanted"
    if memory.digest != image.digest:
        return f"{spec.name} carries {memory.image}, {image.ref} is wanted"
    if memory.proof is not Proof.proven:
        return f"{spec.name} carries {image.ref}, unproven"
    return "--force" if force else f"{spec.name} is {memory.state}"


def _warnings(spec: HostSpec, image: ImageFacts, seen: Seen, memory: Memory) -> list[str]:
    said = []
    if not spec.tls.verify:
        said.append("TLS to the BMC is not verified (tls.verify: false)")
    if not spec.serial:
        said.append("the host document has no serial: the machine is known only by its BMC and NICs")
    if seen.power is PowerState.on:
        said.append("the machine is on and will be reset without a shutdown")
    if not seen.boot.once_allowed:
        said.append(
            "the BMC knows no one-time override: it is set continuously and cleared before the machine boots its disk"
        )
    if spec.held is not None:
        said.append(f"held at {spec.held.image} since {spec.held.since}: {spec.held.reason}")
    said += disk_work.warnings(spec, image)
    if image.kind != "disk":
        return said + kinds.warnings(spec, image) + _no_proof(spec)
    if spec.proof.by == "report" and not image.build_id:
        said.append(
            f"{image.ref} was not built by metalimmu and may have no proof unit: if it does not report, this will fail at the "
            "end; set `proof:` in the role (phone_home, ssh or none)"
        )
    said += _no_proof(spec)
    if memory.digest is None:
        said.append("the disk's content is not known to us: everything is written")
    return said


def _no_proof(spec: HostSpec) -> list[str]:
    return ["the role asks for no proof: the host will be active but unproven"] if spec.proof.by == "none" else []


def _steps(
    spec: HostSpec,
    image: ImageFacts,
    memory: Memory,
    requests: Requests,
    calls: Mapping[str, tuple[str, ...]],
    method: str,
    *,
    only: tuple[str, ...] = (),
) -> tuple[PlanStep, ...]:
    """All, or `only` those of these names."""
    lim = spec.limits
    write = image.size / _WRITE_RATE
    limit: Mapping[str, float] = {
        "insert": lim["media"],
        "override": lim["media"],
        "power": lim["power"],
        "check-in": lim["check_in"],
        "write": 24 * 3600.0,  # ends by lim["stall"] without progress
        "verify": 24 * 3600.0,
        "config": lim["stall"],
        "eject": lim["media"] + lim["bmc"],
        "boot": lim["power"],
        "report": lim["phone_home"],
        "prove": lim["bmc"],
        **hook_limits(spec),
    }
    steady = max((seconds(h.for_) for h in spec.health), default=0.0) + 30.0
    estimate = {
        **_ESTIMATE,
        **ways.ESTIMATE,
        **kinds.ESTIMATE,
        **disk_work.estimates(spec),
        "write": write,
        "verify": write / 2,
        "health": steady,
        **memory.seconds,
    }
    left_out = {
        "report": spec.proof.by == "none",
        **hooks_left_out(spec),
        **disk_work.left_out(spec, known=memory.state is State.active and memory.proof is Proof.proven),
    }
    limit = {**kinds.limits(lim), **disk_work.limits(spec), **limit}
    calls = {**disk_work.calls(spec), **calls}
    starts = kinds.boots(image)
    titles = {**TITLES, **ways.TITLES, **kinds.TITLES}
    names = renamed([n for n in kinds.names(image, spec, tuple(TITLES)) if not left_out.get(n)], method)
    return tuple(
        PlanStep(
            name=n,
            title=titles[n],
            limit=limit.get(as_media(n), lim["bmc"]),
            stall=lim["stall"] if n in _STALLS else None,
            seconds=round(estimate[n] if n in _STALLS else min(estimate[n], limit.get(as_media(n), lim["bmc"])), 1),
            boots=1 if n in starts else 0,
            requests=requests.will.get(n, ()),
            if_needed=requests.may.get(n, ()),
            calls=tuple(calls.get(n, ())),
        )
        for n in names
        if not only or n in only
    )


def _way(method: str, spec: HostSpec, image: ImageFacts, memory: Memory, requests: Requests) -> Way:
    """The steps that the method brings."""
    return Way(method=method, steps=_steps(spec, image, memory, requests, {}, method, only=STEPS[method]))


_SPARE = 60.0  # seconds beyond the limits of hooks and checks, which end them themselves


def hook_limits(spec: HostSpec) -> dict[str, float]:
    """Seconds of the steps that the site's own hooks and checks make."""
    return {
        "drain": _hook_limit(spec.before),
        "health": _health_limit(spec),
        "undrain": _hook_limit(spec.after),
    }


def hooks_left_out(spec: HostSpec) -> dict[str, bool]:
    """Those of these steps that this site does not want."""
    return {"drain": not spec.before, "health": not spec.health, "undrain": not spec.after}


def _hook_limit(hooks: tuple[Hook, ...]) -> float:
    return sum(seconds(h.limit) for h in hooks) + _SPARE


def _health_limit(spec: HostSpec) -> float:
    """Checks are looked at one after the other: the last look may end late."""
    if not spec.health:
        return _SPARE
    return max(health_limit(h) for h in spec.health) + sum(seconds(h.timeout) for h in spec.health) + _SPARE
