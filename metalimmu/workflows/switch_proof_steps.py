"""The second half: a new NOS that answers, its configuration, and that all around it is as it was."""

from __future__ import annotations

from typing import Any

from metalimmu.errors import BmcLoginRefused, StepFailed, Unhealthy
from metalimmu.lifecycle import Proof, State, move
from metalimmu.observed.switch import SwitchFacts
from metalimmu.observed.types import PowerState
from metalimmu.plan import settled
from metalimmu.store.switch_records import SwitchRecord
from metalimmu.workflows.context import Context
from metalimmu.workflows.health_steps import health_comes
from metalimmu.workflows.step import Evidence, Step
from metalimmu.workflows.switch_steps import (
    NOT_THE_NOS,
    Assign,
    Fetched,
    IntoOnie,
    Look,
    NextBoot,
    PairSafe,
    Restart,
    Shift,
    Slot,
    Start,
    facts_before,
    record,
)

_AFTER_REFUSAL = 30.0  # seconds until a refused login is tried again
_MISSED = 3  # looks one after the other without an answer, from which on a switch is not well


class _New(Step):
    """A look at the new NOS; while it is on its way nobody answers."""

    wakes = True

    def __init__(self) -> None:
        self._last = ""
        self._not_before = 0.0

    def seen(self, c: Context, *, briefly: bool = False) -> SwitchFacts | None:
        if c.tools.clock.monotonic() < self._not_before:
            return None
        try:
            return c.nos.probe() if briefly else c.nos.facts()
        except NOT_THE_NOS as exc:
            if isinstance(exc, BmcLoginRefused):  # asked each second it would lock the account
                self._not_before = (
                    c.tools.clock.monotonic() + _AFTER_REFUSAL * c.tools.pace
                )  # a NOS takes its logins from its config: it may still come
            c.drop_nos()
            self._last = exc.message
            return None

    def explain(self, c: Context) -> str:  # noqa: ARG002
        return self._last


class Back(_New):
    """The new NOS, in a new boot. A switch that asks again instead has an installer that failed."""

    name = "back"

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        failures(c, r)
        facts = self.seen(c, briefly=True)
        if facts is None:
            return None
        old = r.before.get("boot_id")
        if old and facts.boot_id == old:
            self._last = "the old NOS still runs"
            return None
        if r.slot and facts.slots is not None and facts.slots.current != r.slot:
            raise StepFailed(
                f"{c.host} came back in {facts.slots.current} and not in {r.slot}",
                hint="the new slot does not boot: its console says why; the old one runs and is the default",
            )
        nos = c.plan.image.nos
        if nos is not None and (facts.nos, facts.version) != (nos.nos, nos.version):
            raise StepFailed(
                f"{c.host} came back with {facts.nos} {facts.version}, not with {nos.nos} {nos.version}",
                hint="the installer has not replaced the NOS: its console says why",
            )
        return {"summary": f"{facts.nos} {facts.version}", "facts": facts.brief()}

    def hint(self) -> str:
        return "look at its console: did the installer end well, does the NOS get an address, do its login and switch.ssh fit?"


class Ztp(_New):
    """ZTP fetches what was rendered for this switch, and says at its end that it has."""

    name = "ztp"

    def observe(self, c: Context) -> Evidence | None:
        r = record(c)
        failures(c, r)
        if r.reported_at is None:
            return None
        return {"summary": f"done, config {r.config_digest[:12]}", "reported": r.reported}

    def explain(self, c: Context) -> str:
        r = record(c)
        if r.config_at is not None:
            return "its configuration was fetched, and the last section of ZTP never ran"
        return (
            "ztp.json was fetched, the configuration was not"
            if r.ztp_at is not None
            else "ztp.json was never asked for"
        )

    def hint(self) -> str:
        return "`show ztp status` on the switch says how far it is; DHCP must give it option 67"


class Settled(_New):
    name = "settled"

    def __init__(self) -> None:
        super().__init__()
        self._facts: SwitchFacts | None = None

    def observe(self, c: Context) -> Evidence | None:
        facts = self.seen(c)
        if facts is None:
            return None
        self._facts = facts
        wrong = not_yet(c, facts)
        self._last = "; ".join(wrong)
        if wrong:
            return None
        return {"summary": f"{facts.nos} {facts.version}, {len(facts.neighbours)} neighbours", "facts": facts.brief()}

    def tend(self, c: Context) -> None:
        """A stray boot into ONIE must end in its rescue mode, and not in another installation."""
        if self._facts is not None and self._facts.onie_mode == "install":
            c.nos.onie_none()

    def hint(self) -> str:
        return "the NOS runs, and what is named is missing: look at cables, neighbours and the rendered config_db.json"


class Unshift(Step):
    name = "unshift"

    def observe(self, c: Context) -> Evidence | None:
        facts = c.nos.facts("traffic")
        if facts.traffic in ("", "normal"):
            return {"summary": "carries traffic" if facts.traffic else "no command for it"}
        return None

    def act(self, c: Context) -> None:
        c.nos.undrain()


class Soak(_New):
    """Well for a while, with its traffic. Two looks at least."""

    name = "soak"

    def __init__(self) -> None:
        super().__init__()
        self._since: float | None = None
        self._missed = 0

    def observe(self, c: Context) -> Evidence | None:
        now = c.tools.clock.monotonic()
        facts = self.seen(c)
        self._missed = 0 if facts is not None else self._missed + 1
        if facts is None and self._missed < _MISSED:
            return None
        wrong = [self._last] if facts is None else not_yet(c, facts)
        if wrong:
            raise Unhealthy(f"{c.host} did not stay well: {'; '.join(wrong)}", hint="it is in quarantine: look at it")
        if self._since is None:
            self._since = now
            return None
        need = c.spec.switch.soak if c.spec.switch else 0.0
        return {"summary": f"well for {now - self._since:.0f} s"} if now - self._since >= need else None


class Keep(Step):
    """Only now: until here a power cut leads back to the old image."""

    name = "keep"

    def observe(self, c: Context) -> Evidence | None:
        slots = c.nos.facts("slots").slots
        r = record(c)
        if slots is None or slots.next != r.slot or not c.notes.get("kept"):
            return None  # `next` may be the one boot that was asked for: the default is set in any case
        return {"summary": f"{r.slot} is the default"}

    def act(self, c: Context) -> None:
        c.nos.default(record(c).slot)
        c.notes["kept"] = True


class Record(Step):
    """All evidence once more, in one place; only then active and proven. Where health is still to be checked, active comes
    after: of a new slot it was checked before.
    """

    name = "record"

    def observe(self, c: Context) -> Evidence | None:
        r, store, now = record(c), c.tools.store, c.tools.clock.now()
        facts = c.nos.facts()
        if wrong := not_yet(c, facts):
            raise Unhealthy(f"{c.host}: {'; '.join(wrong)}")
        evidence = _evidence(c, r, facts)
        host = store.host(c.host)
        keep = host.digest in (None, c.plan.image.digest)
        store.update_host(
            c.host,
            state=host.state if health_comes(c) else move(host.state, State.active),
            proof=Proof.proven,
            proof_evidence=evidence,
            proven_at=now,
            image=c.plan.image.ref,
            digest=c.plan.image.digest,
            previous_image=host.previous_image if keep else host.image,
            previous_digest=host.previous_digest if keep else host.digest,
            quarantine=None,
            error=None,
            power=PowerState.on,
            power_at=now,
            settles=None,
        )
        if facts.slots is not None:
            c.switches.remember_slot(c.host, c.plan.image.digest, facts.slots.current)
        store.switches.update(c.run, ended=now, armed=False)
        c.event("proven", f"{c.host} is proven at {c.plan.image.ref}", evidence=evidence)
        return {"summary": f"{c.plan.image.ref} proven", "proof": evidence}


STEPS: tuple[type[Step], ...] = (
    Look, PairSafe, Shift, Assign, IntoOnie, Slot, NextBoot, Restart, Start, Fetched, Back, Ztp, Settled, Unshift, Soak, Keep, Record,
)  # fmt: skip
"""Of runs of switches, beside those for hooks and health that all hosts have."""


def failures(c: Context, r: SwitchRecord) -> None:
    """Asked again after all was sent: offer it once more, as often as the role allows. Raises StepFailed."""
    if r.method != "onie" or r.failures < r.delivered or r.delivered == 0:
        return
    if r.delivered >= r.installs:
        raise StepFailed(
            f"the installer of {c.plan.image.ref} failed {r.failures} times: the switch asks for it again and gets nothing more",
            hint="its console says why (too little memory, the wrong platform); it waits in ONIE, `metalimmu reimage` with another image goes on",
        )
    if not r.armed:
        c.event("installer", f"the installer failed {r.failures} times; {c.host} may fetch it once more")
        c.tools.store.switches.update(c.run, armed=True)


def not_yet(c: Context, facts: SwitchFacts) -> list[str]:
    r = record(c)
    before = facts_before(r) if r.before else None
    onie = r.method == "onie"
    config = c.switches.config(c.run) if onie else None
    # A slot that was there before has a config of its own; one that was installed now has taken ours over.
    kept = c.switches.kept(c.host, c.run) if not onie and r.delivered else ""
    return settled.wrong(facts, c.plan.image, before, config=config, kept=kept, slot=r.slot)


def _evidence(c: Context, r: SwitchRecord, facts: SwitchFacts) -> dict[str, Any]:
    return {
        "run": c.run,
        "at": c.tools.clock.now(),
        "method": r.method,
        "digest": c.plan.image.digest,
        "serial": facts.serial,
        "platform": facts.platform,
        "nos": f"{facts.nos} {facts.version}",
        "build_id": facts.build_id,
        "boot_id": facts.boot_id,
        "nos_mode": facts.nos_mode,
        "slot": r.slot,
        "bytes": r.bytes,
        "deliveries": r.delivered,
        "config_served": r.config_digest,
        "config_hash": settled.config_hash(facts.config),
        "config_hash_before": settled.config_hash(c.switches.kept(c.host, c.run)),
        "neighbours": [str(n) for n in facts.neighbours],
        "neighbours_before": bool(r.before),
        "pair": facts.brief().get("pair"),
        "reported": {k: v for k, v in r.reported.items() if k != "host_keys"},
    }
