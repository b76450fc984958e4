"""Make a plan: look at the host's BMC without writing, and rehearse what a run would send."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from metalimmu.desired.hook_words import health_line, hook_line, secret_names, texts
from metalimmu.desired.render import Filler, render
from metalimmu.errors import GuardRefused, HostProtected, NotFound, ReadOnlyMode, UsageError
from metalimmu.lifecycle import State
from metalimmu.log import redacted
from metalimmu.observed.types import BootEnabled, BootTarget, PowerAction, PowerState, WriteRequest
from metalimmu.plan.reimage import MEDIA_URL, Memory, Requests, Seen, check_image, choose_slot, plan_reimage
from metalimmu.plan.types import ImageFacts, Plan
from metalimmu.service.config import controller
from metalimmu.workflows.boot_steps import enabled_for

if TYPE_CHECKING:
    from metalimmu.bmc.ports import Bmc
    from metalimmu.desired.types import HostSpec
    from metalimmu.observed.types import MediaSlot
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import HostRecord


def plan_host(
    site: OpenSite, host: str, *, image: str | None = None, verb: str = "reimage", force: bool = False
) -> Plan:
    """What `reimage` would do, and exactly that. Sends no write. Raises MetalimmuError of many kinds, each with a hint."""
    spec = site.spec(host)
    wanted = image or spec.image
    if wanted is None:
        raise UsageError(
            f"{host} has no role, so no image is wanted of it",
            hint="set `role:` in its document, or name one: --image NAME@VERSION",
        )
    facts = image_facts(site, wanted)
    check_image(spec, facts)
    site.ramdisk(spec.ramdisk)
    render(
        spec, controller=controller(site.docs.site.urls.machines, "")
    )  # an undefined variable is found here, before a machine is touched
    memory = _memory(site, host)
    calls = planned_calls(spec, wanted, memory.image or "")
    with site.connect(spec, mode="read-only") as bmc:
        seen = Seen(identity=bmc.identity(), power=bmc.power_state(), boot=bmc.boot_override(), media=bmc.media())
        slot = choose_slot(seen.media)
        requests = rehearse(bmc, spec, seen, slot, site.docs.site.urls.bmc)
    site.store.observe(host, "boot", redacted(msgspec.to_builtins(seen)))
    return plan_reimage(
        spec,
        facts,
        memory,
        seen,
        verb=verb,
        transfer=bytes_to_move(site, facts, memory.digest),
        requests=requests,
        slot=slot,
        calls=calls,
        force=force,
        now=time.time(),
    )


def planned_calls(spec: HostSpec, image: str, previous: str) -> dict[str, tuple[str, ...]]:
    """What the hooks and health checks of a host will do, by step. Raises TemplateError."""
    if not (spec.before or spec.after or spec.health):
        return {}
    calls = (*spec.before, *spec.health, *spec.after)
    secrets = {name: "***" for call in calls for name in secret_names(call)}
    fill = Filler(spec, image=image, previous_image=previous, secrets=secrets)
    for call in calls:
        for _, text, _ in texts(call):
            fill(text)  # headers and bodies are not shown, and must render all the same
    return {
        "drain": tuple(hook_line(h, fill) for h in spec.before),
        "health": tuple(health_line(h, fill) for h in spec.health),
        "undrain": tuple(hook_line(h, fill) for h in spec.after),
    }


def check_guards(plan: Plan, *, allow_protected: bool = False, reason: str | None = None) -> None:
    """What forbids this plan. Raises GuardRefused."""
    if plan.nothing:
        return
    if plan.spec.mode != "read-write":
        raise ReadOnlyMode(f"the site (or the pool of {plan.host}) is in mode read-only: nothing is written")
    if plan.spec.protected and not (allow_protected and reason):
        raise HostProtected(f"{plan.host} is protected")


def rollback_image(site: OpenSite, host: str) -> str:
    """The image that the host had before. Raises NotFound, GuardRefused."""
    site.spec(host)
    record = site.store.host(host)
    if record.previous_image is None:
        raise NotFound(
            f"no image before {record.image or 'the present one'} is recorded for {host}",
            hint="name one: `metalimmu reimage HOST --image NAME@VERSION`",
        )
    known = site.catalogue.get(record.previous_image)
    if record.previous_digest and known.digest != record.previous_digest:
        raise GuardRefused(
            f"{host} had {record.previous_image} with digest {record.previous_digest[:19]}…, the store now has {known.digest[:19]}… under this name",
            hint="add the old image again, or reimage to another version",
        )
    return record.previous_image


def image_facts(site: OpenSite, ref: str) -> ImageFacts:
    """Raises NotFound."""
    image = site.catalogue.get(ref)
    return ImageFacts(
        ref=image.ref,
        digest=image.digest,
        kind=image.manifest.kind,
        architecture=image.manifest.architecture,
        firmware=image.manifest.firmware,
        size=image.manifest.size,
        all_bytes=sum(_stored(site, c) for c in image.manifest.distinct()),
        build_id=image.manifest.build_id,
        revoked=image.revoked,
    )


def bytes_to_move(site: OpenSite, facts: ImageFacts, previous: str | None) -> int:
    """Compressed bytes of the chunks that the disk does not hold at their place already, as far as we know."""
    new = site.catalogue.get(facts.ref).manifest
    known = site.catalogue.by_digest(previous) if previous else None
    old = known.manifest.chunks if known else ()
    want = {c for i, c in enumerate(new.chunks) if c is not None and (i >= len(old) or old[i] != c)}
    return sum(_stored(site, c) for c in want)


def rehearse(bmc: Bmc, spec: HostSpec, seen: Seen, slot: MediaSlot, base: str) -> Requests:
    """The writes of each step, from the very code that will send them."""

    def insert() -> None:
        if slot.inserted or slot.image:
            bmc.eject_media(slot)
        bmc.insert_media(slot, f"{base.rstrip('/')}/m/{MEDIA_URL}/boot.iso")

    def override() -> None:
        from metalimmu.observed.types import BootMode

        mode = BootMode.uefi if spec.firmware == "uefi" else BootMode.legacy
        bmc.set_boot_override(BootTarget.cd, enabled_for(seen.boot), mode if seen.boot.mode is not None else None)

    def power() -> None:
        bmc.set_power(PowerAction.on if seen.power is PowerState.off else PowerAction.force_restart)

    def rehearsed(act: object) -> tuple[WriteRequest, ...]:
        return tuple(bmc.rehearse(act))  # type: ignore[arg-type]

    clear = rehearsed(lambda: bmc.set_boot_override(BootTarget.none, BootEnabled.disabled, None))
    out = rehearsed(lambda: bmc.eject_media(slot))
    continuous = not seen.boot.once_allowed
    return Requests(
        will={
            "insert": rehearsed(insert),
            "override": rehearsed(override),
            "power": rehearsed(power),
            "eject": (*out, *(clear if continuous else ())),
        },
        may={} if continuous else {"eject": clear},
    )


def _memory(site: OpenSite, host: str) -> Memory:
    record = site.store.host(host)
    return Memory(
        state=State(record.state),
        proof=record.proof,
        image=record.image,
        digest=record.digest,
        quarantined=record.quarantine.reason if record.quarantine else "",
        seconds=_last_seconds(site, record),
    )


def _last_seconds(site: OpenSite, record: HostRecord) -> dict[str, float]:
    """How long each step of this host's last good run took."""
    from metalimmu.store.records import RunStatus

    last = next(iter(site.store.runs(host=record.name, status=RunStatus.succeeded, limit=1)), None)
    return {s.name: s.seconds for s in site.store.steps(last.id) if s.seconds} if last else {}


def _stored(site: OpenSite, chunk: str) -> int:
    try:
        return site.catalogue.chunk_path(chunk).stat().st_size
    except FileNotFoundError:
        return 0
