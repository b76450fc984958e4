"""What a booting machine is told, decided from its deployment and its message: pure.

A rule returns the fields of the deployment's record that change, and a Refusal if the machine is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from metalimmu.boot import config_rules
from metalimmu.boot.ports import Deployment
from metalimmu.plan.identity import missing_nics, same_serial, same_uuid
from metalimmu.wire.manifest import Manifest, read_back_digest
from metalimmu.wire.messages import (
    PHASES,
    PROTOCOL,
    Assignment,
    CheckIn,
    Failure,
    Identity,
    Orders,
    Progress,
    Refusal,
    Report,
    SystemReport,
    asked,
)

MAX_LOG_LINES = 200  # of one message
MAX_LINE = 500  # characters

_LARGEST = 1 << 62  # that a database keeps

_WRITING = PHASES[PHASES.index("zero") : -1]  # phases that leave something of the image on the disk

ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Verdict:
    changes: dict[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None
    status: int = 200


def check_in(d: Deployment, said: CheckIn, manifest: Manifest, now: float) -> Verdict:
    """The first good check-in binds the deployment to that machine."""
    if d.ended is not None:
        return _over(d)
    if said.protocol != PROTOCOL:
        return _refused(
            "AgentRefused",
            f"the ramdisk speaks protocol {said.protocol}, this controller {PROTOCOL}",
            "build the ramdisk again with this version: `metalimmu ramdisk build`",
            said,
            now,
        )
    if said.fence > d.fence:
        return _stale(d, said.fence)
    why = other_machine(d, said.identity)
    if why:
        return _refused("IdentityMismatch", f"another machine checked in for {d.host}: {why}", "", said, now, d)
    wrong = _unfit(d, said, manifest)
    if wrong:
        return _refused("ImageError", wrong, "assign an image made for this machine", said, now)
    cannot = [word for word in asked(d.assignment) if word not in said.can]
    if cannot:
        return _refused(
            "AgentRefused",
            f"the ramdisk's agent {clean(said.agent_version)} does not know {', '.join(cannot)}, which {d.host} asks for",
            "build the ramdisk again with this version: `metalimmu ramdisk build`",
            said,
            now,
        )
    changes: dict[str, Any] = {"last_seen": now, "refusal": None, "refused_at": None}
    if d.check_in is None:
        changes |= {"check_in": said, "checked_in": now}
    if said.boot_id not in d.boot_ids[-1:]:
        # It is progress to be here: POST may have taken longer than a write may stand still.
        changes |= {"boot_ids": (*d.boot_ids, said.boot_id)[-50:], "progressed": now}
    return Verdict(changes)


def other_machine(d: Deployment, seen: Identity) -> str:
    """Why this is not the machine that the deployment is for; empty: it is, as far as is known."""
    wanted = d.assignment
    if wanted.serial and not same_serial(wanted.serial, seen.serial):
        return f"its serial is {seen.serial or 'empty'}, expected {wanted.serial}"
    if wanted.uuid and not _same_uuid(wanted.uuid, seen.uuid):
        return f"its UUID is {seen.uuid or 'empty'}, expected {wanted.uuid} (in either byte order)"
    absent = missing_nics(wanted.nics, tuple(n.mac for n in seen.nics))
    if absent:
        have = ", ".join(n.mac for n in seen.nics) or "none"
        return f"it lacks the NICs {', '.join(absent)}; it has {have}"
    bound = d.check_in.identity if d.check_in else None
    if bound and not (same_serial(bound.serial, seen.serial) and _same_uuid(bound.uuid, seen.uuid)):
        return f"{bound.serial} ({bound.uuid}) checked in first, now {seen.serial} ({seen.uuid})"
    return ""


def _same_uuid(a: str, b: str) -> bool:
    """Some firmware has text there that is no UUID; then the text must be the same."""
    return a.strip().casefold() == b.strip().casefold() or same_uuid(a, b)


def _unfit(d: Deployment, said: CheckIn, manifest: Manifest) -> str:
    architecture = ALIASES.get(said.architecture, said.architecture)
    if architecture != ALIASES.get(manifest.architecture, manifest.architecture):
        return f"{d.assignment.image} is for {manifest.architecture}, the machine is {said.architecture}"
    if manifest.firmware and said.firmware not in manifest.firmware:
        can = " or ".join(manifest.firmware)
        return f"{d.assignment.image} boots by {can}, the machine has booted by {said.firmware}"
    return ""


def assignment(d: Deployment, chunk_base: str, now: float) -> Assignment:
    """After a stop the stage is `done`: such an agent never writes.

    A machine that restarts in mid-write is told that its disk may hold this very image: it looks, and does not start over.
    """
    phase = d.progress.phase if len(d.boot_ids) > 1 and d.progress is not None else ""
    begun = phase in _WRITING
    return dataclasses.replace(
        d.assignment,
        previous_digest=d.digest if begun else d.assignment.previous_digest,
        begun="write" if begun else "erase" if phase == "erase" else "",
        deployment=d.id,
        fence=d.fence,
        stage="done" if d.stop else d.stage,
        chunk_base=chunk_base,
        clock=now,
        host=d.host,
    )


def orders(d: Deployment) -> Orders:
    return Orders(fence=d.fence, go=d.go and not d.stop, stop=d.stop, stage="done" if d.stop else d.stage)


def spoken(d: Deployment, boot_id: str, fence: int) -> Verdict:
    """May this boot of the machine speak for the deployment? Progress, Report and Failure."""
    if d.ended is not None:
        return _over(d)
    if fence > d.fence:
        return _stale(d, fence)
    if boot_id not in d.boot_ids[-1:]:
        text = "this boot has not checked in" if boot_id not in d.boot_ids else "the machine has booted again since"
        return Verdict(refusal=Refusal("AgentRefused", text, "check in first"), status=409)
    return Verdict()


def progressing(d: Deployment, said: Progress) -> Verdict:
    """An agent that waits for go has reported. If we do not know its report, it was to a controller whose memory is lost:
    it is to check in and report again, which costs it nothing.
    """
    verdict = spoken(d, said.boot_id, said.fence)
    unheard = said.phase == "wait" and d.report is None and d.stage == "write"
    if not verdict.refusal and unheard and not d.stop and not d.go:
        text = "this controller has not heard the report of what was written"
        return Verdict(refusal=Refusal("AgentRefused", text, "check in and report again"), status=409)
    return verdict


def may_salvage(d: Deployment) -> Verdict:
    """Only for a machine that has checked in, was asked to, and has not written yet."""
    if d.ended is not None:
        return _over(d)
    if d.check_in is None or d.assignment.salvage is None or d.stage != "write" or d.report is not None or d.stop:
        text = d.stop or "nothing is to be salvaged here now"
        return Verdict(refusal=Refusal("AgentRefused", text, "check in first"), status=409)
    return Verdict()


def queued(d: Deployment, now: float, *, waits: bool) -> dict[str, Any]:
    """Fields of an agent that has asked whether it may write. Its time begins when it may."""
    if waits:
        return {"queued": now} if d.queued is None else {}
    return {} if d.queued is None else {"queued": None, "progressed": now}


def writes(d: Deployment, said: Progress) -> bool:
    """Does this agent take of the network, or is about to?"""
    return said.phase != "wait" and not d.stop and d.report is None and d.failure is None


def progress(said: Progress) -> Progress:
    """What is kept of it: bounded, and without its log, which goes into the history."""
    return dataclasses.replace(said, phase=clean(said.phase)[:40], log=())


def log_lines(said: Progress) -> tuple[str, ...]:
    lines = [clean(line) for line in said.log[:MAX_LOG_LINES]]
    if len(said.log) > MAX_LOG_LINES:
        lines.append(f"({len(said.log) - MAX_LOG_LINES} more lines left out)")
    return tuple(lines)


def clean(line: str) -> str:
    """A machine's text goes to an operator's terminal: no control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line[:MAX_LINE])


def report(d: Deployment, said: Report, manifest: Manifest, now: float) -> Verdict:
    """The controller makes its own comparison: an agent's `all is well` is not enough."""
    verdict = spoken(d, said.boot_id, said.fence)
    if verdict.refusal:
        return verdict
    wanted = read_back_digest(manifest.chunks)
    if said.digest != d.digest:
        wrong = f"the machine wrote {said.digest}, it was told {d.digest}"
    elif said.read_back != wanted:
        wrong = f"the disk reads back as {said.read_back}, {d.assignment.image} is {wanted}"
    elif d.config_digest and said.config_digest != d.config_digest:
        wrong = f"the run-time config on the disk is {said.config_digest or 'none'}, it should be {d.config_digest}"
    else:
        seen = {"report": said, "read_back_ok": True, "stage": "wait", "last_seen": now}
        return Verdict(seen if d.report else {**seen, "written": now})
    failure = Failure("ReadBackDiffers", wrong, boot_id=said.boot_id)
    bad = {"report": said, "read_back_ok": False, "failure": failure, "stop": wrong, "last_seen": now}
    return Verdict(bad)


def failure(d: Deployment, said: Failure, now: float) -> Verdict:
    verdict = spoken(d, said.boot_id, 0)
    if verdict.refusal:
        return verdict
    if d.stop and said.code == "AgentRefused":
        return Verdict({"last_seen": now})  # the echo of our own stop: the reason is in the record already
    kept = dataclasses.replace(said, code=clean(said.code), message=clean(said.message), hint=clean(said.hint))
    return Verdict({"failure": kept, "last_seen": now})


def system(d: Deployment, said: SystemReport, manifest: Manifest, now: float) -> Verdict:
    """Does the new system say that it is the image, on the machine, in a boot after the ramdisk's?

    A report that does not match is kept until the right one comes, and never replaces it. A deployment that has ended
    still answers: the unit asks until it has heard the acknowledgement, and again after each boot.
    """
    elsewhere = another_system(d, said, manifest)
    told = {} if elsewhere else config_rules.heard(d, said, now)
    expected = told.get("config_digest", d.config_digest)
    why = clean(elsewhere or _another_config(expected, said))
    if d.system_ok:
        now_seen = {**told, "system_why": why, "system_at": now}
        return Verdict(now_seen if why else now_seen | {"system": said})
    if d.ended is not None:
        return _over(d)
    return Verdict({**told, "system": said, "system_ok": not why, "system_why": why, "system_at": now})


def phoned_home(d: Deployment, instance: str, hostname: str, now: float, serial: str = "") -> Verdict:
    """cloud-init's phone_home, for images that we did not build: it tells which instance it has configured itself as, and
    nothing of image or machine. So it counts only after the agent was told to reboot, and says what it is worth. Installed
    and live systems report by the same way, and may say their serial.
    """
    booted = d.intent if d.kind == "live" else d.went
    if d.proof_by not in (("phone_home",) if d.kind == "disk" else ("phone_home", "report")) or not booted:
        return Verdict(status=404)
    if d.ended is not None and not d.system_ok:
        return _over(d)
    expected = f"{d.host}-{d.id}"
    why = "" if instance == expected else f"it is instance {clean(instance) or '?'}, expected {expected}"
    if not why and serial and d.assignment.serial and not same_serial(d.assignment.serial, serial):
        why = f"its serial is {clean(serial)}, expected {d.assignment.serial}"
    who = "cloud-init" if d.kind == "disk" else "the system"
    text = f"{who} phoned home as {clean(instance)}, hostname {clean(hostname)}" + (
        f", serial {clean(serial)}" if serial else ""
    )
    said = SystemReport("", "", "", clean(serial), "", note=text)
    if d.system_ok:
        return Verdict({"system_why": why, "system_at": now})
    return Verdict({"system": said, "system_ok": not why, "system_why": why, "system_at": now})


def not_the_system(d: Deployment, said: SystemReport, manifest: Manifest) -> str:
    """What differs; empty: it is the system that was written."""
    return another_system(d, said, manifest) or _another_config(d.config_digest, said)


def another_system(d: Deployment, said: SystemReport, manifest: Manifest) -> str:
    """What differs, whatever its config."""
    name, _, version = d.assignment.image.partition("@")
    bound = d.check_in.identity if d.check_in else None
    serial = bound.serial if bound else d.assignment.serial
    uuid = bound.uuid if bound else d.assignment.uuid
    if (said.image_id, said.image_version) != (name, version):
        return f"it is {said.image_id or '?'}@{said.image_version or '?'}, expected {d.assignment.image}"
    if manifest.build_id and said.build_id != manifest.build_id:
        return f"its build is {said.build_id or '?'}, expected {manifest.build_id}"
    if serial and not same_serial(serial, said.serial):
        return f"its serial is {said.serial or '?'}, expected {serial}"
    if uuid and said.uuid and not _same_uuid(uuid, said.uuid):
        return f"its UUID is {said.uuid}, expected {uuid}"
    if not said.boot_id or said.boot_id in d.boot_ids:
        return "its boot id is the ramdisk's, not a new one"
    if d.assignment.mirrored and "raid1" not in said.arrays:
        return f"its root is to be a RAID 1, and it runs none (arrays: {clean(said.arrays) or 'none'}): has the image mdadm?"
    return ""


def _another_config(expected: str, said: SystemReport) -> str:
    if expected and said.config_digest and said.config_digest != expected:
        return f"its run-time config is {said.config_digest}, expected {expected}"
    return ""


def acknowledges(d: Deployment, said: SystemReport, manifest: Manifest) -> bool:
    """True only when the record says so and this very report is of that system."""
    return d.system_ok and not not_the_system(d, said, manifest)


def _refused(code: str, message: str, hint: str, said: CheckIn, now: float, d: Deployment | None = None) -> Verdict:
    """Told to the machine, and kept with both identities for the run that waits."""
    seen = said.identity
    evidence = {
        "serial": seen.serial,
        "uuid": seen.uuid,
        "vendor": seen.vendor,
        "product": seen.product,
        "nics": ", ".join(n.mac for n in seen.nics),
    }
    if d is not None:
        evidence["expected_serial"] = d.assignment.serial
        evidence["expected_uuid"] = d.assignment.uuid
        evidence["expected_nics"] = ", ".join(d.assignment.nics)
    evidence = {k: clean(v) for k, v in evidence.items()}
    kept = Failure(code, clean(message), hint, evidence, said.disks, clean(said.boot_id))
    return Verdict({"refusal": kept, "refused_at": now}, Refusal(code, clean(message), hint), 409)


def _over(d: Deployment) -> Verdict:
    text = f"deployment {d.id} of {d.host} is over"
    return Verdict(refusal=Refusal("AgentRefused", text, "eject the media and boot from disk"), status=403)


def _stale(d: Deployment, fence: int) -> Verdict:
    """Kept: a controller that was replaced must learn from the machines that it is."""
    text = f"the machine has seen fence {fence}, this controller has {d.fence}"
    refusal = Refusal("LeaseLost", text, "this controller was replaced: one that was restored from its backup goes on")
    return Verdict({"superseded": min(fence, _LARGEST)}, refusal, 409)
