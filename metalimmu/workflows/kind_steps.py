"""Steps of images that are booted and not written by our agent: installers, live systems, a vendor's ISO."""

from __future__ import annotations

from metalimmu.desired.answers import family
from metalimmu.errors import StepFailed
from metalimmu.observed.types import BootTarget, PowerState
from metalimmu.store.records import DeploymentRecord
from metalimmu.workflows import silence, ways
from metalimmu.workflows.boot_steps import raise_failure, tend_boot
from metalimmu.workflows.context import Context
from metalimmu.workflows.step import Evidence, Step

_LITTLE = 1 << 20  # bytes: BMCs look at media when they are inserted; what boots reads more
_OFF = 30.0  # seconds without power, after which a machine is not in its reset


class Fetch(Step):
    """Proof that the installer runs: it asks for its answers at an address that only its media know."""

    name = "fetch"
    wakes = True
    _hint = (
        "look at the machine's console: does the installer run, has it a driver for the NIC, does DHCP answer it, and can it "
        "reach `urls.boot` (or `urls.chunks`, `urls.bmc`)?"
    )

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        main = family(c.plan.image.answers).main
        if main not in d.fetched and d.finished is None:
            return None
        return {"summary": f"the installer has asked for {main}", "bytes": d.media_bytes, "fetched": d.fetched}

    def tend(self, c: Context) -> None:
        """A kernel that was read whole runs: it is silent until its installer has a network, and that may take minutes."""
        read = c.deployed().media_bytes >= max(c.plan.image.boot_bytes, 1)
        tend_boot(c, share=0.8 if read else 0.35)

    def explain(self, c: Context) -> str:
        d = c.deployed()
        if ways.by_network(c) and not d.media_bytes:
            known, hint = silence.reason(c)
            self._hint = hint or self._hint
            return "; ".join(filter(None, ("nothing was fetched from the network", known)))
        if d.media_bytes == 0:
            return "the BMC accepted the media and not one byte of it was read"
        return f"{d.media_bytes} bytes of the media were read, and the installer has not asked for its answers"

    def hint(self) -> str:
        return self._hint


class Install(Step):
    """The installer works. It says how far it is, if its answers make it; it must say that it has finished."""

    name = "install"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        if d.finished is None:
            return None
        begun = d.fetched.get("begin") or d.intent_at or d.finished
        return {"summary": f"installed in {d.finished - begun:.0f} s", "fetched": d.fetched, "begun": d.fetches}

    def tend(self, c: Context) -> None:
        """An installer that has failed may leave its machine off."""
        now = c.tools.clock.now()
        if c.bmc.power_state() is not PowerState.off:
            c.notes.pop("off since", None)
        elif now - c.notes.setdefault("off since", now) > _OFF * c.tools.pace:
            raise StepFailed(
                f"{c.host} is off, and its installer has not said that it has finished; it {_last(c.deployed())}",
                hint="look at what it said on its console; answers of your own must run `finish`, see pxe/install",
            )

    def explain(self, c: Context) -> str:
        return f"the installer {_last(c.deployed())}"

    def hint(self) -> str:
        return "look at the machine's console: an installer that asks something waits for ever"


class Read(Step):
    """Nothing of ours runs on the machine: that it boots these media is seen by what it reads of them."""

    name = "read"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        raise_failure(c)
        d = c.deployed()
        if d.media_bytes < (c.plan.image.boot_bytes or _LITTLE) and not d.system_ok:
            return None
        return {"summary": f"{d.media_bytes / 1e6:.1f} MB read", "bytes": d.media_bytes}

    def tend(self, c: Context) -> None:
        tend_boot(c, share=0.35)

    def explain(self, c: Context) -> str:
        return f"{c.deployed().media_bytes} bytes of the media were read"

    def hint(self) -> str:
        return "check `urls.bmc` from the BMC's network, the boot order, and the machine's console"


class Quiet(Step):
    """For an ISO that proves nothing: it is done when its machine is off, or has not read the media for a while."""

    name = "quiet"
    wakes = True

    def observe(self, c: Context) -> Evidence | None:
        if c.quiet() < _OFF * c.tools.pace:
            return None
        if c.bmc.power_state() is PowerState.off:
            return {"summary": "the machine has switched itself off", "bytes": c.deployed().media_bytes}
        stall = c.spec.limits["stall"]
        if c.quiet() < stall:
            return None
        return {"summary": f"nothing was read for {stall:.0f} s", "bytes": c.deployed().media_bytes}

    def explain(self, c: Context) -> str:
        return f"the media were read {c.quiet():.0f} s ago"

    def hint(self) -> str:
        return "look at the machine's console; the role's `proof: {by: ssh}` would tell when a system is up"


class Clear(Step):
    """The machine restarts by itself when it has installed, and must find its disk then."""

    name = "clear"
    again = 0.3

    def observe(self, c: Context) -> Evidence | None:
        return {"summary": "override cleared"} if c.bmc.boot_override().effective == BootTarget.none else None

    def act(self, c: Context) -> None:
        ways.clear_override(c)


def _last(d: DeploymentRecord) -> str:
    if not d.fetched:
        return "has asked for nothing"
    name = max(d.fetched, key=lambda n: d.fetched[n])
    return f"was last heard at {name.removeprefix('at ')!r}"
