"""Look at one host's BMC for a plan, without a write: what it says, and what each step would send to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from metalimmu.errors import BmcUnsupported
from metalimmu.log import redacted
from metalimmu.observed.types import BootEnabled, BootTarget, MediaSlot, PowerAction, PowerState, WriteRequest
from metalimmu.plan.method import STEPS, VIRTUAL_MEDIA
from metalimmu.plan.reimage import MEDIA_URL, Requests, Seen, choose_slot
from metalimmu.service.methods import loader_url
from metalimmu.workflows.ways import set_override_to

if TYPE_CHECKING:
    from metalimmu.bmc.ports import Bmc
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite

KIND = "look"  # of observations


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Requests depend on what was seen, and on three things of the documents."""

    seen: Seen
    slot: MediaSlot | None  # None: no virtual media, and why
    no_media: str = ""
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
    urls = site.docs.site.urls
    with site.connect(spec, mode="read-only") as bmc:
        media, slot, why = _media(bmc)
        seen = Seen(identity=bmc.identity(), power=bmc.power_state(), boot=bmc.boot_override(), media=media)
        requests = rehearse(bmc, spec, seen, slot, urls.bmc, loader=loader_url(site.docs.site))
    found = Look(
        seen=seen, slot=slot, no_media=why, requests=requests, bmc=spec.bmc, firmware=spec.firmware, media=urls.bmc
    )
    site.store.observe(spec.name, KIND, redacted(msgspec.to_builtins(found)))
    return msgspec.structs.replace(found, at=time.time())


def _media(bmc: Bmc) -> tuple[tuple[MediaSlot, ...], MediaSlot | None, str]:
    """All slots, the one to use, and why there is none."""
    media: tuple[MediaSlot, ...] = ()
    try:
        media = bmc.media()
        return media, choose_slot(media), ""
    except BmcUnsupported as exc:
        return media, None, exc.message


def rehearse(bmc: Bmc, spec: HostSpec, seen: Seen, slot: MediaSlot | None, base: str, *, loader: str = "") -> Requests:
    """The writes of each step, of every method that can be, from the very code that will send them. `base`: where BMCs
    fetch media; `loader`: where firmware fetches a boot loader by HTTP.
    """

    def insert(slot: MediaSlot) -> None:
        if slot.inserted or slot.image:
            bmc.eject_media(slot)
        bmc.insert_media(slot, f"{base.rstrip('/')}/m/{MEDIA_URL}/boot.iso")

    def override(method: str) -> None:
        set_override_to(bmc, seen.boot, method, spec.firmware, loader)

    def power() -> None:
        bmc.set_power(PowerAction.on if seen.power is PowerState.off else PowerAction.force_restart)

    def rehearsed(act: object) -> tuple[WriteRequest, ...]:
        return tuple(bmc.rehearse(act))  # type: ignore[arg-type]

    clear = rehearsed(lambda: bmc.set_boot_override(BootTarget.none, BootEnabled.disabled, None))
    continuous = not seen.boot.once_allowed
    will = {"power": rehearsed(power)}
    may: dict[str, tuple[WriteRequest, ...]] = {}
    for method, (_, step, end) in STEPS.items():
        if method != VIRTUAL_MEDIA:
            try:
                will[step] = rehearsed(lambda method=method: override(method))
            except BmcUnsupported:
                continue  # it is not chosen then: see plan.method
            out: tuple[WriteRequest, ...] = ()
        elif slot is None:
            continue
        else:
            will["insert"] = rehearsed(lambda slot=slot: insert(slot))
            will[step] = rehearsed(lambda: override(VIRTUAL_MEDIA))
            out = rehearsed(lambda slot=slot: bmc.eject_media(slot))
        will[end] = (*out, *(clear if continuous else ()))
        may |= {} if continuous else {end: clear}
    return Requests(will=will, may=may)
