"""Ask a host again what it runs: the BMC's word and the system's own, now. The answer is recorded, whatever it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from metalimmu.errors import NotFound, StepFailed, UsageError
from metalimmu.lifecycle import Proof, State
from metalimmu.observed.types import BootTarget, PowerState
from metalimmu.plan.identity import same_serial
from metalimmu.service.outside import ask_ssh
from metalimmu.service.runs import refuse_held, who

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import HostRecord

_LOOK = 0.5  # seconds


def prove(site: OpenSite, host: str, *, listening: Callable[[], object] | None = None) -> str:
    """A sentence. Raises StepFailed when the host did not prove itself; it is unproven then.

    `listening` is called again and again to see to it that the boot service listens, by whoever asks many hosts.
    """
    spec = site.spec(host)
    record = site.store.host(host)
    refuse_held(site, host)
    if record.image is None or record.digest is None:
        raise UsageError(
            f"no image is recorded on {host}: nothing was deployed, or a run failed after it had begun to write",
            hint=f"`metalimmu reimage {host}`",
        )
    if spec.kind == "switch":
        from metalimmu.service.switch_proof import prove_switch

        return prove_switch(site, spec)
    if spec.proof.by == "none":
        raise UsageError(
            f"the role of {host} asks for no proof", hint="set `proof:` in the role: report, phone_home or ssh"
        )
    if spec.proof.by == "phone_home":
        raise UsageError(
            f"the image of {host} phones home once, at its first boot, and cannot be asked again",
            hint="use `proof: {by: ssh}` in the role, or an image that metalimmu has built",
        )
    if spec.proof.by == "report" and _phoned_home(site, record):
        raise UsageError(
            f"{record.image} on {host} phoned home once, at its first boot, and cannot be asked again",
            hint="use `proof: {by: ssh}` in the role, or have the system run a proof unit",
        )
    try:
        again = {
            **bmc_says(site, spec),
            "system": _system_says(site, spec, str(record.proof_evidence.get("run", "")), listening),
            "asked_by": who(),
            "at": time.time(),
        }
    except StepFailed as exc:
        site.store.update_host(host, proof=Proof.unproven)
        site.store.add_event(host, "unproven", f"{host} did not prove itself: {exc.message}")
        raise
    return proven_again(site, spec, record, again)


def proven_again(site: OpenSite, spec: HostSpec, record: HostRecord, again: dict[str, Any]) -> str:
    """A sentence. `record`: of before it was asked, `again`: what it said. Raises Unhealthy."""
    evidence = {**record.proof_evidence, "again": again}
    well = not spec.health or (record.quarantine is None and record.state is State.active)
    ended = {"quarantine": None, "error": None} if well else {}
    site.store.update_host(
        spec.name, proof=Proof.proven, proof_evidence=evidence, proven_at=time.time(), settles=None, **ended
    )
    site.store.add_event(spec.name, "proven", f"{spec.name} proved again that it runs {record.image}", data=evidence)
    return f"proven at {record.image}" + ("" if well else f"; {_healthy(site, spec)}")


def _phoned_home(site: OpenSite, record: HostRecord) -> bool:
    """Was it somebody's installer, or a live system without our proof unit, that reported?"""
    try:
        d = site.store.deployment(str(record.proof_evidence.get("run", "")))
    except NotFound:
        return False
    return d.kind != "disk" and (d.system is None or not d.system.boot_id)


def _healthy(site: OpenSite, spec: HostSpec) -> str:
    """The image is right; whether the host may be counted on, its health says. Raises Unhealthy."""
    from metalimmu.service.health import look

    record = site.store.host(spec.name)
    found = look(site, spec, record)
    refuse_held(site, spec.name)  # it took its time
    if record.state is State.enrolled:
        site.store.update_host(spec.name, state=State.deploying)  # the way to active leads through it
    site.store.update_host(spec.name, state=State.active, health=found, quarantine=None, error=None)
    site.store.add_event(spec.name, "healthy", f"{spec.name} is healthy: {found.why}", data={"checks": found.checks})
    return f"healthy: {found.why}"


def bmc_says(site: OpenSite, spec: HostSpec) -> dict[str, Any]:
    """That it is this machine, on, and would boot its disk. Raises StepFailed, BmcError."""
    with site.connect(spec, mode="read-only") as bmc:
        identity, boot, power = bmc.identity(), bmc.boot_override(), bmc.power_state()
    if spec.serial and identity.serial and not same_serial(spec.serial, identity.serial):
        raise StepFailed(
            f"the BMC is of machine {identity.serial}, {spec.name} is {spec.serial}", hint="correct the BMC's address"
        )
    if power is not PowerState.on:
        raise StepFailed(
            f"{spec.name} is {power}: no system runs that could answer", hint=f"`metalimmu power on {spec.name}`"
        )
    if boot.effective != BootTarget.none:
        raise StepFailed(
            f"the BMC would boot {boot.target} ({boot.enabled}) next time, not the disk",
            hint="clear the override, or reimage",
        )
    return {"serial": identity.serial, "power": str(power), "override_cleared": True}


def _system_says(
    site: OpenSite, spec: HostSpec, deployment: str, listening: Callable[[], object] | None
) -> dict[str, Any]:
    """Wait for a new report: the proof unit repeats itself at the interval that the controller gave it."""
    if spec.proof.by == "ssh":
        said = ask_ssh(spec, site.folder)
        if said is None:
            raise StepFailed(
                f"{spec.name} does not answer by SSH as the image that was written",
                hint="look at its console, or reimage",
            )
        return said
    from metalimmu.service.worker import Worker

    begun = time.time()
    limit = spec.limits["phone_home"]
    worker = Worker(site, runs=False)
    try:
        while time.time() < begun + limit:
            (listening or worker.try_start)()  # the boot service must listen: ours, or that of the site's worker
            last = site.store.deployment(deployment)
            if last.system is not None and (last.system_at or 0) > begun:
                if not last.system_why:
                    return asdict(last.system)
                raise StepFailed(
                    f"{spec.name} reports something else: {last.system_why}", hint="somebody changed it: reimage"
                )
            time.sleep(_LOOK)
    finally:
        worker.stop()
    raise StepFailed(
        f"{spec.name} did not report within {limit:.0f} s", hint="is it on, and can it reach `urls.machines`?"
    )
