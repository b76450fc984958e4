"""A machine that was to boot the network and asked for no boot: how far it came, by what our DHCP and TFTP have heard."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from metalimmu.plan.method import PXE, UEFI_HTTP

if TYPE_CHECKING:
    from metalimmu.workflows.context import Context


def reason(c: Context) -> tuple[str, str]:
    """What is known, and what to look at. Both empty: it did ask, or nobody of ours could hear it."""
    d = c.deployment()
    if d is None or d.offered is None or d.asked or d.media_bytes:
        return "", ""
    events = c.tools.store.history(c.host, run=c.run, kind="netboot")
    heard = {str(e.data["heard"]) for e in events if "heard" in e.data and e.at >= d.offered}
    return why(c.plan.method, c.tools.media.dhcp(), heard, d.assignment.nics)


def why(method: str, mode: str, heard: Collection[str], nics: tuple[str, ...]) -> tuple[str, str]:
    """`mode`: of `netboot:`; `heard`: kinds of boot.dnsmasq_log, since the boot was offered; `nics`: MACs that we know. Pure."""
    if mode == "off" or not nics or (method == UEFI_HTTP and mode != "dhcp"):
        return "", ""
    if "loader" in heard:
        return "TFTP sent its boot loader, which asked nothing", _LOADER
    if "tftp-failed" in heard:
        return "DHCP answered, TFTP was asked and could not send: the machine stopped answering", _HALF
    if "tftp-ended" in heard:
        return "DHCP answered, TFTP was asked and the machine broke off", _LOADER
    if "lease" in heard and mode == "proxy":  # addresses are another's: whose TFTP request it was is not known
        return "proxy DHCP answered, no loader asked what to boot: is UDP 69 or 4011 blocked?", _TFTP
    if "lease" in heard and method == PXE:
        return "DHCP answered, no TFTP request came: is UDP 69 blocked?", _TFTP
    if "lease" in heard:
        return "DHCP answered, no HTTP request came", _HTTP
    if "no-address" in heard:
        return "DHCP had no address left for it", "make netboot.range larger, or netboot.lease shorter"
    return f"no DHCP request came from {', '.join(nics)}", _DHCP


_LOADER = (
    "look at its console: does the loader start, and reach `urls.boot`? Where it finds no network card, `netboot: loader: "
    "ipxe-drivers` or `ipxe` is the other one"
)
_HALF = (
    "let UDP pass between the machine and this controller: TFTP asks port 69, and is answered from a port of its own"
)
_TFTP = (
    "let UDP pass between the machine and this controller, port 69 and answers from other ports; where it is open, look at the "
    "console: did the machine boot its disk, whose system asked DHCP?"
)
_HTTP = "does the machine reach `urls.boot`? Or did it boot its disk, whose system asked DHCP: look at its console and boot order"
_DHCP = (
    "our DHCP answers IPv4 alone, on `netboot.interface`: does the firmware boot the network by IPv6 only, from another NIC or "
    "VLAN (`nics:`), or not at all? Its console and boot order tell"
)
