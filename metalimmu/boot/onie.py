"""What ONIE asks for, and whom it may be given: pure.

ONIE (exec_installer, functions of opencomputeproject/onie) says who it is in headers of each request, and walks down a
list of names. It checks nothing of what it gets and runs it as root, so an image goes only to the one switch that it was
assigned to; whatever else is asked for does not exist. An installer that ends with an error makes ONIE ask again at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from metalimmu.boot.rules import clean
from metalimmu.plan.identity import same_serial

INSTALLER = "onie-installer"
_PLATFORM = re.compile(r"([a-z0-9_]+?)-([A-Za-z0-9_.]+)-r([0-9]+)")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")


@dataclass(frozen=True)
class Asker:
    """Who a request says that it comes from. Empty: it does not say."""

    serial: str
    base_mac: str  # lower case, colons
    platform: str
    operation: str = ""  # os-install | onie-update; empty for ZTP
    version: str = ""  # of ONIE, or of the NOS
    ztp: bool = False


class Assigned(Protocol):
    """The store's SwitchRecord fits."""

    @property
    def serial(self) -> str: ...
    @property
    def base_mac(self) -> str: ...
    @property
    def platform(self) -> str: ...


def asker(headers: Mapping[str, str]) -> Asker:
    """`headers` without regard to case, as aiohttp has them."""

    def said(name: str) -> str:
        return clean(headers.get(name, "")).strip()[:200]

    if said("User-Agent").startswith("SONiC-ZTP"):
        return Asker(
            said("SERIAL-NUMBER"), _mac(said("BASE-MAC-ADDRESS")), said("PRODUCT-NAME"), "", said("SONiC-VERSION"), True
        )
    machine, arch, rev = said("ONIE-MACHINE"), said("ONIE-ARCH"), said("ONIE-MACHINE-REV")
    platform = f"{arch}-{machine}-r{rev or '0'}" if arch and machine else ""
    return Asker(
        said("ONIE-SERIAL-NUMBER"),
        _mac(said("ONIE-ETH-ADDR")),
        platform,
        said("ONIE-OPERATION"),
        said("ONIE-VERSION"),
    )


def misfit(who: Asker, wanted: Assigned) -> str:
    """Why this asker is not the switch that the image is assigned to; empty: it is."""
    if not same_serial(who.serial, wanted.serial):
        return f"its serial is {who.serial or 'not said'}, not {wanted.serial}"
    if who.base_mac != wanted.base_mac:
        return f"its base MAC is {who.base_mac or 'not said'}, not {wanted.base_mac}"
    if who.platform != wanted.platform:
        return f"its platform is {who.platform or 'not said'}, not {wanted.platform}"
    if not who.ztp and who.operation != "os-install":
        return f"it asks for {who.operation or 'nothing that it names'}, not os-install"
    return ""


def names(platform: str) -> tuple[str, ...]:
    """The names that a switch of this platform asks for, the most specific first; each without and with `.bin`.

    The fourth of ONIE's six has the switch ASIC, which no header says: `named` knows its form.
    """
    m = _PLATFORM.fullmatch(platform)
    if not m:
        return ()
    arch, machine, _ = m.groups()
    plain = (platform, f"{arch}-{machine}", machine, arch)
    found = (*(f"{INSTALLER}-{n}" for n in plain), INSTALLER)
    return tuple(n for each in found for n in (each, f"{each}.bin"))


def named(name: str, platform: str) -> bool:
    """Would a switch of this platform ask for an installer by this name?"""
    m = _PLATFORM.fullmatch(platform)
    if m is None:
        return False
    by_asic = rf"{INSTALLER}-{re.escape(m[1])}-[a-z0-9]{{1,32}}(\.bin)?"
    return name in names(platform) or re.fullmatch(by_asic, name) is not None


def _mac(text: str) -> str:
    found = text.lower().replace("-", ":")
    return found if _MAC.match(found) else ""
