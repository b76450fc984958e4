"""Make the plan of a switch: look at it and at its peer, without an act."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from metalimmu.desired.render import digest, render
from metalimmu.desired.switch import no_bmc
from metalimmu.errors import BmcError, BmcLoginRefused, BmcUnreachable, HostKeyChanged
from metalimmu.nos.adapter import adapters
from metalimmu.nos.driver import commands, maybe
from metalimmu.observed.types import PowerAction, PowerState
from metalimmu.plan.saved import HostPlan
from metalimmu.plan.switch import SeenSwitch, check_nos, plan_switch
from metalimmu.service.config import controller
from metalimmu.service.switches import FACTS, around, connect

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.observed.switch import SwitchFacts
    from metalimmu.observed.types import WriteRequest
    from metalimmu.plan.reimage import Memory
    from metalimmu.plan.types import ImageFacts
    from metalimmu.service.site import OpenSite


def plan(site: OpenSite, spec: HostSpec, image: ImageFacts, memory: Memory, *, verb: str, force: bool) -> HostPlan:
    """Raises MetalimmuError of many kinds; a NOS that does not answer is no error: the switch may be in ONIE."""
    from metalimmu.service.planning import planned_calls

    check_nos(spec, image)
    seen = look(site, spec, image)
    made = plan_switch(
        spec,
        image,
        memory,
        seen,
        verb=verb,
        calls=planned_calls(spec, image.ref, memory.image or ""),
        force=force,
        now=time.time(),
    )
    return HostPlan(
        host=spec.name,
        wave=0,
        plan=made,
        config=digest(render(spec, controller=controller(site.docs.site.urls.machines, ""))),
        looked=time.time(),
        pool=spec.pool or "",
        state=memory.state,
        quarantine=memory.quarantined,
    )


def look(site: OpenSite, spec: HostSpec, image: ImageFacts) -> SeenSwitch:
    """Ask switch and peer now, and remember the answer."""
    facts: SwitchFacts | None = None
    why = ""
    try:
        facts = connect(site, spec, mode="read-only").facts()
        site.store.observe(spec.name, FACTS, facts.brief())
    except BmcUnreachable as exc:
        why = exc.message
    except (HostKeyChanged, BmcLoginRefused) as exc:
        if site.store.host(spec.name).image is not None:
            raise
        why = exc.message  # nothing of ours is there: ONIE answers too, with a new key at each boot
    found = around(site, spec, facts)
    new = image.nos.nos if image.nos else ""
    return SeenSwitch(
        around=found,
        unreachable=why,
        commands=commands(facts.nos) if facts else {},
        maybe=maybe(new) if new in adapters() else {},
        power=() if facts else _power(site, spec),
    )


def _power(site: OpenSite, spec: HostSpec) -> tuple[WriteRequest, ...]:
    """What the step `start` may ask of the BMC; nothing where there is none, or it does not answer now."""
    if no_bmc(spec.bmc):
        return ()
    try:
        with site.connect(spec, mode="read-only") as bmc:
            action = PowerAction.on if bmc.power_state() is PowerState.off else PowerAction.force_restart
            return tuple(bmc.rehearse(lambda: bmc.set_power(action)))
    except BmcError:
        return ()
