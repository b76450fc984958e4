"""Look at one host's BMC for a plan, without a write: what it says, and what each step would send to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from metalimmu.log import redacted
from metalimmu.observed.types import BootEnabled, BootMode, BootTarget, MediaSlot, PowerAction, PowerState, WriteRequest
from metalimmu.plan.reimage import MEDIA_URL, Requests, Seen, choose_slot
from metalimmu.workflows.boot_steps import enabled_for

if TYPE_CHECKING:
    from metalimmu.bmc.ports import Bmc
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite

KIND = "look"  # of observations


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Requests depend on what was seen, and on three things of the documents."""

    seen: Seen
    slot: MediaSlot
    requests: Requests
    bmc: str  # address
    firmware: str  # uefi | bios
    media: str  # address that BMCs fetch media from
    at: float = 0.0  # seconds since 1970; not kept: the store knows when

    def misfit(self, spec: HostSpec, media: str) -> str:
        """Why a remembered look says nothing about this spec; empty: it does."""
        for what, then, now in (
            ("BMC address", self.bmc, spec.bmc),
            ("firmware", self.firmware, spec.firmware),
            ("urls.bmc", self.media, media),
        ):
            if then != now:
                return f"its {what} was {then} when it was looked at, and is {now}"
        return ""


def look(site: OpenSite, spec: HostSpec) -> Look:
    """Ask the BMC now, and remember the answer. Raises BmcError, GuardRefused."""
    media = site.docs.site.urls.bmc
    with site.connect(spec, mode="read-only") as bmc:
        seen = Seen(identity=bmc.identity(), power=bmc.power_state(), boot=bmc.boot_override(), media=bmc.media())
        slot = choose_slot(seen.media)
        requests = rehearse(bmc, spec, seen, slot, media)
    found = Look(seen=seen, slot=slot, requests=requests, bmc=spec.bmc, firmware=spec.firmware, media=media)
    site.store.observe(spec.name, KIND, redacted(msgspec.to_builtins(found)))
    return msgspec.structs.replace(found, at=time.time())


def rehearse(bmc: Bmc, spec: HostSpec, seen: Seen, slot: MediaSlot, base: str) -> Requests:
    """The writes of each step, from the very code that will send them."""

    def insert() -> None:
        if slot.inserted or slot.image:
            bmc.eject_media(slot)
        bmc.insert_media(slot, f"{base.rstrip('/')}/m/{MEDIA_URL}/boot.iso")

    def override() -> None:
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
