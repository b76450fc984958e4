"""A reimage of a switch, up to the moment when its new NOS is on its way."""

from __future__ import annotations

import msgspec

from metalimmu import structs
from metalimmu.errors import (
    BmcLoginRefused,
    BmcUnreachable,
    GuardRefused,
    HostKeyChanged,
    IdentityMismatch,
    ImageCorrupt,
    ImageError,
    StepFailed,
)
from metalimmu.lifecycle import Proof, State, move
from metalimmu.observed.switch import SwitchFacts
from metalimmu.observed.types import PowerAction, PowerState
from metalimmu.plan import pair
from metalimmu.plan.pair import Around
from metalimmu.plan.switch import memory_short, misfits
from metalimmu.store.switch_records import SwitchRecord
from metalimmu.workflows.context import Context
from metalimmu.workflows.step import Evidence, Step

ASKING = "asking for a reboot"
_UNSURE = 30.0  # seconds to wait for a sign of a reboot that may or may not have been taken
_PATIENCE = 60.0  # seconds that a switch which is in ONIE already may take to ask
NOT_THE_NOS = (BmcUnreachable, BmcLoginRefused, HostKeyChanged)  # nobody, or ONIE with a host key of its own
_PROBE = 5.0  # seconds between looks at a NOS that may come back by itself


class Look(Step):
    """It is the switch we mean, it can take the image, its config is safe. Nothing is changed yet."""

    name = "look"

    def observe(self, c: Context) -> Evidence | None:
        c.guard("begin")
        missing = c.tools.images.missing(c.plan.image.digest)
        if missing:
            raise ImageCorrupt(f"{c.plan.image.ref}: {len(missing)} chunks are missing, first {missing[0]}")
        c.tools.calls.ready(c.spec)
        c.switches.rehearse(c.run, c.plan)
        if bare(c):
            return {"summary": "its NOS does not answer; it must ask by itself"}
        facts = c.nos.facts()
        if said := misfits(c.spec, c.plan.image, facts):
            raise IdentityMismatch(
                f"{c.host}: {'; '.join(said)}", hint="correct the document, or the address: this is another switch"
            )
        if short := memory_short(c.plan.image, facts):
            raise ImageError(
                f"{c.host}: {short}",
                hint="an installer that runs out of memory fails half-way; `image add --min-ram` says its need",
            )
        if why := facts.unknown.get("config"):
            raise StepFailed(
                f"the configuration of {c.host} cannot be read, so it cannot be kept: {why}",
                hint="give its login the right to read it (sudo without a password)",
            )
        kept = c.switches.backup(c.host, c.run, facts.config) if facts.config.strip() else "no configuration"
        return {"summary": f"{facts.platform} {facts.serial}, {facts.nos} {facts.version}", "backup": kept, "facts": facts.brief()}  # fmt: skip


class PairSafe(Step):
    """Asked anew, in the run and not only in the plan; and once more right before the restart, hours later perhaps."""

    name = "pair"

    def observe(self, c: Context) -> Evidence | None:
        around = may_go(c)
        alone = f"; on it alone: {', '.join(around.single_homed)}" if around.single_homed else ""
        return {"summary": (f"{around.peer} carries on" if around.peer else "no pair") + alone}


class Shift(Step):
    name = "shift"

    def observe(self, c: Context) -> Evidence | None:
        if c.switch() is not None and went(c):
            return {"summary": "the switch was restarted already"}
        facts = c.nos.facts("traffic")
        if not facts.traffic:
            return {"summary": f"{facts.nos} has no command for it; hooks of the pool can do it"}
        return {"summary": "in maintenance"} if facts.traffic != "normal" else None

    def act(self, c: Context) -> None:
        c.guard("power")
        c.nos.drain()

    def undo(self, c: Context) -> None:
        """Only while the old NOS still runs; a new one begins with its own mind."""
        if not went(c) and c.nos.facts("traffic").traffic not in ("", "normal"):
            c.nos.undrain()


class Assign(Step):
    """From now on this one switch, and no other, gets the image; once."""

    name = "assign"

    def observe(self, c: Context) -> Evidence | None:
        r = c.switch()
        return None if r is None else {"summary": f"{c.plan.image.ref} for {r.serial}, {r.base_mac}"}

    def act(self, c: Context) -> None:
        before = {} if bare(c) else msgspec.to_builtins(msgspec.structs.replace(c.nos.facts(), config=""))
        record = c.tools.store.host(c.host)
        c.tools.store.update_host(c.host, state=move(record.state, State.deploying))
        c.switches.create(c.run, c.plan, c.fence, before)  # last: it is what `observe` looks for
        c.event("deploying", f"deployment of {c.plan.image.ref} begins", image=c.plan.image.ref, digest=c.plan.image.digest)  # fmt: skip


class IntoOnie(Step):
    """Set and read back: some come with `rescue` as ONIE's default entry, and would only sit there."""

    name = "onie"

    def observe(self, c: Context) -> Evidence | None:
        if went(c):
            return {"summary": "the switch was restarted already"}
        mode = c.nos.facts("onie_mode").onie_mode
        return {"summary": "ONIE says: install"} if mode == "install" else None

    def act(self, c: Context) -> None:
        c.guard("power")
        said = c.nos.into_onie()
        if said != "install":
            raise StepFailed(f"ONIE was asked for its mode install and says {said}", hint="is its partition writable?")

    def undo(self, c: Context) -> None:
        if c.switch() is not None and not went(c) and c.nos.facts("onie_mode").onie_mode == "install":
            c.nos.onie_none()


class Restart(Step):
    """One reboot. The intent is recorded before it is asked, and again when the NOS has taken it."""

    name = "restart"
    wakes = True

    def __init__(self) -> None:
        self._kept = ""

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        if r.asked or r.delivered:
            return {"summary": "it asks for its installer already"} if r.method == "onie" else self._gone(c, r)
        return self._gone(c, r) if r.intent else None

    def _gone(self, c: Context, r: SwitchRecord) -> Evidence | None:
        if not r.intent:
            return None
        try:
            boot = c.nos.boot_id()
        except NOT_THE_NOS:
            c.drop_nos()
            return {"summary": "it went down"}
        return {"summary": "it has restarted"} if boot != r.before.get("boot_id") else None

    def act(self, c: Context) -> None:
        self._ask(c)

    def tend(self, c: Context) -> None:
        self._ask(c)

    def _ask(self, c: Context) -> None:
        r = record(c)
        if (r.intent and r.intent != ASKING) or _unsure(c, r):
            return
        if not r.intent:
            c.guard("power")
        self._kept = kept_back(c, r)
        if self._kept:
            return
        _intend(c)
        c.nos.reboot()
        c.tools.store.switches.update(c.run, intent="reboot asked")
        c.drop_nos()

    def explain(self, c: Context) -> str:  # noqa: ARG002
        return self._kept

    def hint(self) -> str:
        return (
            "mend the pair, then try again"
            if self._kept
            else "the NOS took the reboot and still runs: look at its console"
        )


class Start(Step):
    """A switch whose NOS does not answer, and that has a BMC: on, or a reset where it does not ask by itself."""

    name = "start"
    wakes = True

    def __init__(self) -> None:
        self._kept = ""

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        if r.asked or r.delivered:
            return {"summary": "it asks for its installer already"}
        if r.intent and r.intent != ASKING and c.bmc.power_state() is PowerState.on:
            return {"summary": r.intent}
        return None

    def act(self, c: Context) -> None:
        self._power(c)

    def tend(self, c: Context) -> None:
        self._power(c)

    def _power(self, c: Context) -> None:
        r, now = record(c), c.tools.clock.now()
        off = c.bmc.power_state() is PowerState.off
        if r.intent not in ("", ASKING) or (not off and now - r.created < _PATIENCE * c.tools.pace):
            return
        if _unsure(c, r):
            return
        c.guard("power")
        self._kept = kept_back(c, r)
        if self._kept:
            return
        action = PowerAction.on if off else PowerAction.force_restart
        _intend(c)
        c.bmc.set_power(action)
        c.tools.store.switches.update(c.run, intent=f"{action} asked")

    def explain(self, c: Context) -> str:  # noqa: ARG002
        return self._kept


def _unsure(c: Context, r: SwitchRecord) -> bool:
    """Was it asked so lately that it may have been taken, and no sign of it be seen yet?"""
    return r.intent == ASKING and c.tools.clock.now() - (r.intent_at or 0.0) < _UNSURE * c.tools.pace


def _intend(c: Context) -> None:
    """Recorded before it is asked. From here on nobody may believe what was proven before."""
    c.tools.store.update_host(c.host, proof=Proof.unproven, health=None)
    c.tools.store.switches.update(c.run, intent=ASKING, intent_at=c.tools.clock.now())


class Fetched(Step):
    """Proof that ONIE runs: it asked for the image, with the right name, and got all of it."""

    name = "fetched"
    wakes = True

    def __init__(self) -> None:
        self._probed = 0.0

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        if r.delivered == 0:
            return None
        return {"summary": f"{r.bytes / 1e6:.1f} MB to {r.asked_from or 'the switch'}", "bytes": r.bytes}

    def tend(self, c: Context) -> None:
        """The old NOS again means that ONIE was not started, or gave up in rescue."""
        now = c.tools.clock.monotonic()
        r = record(c)
        if bare(c) or r.asked or now - self._probed < _PROBE * c.tools.pace:
            return
        self._probed = now
        try:
            boot = c.nos.probe().boot_id
        except NOT_THE_NOS:
            c.drop_nos()
            return
        if boot and boot != r.before.get("boot_id"):
            raise StepFailed(
                f"{c.host} came back with its old NOS, and never asked for its installer: ONIE was not started in mode install",
                hint="look at its console: is `rescue` the default of its boot menu?",
            )

    def explain(self, c: Context) -> str:
        r = record(c)
        if r.refused:
            return f"a request was refused: {r.refused}"
        if r.asked:
            return f"it asked {r.asked} times and {r.bytes} bytes were sent, and never all of them"
        return "nothing was asked for"

    def hint(self) -> str:
        return (
            "look at its console: is it in ONIE, in install mode, with an address? does DHCP give option 125 or 114, and can it "
            "reach `urls.boot`?"
        )


class Slot(Step):
    """The new image beside the running one, which stays the default."""

    name = "slot"

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        if not r.slot:
            return None
        return {"summary": f"{r.slot} is installed", "bytes": r.bytes}

    def act(self, c: Context) -> None:
        facts = c.nos.facts("slots")
        there = facts.slots.available if facts.slots else ()
        known = c.switches.slot_of(c.host, c.plan.image.digest)
        if known and known in there:
            slot = known  # as it was proven before: nothing to fetch
        else:
            c.tools.store.switches.update(c.run, armed=True)
            nos = c.plan.image.nos
            limit = c.plan.step("slot").limit
            slot = c.nos.install(c.switches.image_url(c.run), nos.sha256 if nos else "", limit=limit)
        c.tools.store.switches.update(c.run, slot=slot, armed=False)


class NextBoot(Step):
    name = "next"

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        if r.intent:
            return {"summary": "the switch was restarted already"}
        slots = c.nos.facts("slots").slots
        return {"summary": f"{r.slot}, once"} if slots is not None and slots.next == r.slot else None

    def act(self, c: Context) -> None:
        c.guard("power")
        c.nos.next_boot(record(c).slot)

    def undo(self, c: Context) -> None:
        r = c.switch()
        current = facts_before(r).slots if r is not None and r.before else None
        if r is not None and not r.intent and current is not None:
            c.nos.default(current.current)


def may_go(c: Context) -> Around:
    """What is around the switch now. Raises GuardRefused where its pair cannot do without it."""
    facts = None if bare(c) else c.nos.facts("pair", "route")
    around = c.switches.around(c.spec, facts, run=c.run)
    found = pair.findings(around)
    c.notes["pair"] = [f"{f.setting} {f.word}: {f.actual or f.reason}" for f in found]
    if wrong := pair.wrong(found):
        raise GuardRefused(
            f"{c.host} must not go now: {pair.text(wrong)}", hint="it was not restarted; mend the pair, then try again"
        )
    return around


def kept_back(c: Context, r: SwitchRecord) -> str:
    """Why the switch must not be taken away now; empty: it may. Raises GuardRefused, but not where the restart may have been
    asked for already: then the switch may be on its way down, which breaks its session, so it is left to go or to stay.
    """
    try:
        may_go(c)
    except GuardRefused as exc:
        if not r.intent:
            raise
        return exc.message
    return ""


def record(c: Context) -> SwitchRecord:
    return c.tools.store.switches.get(c.run)


def went(c: Context) -> bool:
    r = c.switch()
    return r is not None and r.went


def bare(c: Context) -> bool:
    """Was the plan made without its NOS? Then it is in ONIE already, or is started by hand."""
    return all(s.name != "restart" for s in c.plan.steps)


def facts_before(r: SwitchRecord) -> SwitchFacts:
    found: SwitchFacts = structs.convert(r.before, SwitchFacts)
    return found
