"""The second half of a reimage: from a checked-in agent to a proven system."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from metalimmu.errors import ReadBackDiffers, StepTimeout
from metalimmu.lifecycle import Proof, State, move
from metalimmu.observed.types import BootTarget, PowerState
from metalimmu.plan import kinds
from metalimmu.store.records import HostRecord
from metalimmu.wire.messages import PHASES, Report, SystemReport
from metalimmu.workflows import ways
from metalimmu.workflows.boot_steps import LOST, raise_failure, tend_boot
from metalimmu.workflows.context import Context
from metalimmu.workflows.step import Evidence, Step

_ASKING = 60.0  # seconds: agents that wait ask every ten


class OnDisk(Step):
    """What the agent does, when it is its turn."""

    def held(self, c: Context) -> bool:
        return waits_its_turn(c)

    def tend(self, c: Context) -> None:
        _watch(c)


class Write(OnDisk):
    """The agent works; we watch that it does, and start the machine again where it fell silent."""

    name = "write"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        phase = d.progress.phase if d.progress else ""
        if c.outlived(d):
            return {"summary": LOST}
        if d.report is None and phase not in PHASES[PHASES.index("read-back") :]:
            return None
        return {"summary": f"{d.chunk_bytes / 1e6:.1f} MB fetched", "bytes": d.chunk_bytes}

    def hint(self) -> str:
        return "look at the machine's console and its disk"


class Verify(OnDisk):
    name = "verify"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        if d.report is None:
            return {"summary": LOST} if c.outlived(d) else None
        if d.report.digest != c.plan.image.digest or not d.read_back_ok:
            raise ReadBackDiffers(
                f"the disk reads back as {d.report.read_back[:16]}…, which is not {c.plan.image.ref} ({c.plan.image.digest[:19]}…)"
            )
        return {"summary": _written(d.report), "report": asdict(d.report)}


class Configure(OnDisk):
    name = "config"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        if d.report is None:
            return {"summary": LOST, "digest": d.config_digest} if c.outlived(d) else None
        if d.report.config_digest != d.config_digest:
            raise ReadBackDiffers(
                f"run-time config on the disk is {d.report.config_digest}, should be {d.config_digest}"
            )
        return {
            "summary": f"digest {d.config_digest[:12]}",
            "digest": d.config_digest,
            "efi_entries": d.report.efi_entries,
        }


class Eject(Step):
    """Before go, while the agent waits: the ramdisk lives in memory, and no system runs that could mind."""

    name = "eject"
    again = 0.3

    def observe(self, c: Context) -> Evidence | None:
        if not ways.is_out(c) or c.bmc.boot_override().effective != BootTarget.none:
            return None
        out = "offer withdrawn" if ways.by_network(c) else "media out"
        return {"summary": f"{out}, override cleared"}

    def act(self, c: Context) -> None:
        ways.take_back(c)
        ways.clear_override(c)

    def undo(self, c: Context) -> None:
        self.act(c)


class Withdraw(Eject):
    """The same after a boot from the network: whoever asks from now on boots its disk."""

    name = "withdraw"


class Go(Step):
    name = "boot"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        d = c.deployed()
        if d.went is None and not d.system_ok:
            return None
        who = "agent" if c.plan.image.kind == "disk" else "installer"
        return {"summary": f"the {who} restarts into the disk"}

    def act(self, c: Context) -> None:
        c.tools.store.update_deployment(c.run, go=True)

    def explain(self, c: Context) -> str:
        return f"the machine was last heard {c.tools.clock.now() - (c.deployed().last_seen or 0):.0f} s ago"

    def hint(self) -> str:
        return "all is written, and the machine does not ask on: look at its console and network, then reimage"


class SystemReports(Step):
    """The new system's own word: which image it is, on which machine, in which boot."""

    name = "report"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        if c.plan.image.kind != "disk":
            raise_failure(c)
        if c.spec.proof.by == "ssh":
            return _by_ssh(c)
        d = c.deployed()
        if not d.system_ok or d.system is None:
            return None
        return {"summary": _says(d.system), **asdict(d.system)}

    def explain(self, c: Context) -> str:
        d = c.deployed()
        if d.system is not None:
            return f"a system reported, but not the one that was written: {_says(d.system)}; {d.system_why}"
        return "the machine was told to boot its disk, and its system has not reported"

    def hint(self) -> str:
        return "look at the machine's console: does it boot from the disk, does its network come up, can it reach `urls.machines`?"


class Prove(Step):
    """All evidence once more, in one place; only then active and proven. Where health is checked, active comes after."""

    name = "prove"

    def observe(self, c: Context) -> Evidence | None:
        stays = kinds.stays(c.plan.image)
        if not (stays or ways.is_out(c)) or c.bmc.boot_override().effective != BootTarget.none:
            return None
        evidence = _evidence(c)
        proven = c.spec.proof.by != "none"
        record = c.tools.store.host(c.host)
        keep = record.digest in (None, c.plan.image.digest)  # None: an attempt before this one has destroyed it
        c.tools.store.update_host(
            c.host,
            state=record.state if c.spec.health else move(record.state, State.active),
            proof=Proof.proven if proven else Proof.unproven,
            proof_evidence=evidence,
            proven_at=c.tools.clock.now() if proven else None,
            efi_entries=_labels(c, record),
            image=c.plan.image.ref,
            digest=c.plan.image.digest,
            previous_image=record.previous_image if keep else record.image,
            previous_digest=record.previous_digest if keep else record.digest,
            quarantine=None,
            error=None,
            power=PowerState.on,
            power_at=c.tools.clock.now(),
            settles=None,
        )
        if not stays:
            c.tools.store.update_deployment(c.run, ended=c.tools.clock.now())
        word = "proven" if proven else "active, unproven (the role asks for no proof)"
        c.event("proven" if proven else "active", f"{c.host} is {word} at {c.plan.image.ref}", evidence=evidence)
        return {"summary": f"{c.plan.image.ref} {word}", "proof": evidence}

    def tend(self, c: Context) -> None:
        """The BMC shows media or override again (some do after a reset): put it right before we say it is."""
        if not kinds.stays(c.plan.image):
            ways.take_back(c)
        ways.clear_override(c)


def _labels(c: Context, record: HostRecord) -> tuple[str, ...]:
    """Boot entries that are ours; an installer makes its own."""
    ours = (c.deployed().assignment.efi_label,) if c.plan.image.kind == "disk" else ()
    return tuple(dict.fromkeys((*record.efi_entries, *ours)))[-20:]


def _evidence(c: Context) -> dict[str, Any]:
    d = c.deployed()
    return {
        "run": c.run,
        "at": c.tools.clock.now(),
        "check_in": {"serial": d.check_in.identity.serial, "uuid": d.check_in.identity.uuid} if d.check_in else None,
        "disks": [f"{disk.path} {disk.model} {disk.serial} {disk.size}" for disk in d.check_in.disks]
        if d.check_in
        else [],
        "disk": d.report.disk.path if d.report else None,
        "digest": c.plan.image.digest,
        "read_back": d.report.read_back if d.report else None,
        "config_digest": d.config_digest,
        "system": asdict(d.system) if d.system else None,
        "proof_by": c.spec.proof.by,
        "media_ejected": not kinds.stays(c.plan.image),
        "override_cleared": True,
        "media_bytes": d.media_bytes,
        "chunk_bytes": d.chunk_bytes,
        **({"read_back_by": LOST} if c.outlived(d) else {}),
        **({"kind": d.kind, "fetched": d.fetched, "finished": d.finished} if d.kind != "disk" else {}),
    }


def _by_ssh(c: Context) -> Evidence | None:
    said = c.tools.outside.ask(c.spec)
    if said is None or said.get("BOOT", "") in ("", *c.deployed().boot_ids):
        return None
    name = said.get("PRETTY_NAME") or said.get("ID", "?")
    system = SystemReport(
        said.get("IMAGE_ID", ""),
        said.get("IMAGE_VERSION", ""),
        said.get("BUILD_ID", ""),
        said.get("SERIAL", ""),
        said["BOOT"],
        note=f"{name} on {said.get('SERIAL') or 'no serial'} answers by SSH",
    )
    c.tools.store.update_deployment(c.run, system=system, system_ok=True, system_at=c.tools.clock.now())
    return {"summary": system.note, "os_release": said}


def _written(report: Report) -> str:
    kept = f", {report.kept_chunks} kept" if report.kept_chunks else ""
    return f"read back, equal: {report.disk.path}, {report.fetched_chunks} chunks fetched{kept}, {report.zero_bytes / 1e6:.0f} MB zeroed"


def _says(system: SystemReport) -> str:
    if system.note:
        return system.note
    return f"{system.image_id or '?'}@{system.image_version or '?'} on {system.serial or 'no serial'}"


def waits_its_turn(c: Context) -> bool:
    """Its agent was told to wait, and still asks. One that has fallen silent is treated as any other."""
    return c.deployed().queued is not None and c.quiet() < _ASKING


def _watch(c: Context) -> None:
    """Silence: first start the machine again (it may have lost power), then give up at the site's limit.

    A machine that was started and has not written since is in POST: it has as long as for its first check-in.
    """
    if waits_its_turn(c):
        if not c.notes.get("waited"):
            c.notes["waited"] = True
            c.event("waits", f"{c.host} waits for its turn to write: as many agents do as boot.agents allows")
        return
    d = c.deployed()
    booting = (d.intent_at or 0.0) > (d.progressed or 0.0)  # reading its media it is heard, and does not write yet
    stall = c.spec.limits["stall"]
    if booting:
        stall = max(stall, c.plan.step("check-in").limit)
        tend_boot(c, share=0.35)
    elif c.quiet() > stall / 2:
        tend_boot(c, share=0.0)
    still = min(c.quiet() if booting else c.tools.clock.now() - (d.progressed or 0.0), c.tools.clock.now() - c.since)
    if still > stall:
        last = f"{d.progress.phase} {d.progress.done} of {d.progress.total} bytes" if d.progress else "nothing"
        raise StepTimeout(
            f"no progress for {still:.0f} s, last known: {last}",
            hint="look at the machine's console, its network and its disk",
        )
