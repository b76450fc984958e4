"""Make a plan: look at the host's BMC without writing, and rehearse what a run would send."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu import structs
from metalimmu.desired.answers import with_answers
from metalimmu.desired.hook_words import health_line, hook_line, secret_names, texts
from metalimmu.desired.render import Filler, digest, render
from metalimmu.desired.switch import METHODS as SWITCH_METHODS
from metalimmu.errors import GuardRefused, NotFound, UsageError
from metalimmu.lifecycle import Proof, State
from metalimmu.plan import pair
from metalimmu.plan.method import METHODS
from metalimmu.plan.reimage import Memory, check_image, plan_reimage
from metalimmu.plan.saved import HostPlan
from metalimmu.plan.types import ImageFacts, Plan, Word
from metalimmu.service.config import ANSWERS, controller
from metalimmu.service.kinds import kernel_arguments
from metalimmu.service.looking import Look, look
from metalimmu.service.methods import chosen

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite
    from metalimmu.store.protocol_plans import Memories
    from metalimmu.store.records import HostRecord
    from metalimmu.wire.manifest import Bootable


def plan_host(
    site: OpenSite,
    host: str,
    *,
    image: str | None = None,
    verb: str = "reimage",
    force: bool = False,
    method: str | None = None,
) -> Plan:
    """What `reimage` would do, and exactly that. Sends no write. Raises MetalimmuError of many kinds, each with a hint."""
    return Planner(site).plan(host, image=image, verb=verb, force=force, method=method).plan


class Planner:
    """Plans hosts, from any thread; what they have in common is read once, so it lives as long as one request.

    With `memories` no BMC is asked: what was seen last is believed, until `apply` looks again.
    """

    def __init__(self, site: OpenSite, *, memories: Memories | None = None) -> None:
        self._site = site
        self._memories = memories
        self._facts: dict[str, ImageFacts] = {}
        self._ramdisks: dict[str, bool] = {}  # flavour: can it be booted over the network?
        self._moves: dict[tuple[str, str | None], int] = {}

    @property
    def asks(self) -> bool:
        """Does it ask BMCs?"""
        return self._memories is None

    def plan(
        self,
        host: str,
        *,
        image: str | None = None,
        verb: str = "reimage",
        force: bool = False,
        spec: HostSpec | None = None,
        method: str | None = None,
    ) -> HostPlan:
        """`spec`: this one, and not what the documents say now; `method`: this boot method and no other. Raises MetalimmuError of many kinds, each with a hint."""
        site = self._site
        spec = spec or site.spec(host)
        if method:
            spec = _by(spec, method)
        wanted = image or spec.image
        if wanted is None:
            raise UsageError(
                f"{host} has no role, so no image is wanted of it",
                hint="set `role:` in its document, or name one: --image NAME@VERSION",
            )
        facts = self._image(wanted)
        if spec.kind == "switch":
            return self._switch(spec, facts, verb=verb, force=force)
        check_image(spec, facts)
        if facts.kind != "disk":
            spec = self._booted(spec, facts)
        elif spec.ramdisk not in self._ramdisks:
            self._ramdisks[spec.ramdisk] = bool(site.ramdisk(spec.ramdisk).parts)
        # What does not render is found here, before a machine is touched.
        config = digest(render(spec, controller=controller(site.docs.site.urls.machines, "")))
        memory = _memory(site, host) if self._memories is None else remembered(self._memories, host)
        calls = planned_calls(spec, wanted, memory.image or "")
        seen = look(site, spec) if self._memories is None else self._remembered(spec)
        netboots = self._ramdisks.get(spec.ramdisk, True)
        choice = chosen(site.docs.site, spec, facts, seen, netboots=netboots)
        made = plan_reimage(
            spec,
            facts,
            memory,
            seen.seen,
            verb=verb,
            transfer=self._transfer(facts, memory.digest),
            requests=seen.requests,
            slot=seen.slot,
            choice=choice,
            calls=calls,
            force=force,
            now=time.time(),
        )
        return HostPlan(
            host=host,
            wave=0,
            plan=made,
            config=config,
            looked=seen.at,
            pool=spec.pool or "",
            state=memory.state,
            quarantine=memory.quarantined,
        )

    def _switch(self, spec: HostSpec, facts: ImageFacts, *, verb: str, force: bool) -> HostPlan:
        """A switch is asked in any case: what its pair was yesterday says nothing."""
        from metalimmu.service import switch_planning

        render(spec, controller=controller(self._site.docs.site.urls.machines, ""))
        memory = _memory(self._site, spec.name)
        return switch_planning.plan(self._site, spec, facts, memory, verb=verb, force=force)

    def _booted(self, spec: HostSpec, facts: ImageFacts) -> HostSpec:
        """For an image that is booted: with the files that its installer asks for. What does not render is found here."""
        if facts.kind == "iso":
            return spec
        spec = with_answers(spec, facts.answers)
        boots = self._site.catalogue.get(facts.ref).manifest.boots
        if boots is not None:
            kernel_arguments(spec, boots, answers_at=ANSWERS)
        return spec

    def _image(self, ref: str) -> ImageFacts:
        if ref not in self._facts:
            self._facts[ref] = image_facts(self._site, ref)
        return self._facts[ref]

    def _transfer(self, facts: ImageFacts, previous: str | None) -> int:
        key = (facts.digest, previous)
        if key not in self._moves:
            self._moves[key] = bytes_to_move(self._site, facts, previous)
        return self._moves[key]

    def _remembered(self, spec: HostSpec) -> Look:
        found = self._memories.looks.get(spec.name) if self._memories else None
        hint = "`metalimmu plan` without --from-memory looks at it"
        if found is None:
            raise NotFound(f"{spec.name} was never looked at for a plan", hint=hint)
        seen = msgspec.structs.replace(structs.decode(found[0], Look), at=found[1])
        if misfit := seen.misfit(spec, self._site.docs.site.urls.bmc):
            raise NotFound(f"what is remembered of {spec.name} does not fit: {misfit}", hint=hint)
        return seen


def _by(spec: HostSpec, method: str) -> HostSpec:
    """By this method and no other. Raises UsageError where this kind of host has none of that name."""
    switch = spec.kind == "switch"
    words = ("auto", *(SWITCH_METHODS if switch else METHODS))
    if method not in words:
        raise UsageError(
            f"--method {method} is not for {spec.name}, which is a {spec.kind}",
            hint=f"for it there are {', '.join(words)}",
        )
    if switch:
        return msgspec.structs.replace(spec, boot=method)
    return msgspec.structs.replace(spec, methods=() if method == "auto" else (method,))


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


def check_seen(plan: Plan) -> None:
    """What was seen, and forbids this plan of a switch: said before a run is made; the run looks again. Raises GuardRefused."""
    if plan.spec.kind != "switch":
        return
    wrong = [f for f in plan.findings if f.setting.startswith(pair.FORBIDS) and f.word is not Word.match]
    if wrong:
        raise GuardRefused(
            f"{plan.host} must not go now: {pair.text(wrong)}", hint="mend what is named, then try again"
        )


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
    same = site.catalogue.by_digest(image.digest) or image
    return ImageFacts(
        ref=image.ref,
        digest=image.digest,
        kind=image.manifest.kind,
        architecture=image.manifest.architecture,
        firmware=image.manifest.firmware,
        size=image.manifest.size,
        all_bytes=sum(_stored(site, c) for c in image.manifest.distinct()),
        build_id=image.manifest.build_id,
        revoked=f"as {same.ref}: {same.revoked}" if same.revoked and same.ref != image.ref else same.revoked,
        nos=image.manifest.nos,
        **_bootable(image.manifest.boots),
    )


def _bootable(boots: Bootable | None) -> dict[str, Any]:
    if boots is None:
        return {}
    size = sum(p.length for p in boots.parts if p.name in ("kernel", "initrd"))
    return {"answers": boots.answers, "from_media": boots.from_media, "boot_bytes": size}


def bytes_to_move(site: OpenSite, facts: ImageFacts, previous: str | None) -> int:
    """Compressed bytes of the chunks that the disk does not hold at their place already, as far as we know."""
    if facts.kind != "disk":
        return facts.size  # as it is, by its media
    new = site.catalogue.get(facts.ref).manifest
    known = site.catalogue.by_digest(previous) if previous else None
    old = known.manifest.chunks if known else ()
    want = {c for i, c in enumerate(new.chunks) if c is not None and (i >= len(old) or old[i] != c)}
    return sum(_stored(site, c) for c in want)


def remembered(memories: Memories, host: str) -> Memory:
    """Like what is read of the store for one host."""
    state, proof, image, digest, quarantine = memories.hosts.get(host) or (State.enrolled, Proof.unproven, *(None,) * 3)
    seconds = memories.seconds.get(host)
    return Memory(
        state=State(state),
        proof=Proof(proof),
        image=image,
        digest=digest,
        quarantined=msgspec.json.decode(quarantine)["reason"] if quarantine else "",
        seconds=msgspec.json.decode(seconds) if seconds else {},
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
