"""The first half of a reimage: from the plan to a ramdisk that has checked in."""

from __future__ import annotations

from metalimmu.errors import BmcError, IdentityMismatch, ImageCorrupt, StepFailed, by_code
from metalimmu.lifecycle import Proof, State, move
from metalimmu.observed.types import PowerAction, PowerState
from metalimmu.plan import kinds
from metalimmu.plan.identity import same_serial, same_uuid
from metalimmu.workflows import silence, ways
from metalimmu.workflows.context import Context
from metalimmu.workflows.step import Evidence, Step

ASKING = "asking for a reset"
LOST = "its new system reports; what its agent said was heard by the controller whose memory is lost"
_UNSURE = 30.0  # seconds to wait for a sign of a reset that may or may not have been taken


class Preflight(Step):
    """The BMC is the one we mean, the image is whole. Nothing is changed yet."""

    name = "preflight"

    def observe(self, c: Context) -> Evidence | None:
        c.guard("begin")
        identity = c.bmc.identity()
        planned = c.plan.identity
        expected = c.spec.serial or planned.serial
        if expected and identity.serial and not same_serial(expected, identity.serial):
            raise IdentityMismatch(f"the BMC at {c.spec.bmc} is of machine {identity.serial}, {c.host} is {expected}")
        if planned.uuid and identity.uuid and not same_uuid(planned.uuid, identity.uuid):
            raise IdentityMismatch(
                f"the BMC at {c.spec.bmc} is of machine {identity.uuid}, the plan is for {planned.uuid}"
            )
        missing = c.tools.images.missing(c.plan.image.digest)
        if missing:
            raise ImageCorrupt(f"{c.plan.image.ref}: {len(missing)} chunks are missing, first {missing[0]}")
        c.tools.calls.ready(c.spec)
        c.tools.deployments.rehearse(c.run, c.plan)
        power = c.bmc.power_state()
        return {
            "summary": f"{identity.manufacturer} {identity.model} {identity.serial}".strip(),
            "serial": identity.serial,
            "uuid": identity.uuid,
            "model": identity.model,
            "power": power,
        }


class Prepare(Step):
    """The deployment exists: token, media address, what the machine must become."""

    name = "media"

    def observe(self, c: Context) -> Evidence | None:
        d = c.deployment()
        if d is None:
            return None
        return {"summary": f"deployment {d.id}", "deployment": d.id}

    def act(self, c: Context) -> None:
        record = c.tools.store.host(c.host)
        c.tools.store.update_host(c.host, state=move(record.state, State.deploying))
        for old in c.tools.store.deployments(host=c.host, live=True):
            if old.kind == "live":  # its media were served for as long as it ran
                c.tools.store.update_deployment(old.id, ended=c.tools.clock.now())
        c.tools.deployments.create(c.run, c.plan, c.fence)  # last: it is what `observe` looks for
        c.event(
            "deploying", f"deployment of {c.plan.image.ref} begins", image=c.plan.image.ref, digest=c.plan.image.digest
        )


class Insert(Step):
    name = "insert"
    again = 0.4

    def observe(self, c: Context) -> Evidence | None:
        if _booted(c):
            return {"summary": "the machine has booted the media already"}
        if not ways.offered(c):
            return None
        slot = c.slot()
        return {"summary": f"in {slot.id}", "slot": slot.uri}

    def act(self, c: Context) -> None:
        if not c.sent():  # hooks may have taken their time; from here on a machine is brought to its end
            c.guard("begin")
        ways.offer(c)

    def undo(self, c: Context) -> None:
        ways.take_back(c)

    def hint(self) -> str:
        return "the BMC took the request and inserted nothing: look at its log; is `urls.bmc` an address that it can reach?"


class Offer(Insert):
    """The same over the network: from now on a boot loader that says it is this machine gets our boot, until `withdraw`."""

    name = "offer"

    def observe(self, c: Context) -> Evidence | None:
        if _booted(c):
            return {"summary": "the machine has booted from the network already"}
        if not ways.offered(c):
            return None
        who = c.deployed().assignment
        named = ", ".join(x for x in (who.serial, who.uuid, *who.nics) if x)
        return {"summary": f"to {named}", "nics": list(who.nics), "serial": who.serial, "uuid": who.uuid}


class Override(Step):
    name = "override"
    again = 0.4

    def observe(self, c: Context) -> Evidence | None:
        if _booted(c):
            return {"summary": "the machine has booted the media already"}
        if c.deployed().intent and not c.notes.get("override"):
            return {"summary": "set; the machine was started"}
        now = c.bmc.boot_override()
        if not ways.override_is_set(c, now):
            return None
        return {"summary": f"{now.target} {now.enabled} {now.mode or ''}".strip()}

    def act(self, c: Context) -> None:
        c.notes["override"] = True
        ways.set_override(c)

    def undo(self, c: Context) -> None:
        ways.clear_override(c)

    def explain(self, c: Context) -> str:
        now = c.bmc.boot_override()
        return f"the BMC says {now.target} {now.enabled} {now.mode or ''}".strip()

    def hint(self) -> str:
        return "set the override in the BMC's own page and see whether it stays; some need a BMC reset"


class HttpBoot(Override):
    name = "http-boot"


class Pxe(Override):
    name = "pxe"


class PowerUp(Step):
    """One reset. The intent is recorded before the BMC is asked and again when it has answered: between the two, after a
    crash or a broken connection, nobody knows whether the machine was reset, and what the machine does tells.
    """

    name = "power"
    pause = 1.0

    def observe(self, c: Context) -> Evidence | None:
        d = c.deployed()
        if _booted(c):
            return {"summary": "the machine has booted already"}
        if not d.intent:
            return None  # bytes alone say nothing: BMCs read the media when it is inserted
        state = c.bmc.power_state()
        if state is not PowerState.on:
            return None
        if d.intent == ASKING and c.bmc.boot_override().effective == ways.target(c):
            return None  # a one-time override that is still there was not used yet
        return {"summary": d.intent, "power": state}

    def act(self, c: Context) -> None:
        d = c.deployed()
        if not d.intent:
            c.guard("power")
        if d.intent != ASKING or c.tools.clock.now() - (d.intent_at or 0.0) > _UNSURE * c.tools.pace:
            restart(c)

    def tend(self, c: Context) -> None:
        """Power that goes off again, or never came: ask once more, for an off machine only."""
        if c.deployed().intent == ASKING:
            self.act(c)
        elif c.bmc.power_state() is PowerState.off and not c.notes.get("asked again"):
            c.notes["asked again"] = True
            c.bmc.set_power(PowerAction.on)

    def explain(self, c: Context) -> str:
        return f"power is {c.bmc.power_state()}"

    def hint(self) -> str:
        return "the BMC accepted the request and power did not change: look at its log, at the power supplies, at a power cap"


class CheckIn(Step):
    """Proof that the media was read: the agent's word. Bytes sent are evidence only."""

    name = "check-in"
    wakes = True
    _hint = (
        "no bytes read: check `urls.bmc` from the BMC's network and the boot order; bytes read: look at the machine's console, "
        "its network and `urls.machines`"
    )

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        if d.check_in is None:
            return {"summary": LOST} if c.outlived(d) else None
        machine = d.check_in.identity
        return {
            "summary": f"{machine.serial} checked in",
            "bytes": d.media_bytes,
            "serial": machine.serial,
            "uuid": machine.uuid,
            "disks": [f"{disk.path} {disk.model} {disk.serial} {disk.size}" for disk in d.check_in.disks],
        }

    def tend(self, c: Context) -> None:
        tend_boot(c, share=0.35)

    def explain(self, c: Context) -> str:
        d = c.deployed()
        if ways.by_network(c):
            asked = f"asked {d.asked} times what to boot" if d.asked else "never asked what to boot"
            known, hint = silence.reason(c)
            self._hint = hint or _NETWORK
            said = f"the machine {asked}, fetched {d.media_bytes} bytes, and nothing checked in"
            return f"{said}; {known}" if known else said
        if d.media_bytes == 0:
            return "the BMC accepted the media and not one byte of it was read"
        return f"{d.media_bytes} bytes of the media were read, and nothing checked in"

    def hint(self) -> str:
        return self._hint


_NETWORK = (
    "it never asked: look at its console and boot order, and at the DHCP server of its network; it asked: look at its console, "
    "its network, `urls.boot` and `urls.machines`"
)


def _booted(c: Context) -> bool:
    """From the media; or, while our memory was lost, even from its disk."""
    d = c.deployment()
    return d is not None and (d.check_in is not None or bool(d.fetched) or c.outlived(d))


def restart(c: Context) -> None:
    """On, or a reset of what runs: it is replaced anyway."""
    state = c.bmc.power_state()
    action = PowerAction.on if state is PowerState.off else PowerAction.force_restart
    # From here on nobody may believe what was proven before.
    c.tools.store.update_host(c.host, proof=Proof.unproven, health=None)
    c.tools.store.update_deployment(c.run, intent=ASKING, intent_at=c.tools.clock.now())
    c.bmc.set_power(action)
    c.tools.store.update_deployment(c.run, intent=f"{action} asked")


def tend_boot(c: Context, *, share: float) -> None:
    """Media, override and power can be lost while the machine is in POST: look, and start it anew at most twice."""
    limit = kinds.first_sign(c.plan).limit
    quiet = c.quiet()
    off = c.bmc.power_state() is PowerState.off
    lost = ways.is_out(c)
    if not off and not lost and quiet < share * limit:
        return
    if off and quiet < 15 * c.tools.pace:
        return  # it may just be going through its reset
    tries = int(c.notes.get("restarts", 0))
    if tries >= 2:
        return
    c.notes["restarts"] = tries + 1
    why = "media lost" if lost else "power off" if off else "silent"
    c.event("boot-again", f"{c.host} did not come up ({why}): {_again(c)}, overriding and starting again")
    if lost:
        ways.offer(c)
    ways.set_override(c)
    restart(c)


def _again(c: Context) -> str:
    return "offering" if ways.by_network(c) else "inserting"


def raise_failure(c: Context) -> None:
    """Turn the machine's word of failure, or another machine's check-in, into the error that it is."""
    d = c.deployed()
    said = d.failure or (d.refusal if d.check_in is None else None)
    if said is None:
        return
    kind = by_code(said.code)
    if issubclass(kind, BmcError):  # an agent has no BMC; a confused one must not make us wait
        kind = StepFailed
    c.notes.update(
        {
            "failure": dict(said.evidence),
            "disks": [f"{k.path} {k.model} {k.serial} {k.size} {k.unusable}".strip() for k in said.disks],
        }
    )
    raise kind(said.message or "the agent failed", hint=said.hint)
