"""`netboot:` of site.yaml: who answers DHCP where machines boot from the network, and with what."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from metalimmu.desired.base import Document, Duration

Interface = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$",
        description="the name of a network interface of the controller",
        examples=["eth1"],
    ),
]
Boots = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]


class Netboot(Document, frozen=True, kw_only=True):
    """`dhcp`: we are the segment's DHCP server. `proxy`: another server gives addresses, we add what to boot. `off`: others
    answer DHCP; point them at `urls.boot`/boot/start.ipxe.
    """

    mode: Literal["dhcp", "proxy", "off"] = "off"
    interface: Interface | None = None  # where the machines are; needed unless mode is off
    range: str | None = None  # mode dhcp: 10.1.0.100-10.1.0.200; mode proxy: the network, 10.1.0.0/24
    router: str | None = None
    dns: list[str] = []
    lease: Duration = "1h"
    # ipxe: by the firmware's own network driver (snponly.efi); ipxe-drivers: by iPXE's (ipxe.efi), where the firmware's is broken;
    # shim: Debian's signed shim and GRUB, for secure boot; UEFI only, by TFTP only
    loader: Literal["ipxe", "ipxe-drivers", "shim"] = "ipxe"
    http_loader: Literal["auto", "ipxe", "grub"] = (
        "auto"  # what UEFI HTTP boot starts; auto: iPXE where we answer DHCP, else GRUB
    )
    answer: Literal["all", "known"] = "all"  # known: only machines whose NICs are in the documents get an address
    ping: bool = True  # see that an address is free before it is given: 3 s of a machine's first boot
    advertise: bool = False  # IPv6 router advertisements, not as a router: iPXE waits 16 s for one; needs an IPv6 address on the interface
    max_boots: Boots = 5  # a machine that asks oftener in one deployment boots in a loop: it is stopped


@dataclass(frozen=True)
class Pool:
    """Addresses that are given away, and their network."""

    first: ipaddress.IPv4Address
    last: ipaddress.IPv4Address
    network: ipaddress.IPv4Network | None  # None: as the interface has it


def pool(text: str) -> Pool:
    """Of `FIRST-LAST`, or `FIRST-LAST/PREFIX` where the segment is behind a relay. Raises ValueError, saying what is wrong."""
    span, _, prefix = text.partition("/")
    low, dash, high = span.partition("-")
    if not dash:
        raise ValueError("write FIRST-LAST")
    first, last = ipaddress.IPv4Address(low.strip()), ipaddress.IPv4Address(high.strip())
    if last < first:
        raise ValueError(f"{last} is before {first}")
    network = ipaddress.IPv4Network(f"{first}/{prefix}", strict=False) if prefix else None
    if network is not None and last not in network:
        raise ValueError(f"{last} is not in {network}")
    return Pool(first, last, network)


def proxied(text: str) -> ipaddress.IPv4Network:
    """Of `NETWORK/PREFIX`. Raises ValueError."""
    if "/" not in text:
        raise ValueError("write NETWORK/PREFIX")
    return ipaddress.IPv4Network(text, strict=False)
