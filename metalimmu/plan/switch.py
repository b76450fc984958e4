"""What a reimage of a switch changes, in which steps: pure.

Two ways. `onie`: its NOS is told to start ONIE's installer, which fetches the image from us, wipes the NOS and installs
the new one; ZTP then brings its configuration. `two-slot`: a SONiC installs its next version beside itself, boots it
once, and keeps it only when it is proven; nothing is wiped, and the way back is a reboot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from metalimmu.desired.switch import METHODS, no_bmc
from metalimmu.desired.types import HostSpec
from metalimmu.errors import ImageError, ImageRevoked, UsageError
from metalimmu.lifecycle import Proof, State
from metalimmu.observed.switch import SwitchFacts
from metalimmu.observed.types import SystemIdentity, WriteRequest
from metalimmu.plan import pair
from metalimmu.plan.identity import same_serial
from metalimmu.plan.pair import Around
from metalimmu.plan.reimage import Memory, hook_limits, hooks_left_out
from metalimmu.plan.types import Finding, ImageFacts, Plan, PlanStep, Word

TITLES = {
    "look": "look at switch, image and config",
    "pair": "its peer carries on",
    "drain": "hooks before the reimage",
    "shift": "lead traffic away",
    "assign": "assign the image to this switch",
    "onie": "ask for ONIE's installer, read back",
    "slot": "install into the other slot",
    "next": "boot the new slot once",
    "restart": "restart the switch",
    "start": "start it, or wait until it asks",
    "fetched": "ONIE fetches the installer",
    "back": "new NOS answers",
    "ztp": "ZTP brings the configuration",
    "settled": "all is as it must be",
    "unshift": "lead traffic back",
    "soak": "it stays well",
    "keep": "make the new slot the default",
    "record": "prove and record",
    "health": "health checks of the new system",
    "undrain": "hooks after the reimage",
}
_ONIE = ("look", "pair", "drain", "shift", "assign", "onie", "restart", "fetched", "back", "ztp", "settled", "unshift", "soak", "record", "health", "undrain")  # fmt: skip
_BARE = ("look", "pair", "drain", "assign", "start", "fetched", "back", "ztp", "settled", "unshift", "soak", "record", "health", "undrain")  # fmt: skip
_SLOT = ("look", "pair", "drain", "shift", "assign", "slot", "next", "restart", "back", "settled", "unshift", "soak", "health", "keep", "record", "undrain")  # fmt: skip
_ESTIMATE = {
    "look": 5.0,
    "pair": 5.0,
    "drain": 60.0,
    "shift": 10.0,
    "assign": 1.0,
    "onie": 3.0,
    "slot": 180.0,
    "next": 3.0,
    "restart": 20.0,
    "start": 60.0,
    "fetched": 180.0,
    "back": 420.0,
    "ztp": 120.0,
    "settled": 60.0,
    "unshift": 5.0,
    "keep": 3.0,
    "record": 1.0,
    "health": 30.0,
    "undrain": 10.0,
}
_BOOTS = {"restart": 1, "start": 1, "fetched": 1}  # into ONIE, and out of it


class SeenSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen just now."""

    around: Around
    unreachable: str = ""  # why its own NOS does not answer
    commands: dict[str, tuple[str, ...]] = {}  # acts by step, as the NOS that runs then is asked for them
    maybe: dict[str, tuple[str, ...]] = {}  # those that are sent only where they are needed
    power: tuple[WriteRequest, ...] = ()  # what its BMC is asked, where it does not ask for its installer by itself

    @property
    def facts(self) -> SwitchFacts | None:
        return self.around.facts


def check_nos(spec: HostSpec, image: ImageFacts) -> None:
    """Raises ImageError when this image can never be right for this switch."""
    switch = spec.switch
    if switch is None:
        raise UsageError(f"{spec.name} has no `switch:` in its document")
    if image.revoked:
        raise ImageRevoked(f"{image.ref} is revoked: {image.revoked}")
    if image.kind != "nos" or image.nos is None:
        raise ImageError(
            f"{image.ref} is of kind {image.kind}, and {spec.name} is a switch",
            hint="`metalimmu image add FILE NAME@VERSION --kind nos --nos sonic --platform ...`",
        )
    if not any(fnmatchcase(switch.platform, p) for p in image.nos.platforms):
        raise ImageError(
            f"{image.ref} is for {', '.join(image.nos.platforms)}, and {spec.name} is {switch.platform}",
            hint="an installer on the wrong platform asks on the console and waits for ever: choose its own image",
        )


def misfits(spec: HostSpec, image: ImageFacts, facts: SwitchFacts) -> list[str]:
    """Why the switch that answers is not the one of the document."""
    switch = spec.switch
    if switch is None or image.nos is None:
        return ["it is no switch"]
    said = []
    if spec.serial and not same_serial(facts.serial, spec.serial):
        said.append(f"its serial is {facts.serial or 'not said'}, not {spec.serial}")
    if facts.platform != switch.platform:
        said.append(f"its platform is {facts.platform or 'not said'}, not {switch.platform}")
    for what, seen, wanted in (("base", facts.base_mac, switch.base_mac), ("management", facts.mgmt_mac, switch.mgmt_mac)):  # fmt: skip
        if seen != wanted:
            said.append(f"its {what} MAC is {seen or 'not said'}, not {wanted}")
    return said


def memory_short(image: ImageFacts, facts: SwitchFacts) -> str:
    """Why its memory is not enough: the installer lies in it, unpacked too. Empty: it is."""
    need = image.nos.min_ram if image.nos else 0
    if facts.memory >= need:
        return ""
    if not facts.memory:
        return f"it does not say how much memory it has ({facts.unknown.get('memory', 'no answer')}), {image.ref} needs {need >> 20} MiB"
    return f"it has {facts.memory >> 20} MiB of memory, {image.ref} needs {need >> 20}"


def choose(spec: HostSpec, image: ImageFacts, facts: SwitchFacts | None) -> tuple[str, str]:
    """(method, why). Raises UsageError where the role's own word cannot be done."""
    wanted = spec.boot if spec.boot in METHODS else "auto"
    nos = image.nos
    if facts is None:
        against = "its NOS does not answer"
    elif nos is None or facts.nos != nos.nos:
        against = f"it runs {facts.nos}, {image.ref} is {nos.nos if nos else 'no NOS'}"
    elif facts.slots is None:
        against = f"its NOS has no second slot ({facts.unknown.get('slots', 'no such command')})"
    elif not facts.space:
        against = f"it does not say how much space is free ({facts.unknown.get('space', 'none')})"
    elif facts.space < 2 * image.size:
        against = f"it has {facts.space >> 20} MiB free, two images need {2 * image.size >> 20}"
    else:
        against = ""
    if wanted == "two-slot" and against:
        raise UsageError(
            f"{spec.name}: boot: two-slot cannot be done: {against}",
            hint="set boot: onie or auto in the role, or --method",
        )
    if wanted == "onie":
        return "onie", "it is asked for"
    if against:
        return "onie", against
    return "two-slot", f"{facts.nos if facts else ''} has a second slot: nothing is wiped, and a reboot leads back"


def plan_switch(
    spec: HostSpec,
    image: ImageFacts,
    memory: Memory,
    seen: SeenSwitch,
    *,
    verb: str,
    calls: Mapping[str, tuple[str, ...]],
    force: bool,
    now: float,
) -> Plan:
    """Steps are empty when the switch is proven at this image already."""
    facts = seen.facts
    method, why_method = choose(spec, image, facts)
    already = memory.digest == image.digest and memory.proof is Proof.proven and memory.state is State.active
    nothing = already and not memory.quarantined and not force
    if nothing:
        why = f"{spec.name} is already proven at {image.ref}; --force reimages it all the same"
    else:
        known = memory.image or (f"{facts.nos} {facts.version}" if facts else "nothing that is known")
        why = f"{spec.name} carries {known}, {image.ref} is wanted"
        if memory.quarantined:
            why = f"{spec.name} is in quarantine ({memory.quarantined}); a proven reimage ends that"
    return Plan(
        verb=verb,
        host=spec.name,
        spec=spec,
        image=image,
        previous=memory.image,
        previous_digest=memory.digest,
        identity=SystemIdentity(
            system_id="",
            uri="",
            model=facts.platform if facts else "",
            serial=(facts.serial if facts else "") or spec.serial or "",
        ),
        method=method,
        why=f"{why}; {method}: {why_method}" if not nothing else why,
        findings=_findings(spec, image, memory, seen),
        steps=() if nothing else _steps(spec, method, memory, seen, calls),
        transfer=0 if nothing else image.size,
        warnings=tuple(_warnings(spec, image, seen, method, memory)),
        created=now,
    )


def _findings(spec: HostSpec, image: ImageFacts, memory: Memory, seen: SeenSwitch) -> tuple[Finding, ...]:
    same = memory.digest == image.digest
    first = Finding(
        setting="image", word=Word.match if same else Word.differs, expected=image.ref, actual=memory.image or "unknown"
    )
    found = [first]
    if seen.facts is None:
        reason = seen.unreachable or "no answer"
        found.append(Finding(setting="nos", word=Word.unknown, expected="an answer by SSH", reason=reason))
    else:
        facts = seen.facts
        found += [Finding(setting="identity", word=Word.differs, actual=m) for m in misfits(spec, image, facts)]
        if short := memory_short(image, facts):
            found.append(Finding(setting="memory", word=Word.differs if facts.memory else Word.unknown, actual=short))
        if why := facts.unknown.get("config"):
            found.append(Finding(setting="config", word=Word.unknown, expected="one that can be kept", reason=why))
        found.append(Finding(setting="nos", word=Word.match, expected="", actual=f"{facts.nos} {facts.version}"))
    return (*found, *pair.findings(seen.around))


def _warnings(spec: HostSpec, image: ImageFacts, seen: SeenSwitch, method: str, memory: Memory) -> list[str]:
    said = pair.warnings(seen.around)
    if spec.held is not None:
        said.append(f"held at {spec.held.image} since {spec.held.since}: {spec.held.reason}")
    if seen.facts is None:
        how = "start it into ONIE's install mode by hand" if no_bmc(spec.bmc) else "its BMC starts it"
        said.append(f"its NOS does not answer: {how}, unless it asks by itself")
        if image.nos:
            said.append(f"nobody says how much memory it has: {image.ref} needs {image.nos.min_ram >> 20} MiB")
    if method == "onie":
        said.append("ONIE checks nothing of what it fetches: keep its network apart from others'")
        if not any(n in spec.templates for n in ("config_db.json", "ztp.json")):
            said.append("the role has no config_db.json: the new NOS comes up with its own defaults")
        if spec.switch and spec.switch.host_keys:
            said.append("host keys are pinned in the document: the new NOS must have them too, or it is not believed")
    if memory.digest is None and seen.facts is not None:
        said.append(f"what it runs was not put there by us: {seen.facts.nos} {seen.facts.version}")
    if image.nos and seen.facts and image.nos.nos != seen.facts.nos:
        said.append(f"the NOS changes from {seen.facts.nos} to {image.nos.nos}: its login may change too")
    return said


def _steps(
    spec: HostSpec,
    method: str,
    memory: Memory,
    seen: SeenSwitch,
    calls: Mapping[str, tuple[str, ...]],
) -> tuple[PlanStep, ...]:
    lim = spec.limits
    names = _SLOT if method == "two-slot" else _BARE if seen.facts is None else _ONIE
    limit = {
        "slot": lim["check_in"],
        "restart": lim["power"],
        "start": lim["power"] + 120.0,
        "fetched": lim["check_in"],
        "back": lim["phone_home"],
        "ztp": lim["phone_home"],
        "settled": lim["phone_home"],
        "soak": (spec.switch.soak if spec.switch else 0.0) + lim["bmc"],
        **hook_limits(spec),
    }
    left_out = {
        **hooks_left_out(spec),
        "ztp": not any(n in spec.templates for n in ("config_db.json", "ztp.json")),
        "start": no_bmc(spec.bmc),
    }
    estimate = {**_ESTIMATE, "soak": spec.switch.soak if spec.switch else 0.0, **memory.seconds}
    return tuple(
        PlanStep(
            name=n,
            title=TITLES[n],
            limit=limit.get(n, lim["bmc"]),
            seconds=round(estimate.get(n, 5.0), 1),
            boots=_BOOTS.get(n, 0),
            requests=_asked(spec.name, seen.commands.get(n, ())),
            if_needed=seen.power if n == "start" else _asked(spec.name, seen.maybe.get(n, ())),
            calls=tuple(calls.get(n, ())),
        )
        for n in names
        if not left_out.get(n)
    )


def _asked(host: str, commands: Sequence[str]) -> tuple[WriteRequest, ...]:
    return tuple(WriteRequest(method="SSH", path=host, body={"command": c}) for c in commands)
