"""How a machine is brought to boot our ramdisk: chosen from what it can do and what its role allows. Pure.

=============  ====================================================================================================
virtual-media  the BMC shows the machine a CD: nothing is needed of the machine's network but the agent's way to us
uefi-http      the firmware fetches a boot loader by HTTP: from the address that the BMC is given, or that DHCP names
pxe            the firmware asks DHCP and fetches a boot loader by TFTP
=============  ====================================================================================================

In this order: the first needs least of others, the last most. `auto` takes the first that can be; the rest is what a run
falls back to as long as nothing was written. A role's `boot:` names one, or several in its own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from metalimmu.errors import BmcUnsupported, UsageError
from metalimmu.observed.types import BootTarget

VIRTUAL_MEDIA, UEFI_HTTP, PXE = "virtual-media", "uefi-http", "pxe"
METHODS = (VIRTUAL_MEDIA, UEFI_HTTP, PXE)
NETWORK = (UEFI_HTTP, PXE)
TARGETS = {VIRTUAL_MEDIA: BootTarget.cd, UEFI_HTTP: BootTarget.uefi_http, PXE: BootTarget.pxe}
STEPS = {
    VIRTUAL_MEDIA: ("insert", "override", "eject"),
    UEFI_HTTP: ("offer", "http-boot", "withdraw"),
    PXE: ("offer", "pxe", "withdraw"),
}
"""What takes the place of what in a plan's steps; all other steps are the same."""
TITLES = {
    "offer": "offer the boot over the network",
    "http-boot": "boot once by UEFI HTTP",
    "pxe": "boot once by PXE",
    "withdraw": "withdraw the offer, clear the override",
}
ESTIMATE = {"offer": 1.0, "http-boot": 5.0, "pxe": 5.0, "withdraw": 5.0}


class Can(msgspec.Struct, frozen=True, kw_only=True):
    """What a host and its site can do."""

    no_media: str = ""  # why the BMC shows no CD; empty: it does
    targets: tuple[str, ...] = ()  # boot targets that the BMC names; empty: it does not say
    takes_uri: bool = (
        False  # the BMC can be told from where to boot by HTTP (Boot.HttpBootUri), and we have what it may boot
    )
    firmware: str = "uefi"  # uefi | bios
    unserved: Mapping[
        str, str
    ] = {}  # network method -> why our DHCP does not bring this machine's firmware to a loader
    no_network: str = ""  # why nothing can be booted over the network: an image that goes on reading its media, …
    unknown: Mapping[str, str] = {}  # network method -> why who asks what to boot could not be told


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    why: str
    others: tuple[str, ...] = ()  # what a run may fall back to, in order
    rejected: tuple[str, ...] = ()  # "pxe: the reason", what was allowed and cannot be


def choose(named: Iterable[str], can: Can) -> Choice:
    """`named`: methods that a person or a role asks for, in order; none: `auto`. What is named needs no DHCP of ours.

    Raises BmcUnsupported with every reason when none is left, UsageError for a word that is no method.
    """
    wanted = tuple(dict.fromkeys(named))
    auto = not wanted
    wanted = wanted or METHODS
    for word in wanted:
        if word not in METHODS:
            raise UsageError(f"{word!r} is no boot method", hint=f"there are {', '.join(METHODS)}, or auto")
    reasons = {method: reason(method, can, named=not auto) for method in wanted}
    fit = [method for method in wanted if not reasons[method]]
    rejected = tuple(f"{method}: {why}" for method, why in reasons.items() if why)
    if not fit:
        raise BmcUnsupported(
            f"this machine cannot be booted into the ramdisk; {'; '.join(rejected)}",
            hint="the BMC's licence may bring virtual media; `netboot:` in site.yaml brings PXE; `boot:` of the role says what is allowed",
        )
    first = wanted.index(fit[0])
    if first:
        why = "; ".join(f"{m}: {reasons[m]}" for m in wanted[:first])
    elif auto:
        why = "the first choice, and the BMC has it"
    else:
        why = "asked for by name" if len(wanted) == 1 else "the first that is asked for"
    return Choice(method=fit[0], why=why, others=tuple(fit[1:]), rejected=rejected)


def reason(method: str, can: Can, *, named: bool = False) -> str:
    """Why this method cannot be; empty: it can."""
    if method == VIRTUAL_MEDIA:
        return can.no_media
    if can.no_network:
        return can.no_network
    target = TARGETS[method]
    if method in can.unknown:
        return can.unknown[method]
    if method == UEFI_HTTP:
        if can.firmware != "uefi":
            return f"the machine boots by {can.firmware}"
        if target not in can.targets:
            return f"the BMC names no boot target {target}"
    elif can.targets and target not in can.targets:
        return f"the BMC names no boot target {target}"
    if named or (method == UEFI_HTTP and can.takes_uri):
        return ""
    return can.unserved.get(method, "")


def renamed(names: Iterable[str], method: str) -> tuple[str, ...]:
    """Steps of a boot from virtual media as those of `method`."""
    new = dict(zip(STEPS[VIRTUAL_MEDIA], STEPS[method], strict=True))
    return tuple(new.get(name, name) for name in names)


def as_media(name: str) -> str:
    """What the step is called in a boot from virtual media; limits are set by that."""
    for names in STEPS.values():
        if name in names:
            return STEPS[VIRTUAL_MEDIA][names.index(name)]
    return name
