"""How a run's machine is brought to boot the ramdisk, by its plan's method: media in a BMC's drive, or an offer on the network.

What is the same for both is in boot_steps and disk_steps; they ask here what is offered, whether it is lost, and take it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metalimmu.errors import BmcRefused, BmcUnsupported
from metalimmu.observed.types import BootEnabled, BootMode, BootOverride, BootTarget
from metalimmu.plan.method import NETWORK, TARGETS, UEFI_HTTP

if TYPE_CHECKING:
    from metalimmu.bmc.ports import Bmc
    from metalimmu.workflows.context import Context


def by_network(c: Context) -> bool:
    return c.plan.method in NETWORK


def target(c: Context) -> BootTarget:
    return TARGETS[c.plan.method]


# what is offered


def offered(c: Context) -> bool:
    """Over the network: is our boot given to whoever is this machine? Media: are ours in the drive?"""
    if by_network(c):
        d = c.deployment()
        return d is not None and d.offered is not None and d.method == c.plan.method
    slot = c.slot()
    return ours(c, slot.image) and slot.inserted is not False


def offer(c: Context) -> None:
    if by_network(c):
        c.tools.store.update_deployment(c.run, method=c.plan.method, offered=c.tools.clock.now())
        return
    slot = c.slot()
    if slot.inserted or slot.image:
        c.bmc.eject_media(slot)
    try:
        c.bmc.insert_media(slot, c.tools.media.media_url(c.run))
    except BmcRefused:
        if not ours(c, c.slot().image):  # else a request that was on its way when a controller died came late
            raise


def is_out(c: Context) -> bool:
    """Empty, or another's. Inserted without saying what is not out: it may well be ours."""
    if by_network(c):
        d = c.deployment()
        return d is None or d.offered is None
    slot = c.slot()
    return slot.inserted is False or (bool(slot.image) and not ours(c, slot.image)) or not (slot.inserted or slot.image)


def take_back(c: Context) -> None:
    """Only what is ours, or may be: somebody else's media is not our business after a failure."""
    if c.deployment() is None or is_out(c):
        return
    if by_network(c):
        c.tools.store.update_deployment(c.run, offered=None)
    else:
        c.bmc.eject_media(c.slot())


def ours(c: Context, image: str | None) -> bool:
    return bool(image) and c.tools.media.is_media_of(c.run, str(image))


# the boot override


def enabled_for(now: BootOverride) -> BootEnabled:
    """Once where the BMC has it; else Continuous, cleared before the machine boots its disk."""
    return BootEnabled.once if now.once_allowed else BootEnabled.continuous


def mode_for(firmware: str) -> BootMode:
    return BootMode.uefi if firmware == "uefi" else BootMode.legacy


def override_is_set(c: Context, now: BootOverride) -> bool:
    if now.effective != target(c) or now.enabled is not enabled_for(now):
        return False
    return now.mode is None or now.mode is mode_for(c.spec.firmware)


def set_override(c: Context) -> None:
    set_override_to(c.bmc, c.bmc.boot_override(), c.plan.method, c.spec.firmware, c.tools.media.loader_url())


def set_override_to(bmc: Bmc, now: BootOverride, method: str, firmware: str, loader: str) -> None:
    """`loader`: where the firmware is told to fetch its boot loader, for a BMC that takes it; else DHCP says it.

    Raises BmcUnsupported, BmcError.
    """
    wanted = TARGETS[method]
    if now.targets and method in NETWORK and wanted not in now.targets:
        raise BmcUnsupported(f"the BMC names no boot target {wanted}; it has {', '.join(now.targets)}")
    uri = loader if method == UEFI_HTTP and now.takes_uri else ""
    mode = mode_for(firmware) if now.mode is not None else None
    if uri:
        bmc.set_boot_override(wanted, enabled_for(now), mode, uri=uri)
    else:
        bmc.set_boot_override(wanted, enabled_for(now), mode)


def clear_override(c: Context) -> None:
    if c.bmc.boot_override().effective != BootTarget.none:
        c.bmc.set_boot_override(BootTarget.none, BootEnabled.disabled, None)
