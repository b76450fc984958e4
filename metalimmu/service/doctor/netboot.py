"""Network boot: can this machine answer machines that boot from it, and does somebody else do so already?"""

from __future__ import annotations

from collections.abc import Iterator

from metalimmu.boot.loaders import HTTP, Loaders, http_loader
from metalimmu.desired.netboot import Netboot
from metalimmu.errors import ToolError
from metalimmu.service.doctor.check import Check, fail, few, ok, unknown, warn
from metalimmu.service.doctor.probes import Probes

_OFF = "or `netboot: {mode: off}` in site.yaml, and a DHCP server of your own"


def netboot(settings: Netboot, loaders: Loaders, probes: Probes, *, holder: str | None) -> Iterator[Check]:
    """`holder`: the process that is the site's worker now, if there is one: it has the rights, and answers itself."""
    if settings.mode == "off":
        return
    interface = settings.interface or ""
    yield _programs(settings, loaders, probes)
    there = probes.interface(interface)
    if there:
        yield ok("netboot: interface", f"{interface} is there")
    else:
        hint = "correct netboot.interface in site.yaml: `ip link` lists what there is"
        yield fail("netboot: interface", f"this machine has no interface {interface}", hint)
    lacks = probes.lacks()
    if holder:
        yield ok(
            "netboot: rights",
            f"{holder} is the site's worker and has taken what dnsmasq needs, or says in its log why not",
        )
    elif lacks:
        what = f"dnsmasq would lack {few(list(lacks))}: DHCP and TFTP are on ports below 1024"
        yield fail("netboot: rights", what, f"start metalimmu as root or with these capabilities; {_OFF}")
    else:
        yield ok("netboot: rights", "dnsmasq may have the ports of DHCP and TFTP")
    if there:
        yield _servers(settings.mode, interface, probes, asks=not lacks)


def _programs(settings: Netboot, loaders: Loaders, probes: Probes) -> Check:
    name = "netboot: programs"
    if probes.program("dnsmasq") is None:
        return fail(name, "dnsmasq is not installed: nobody answers machines", "apt-get install dnsmasq-base")
    try:
        found = loaders.need(settings.loader)
    except ToolError as exc:
        return fail(name, exc.message, exc.hint)
    if http_loader(settings) == HTTP and probes.program("grub-mkimage") is None:
        what = "grub-mkimage is not installed: UEFI HTTP boot gets no loader"
        return fail(name, what, "apt-get install grub-common grub-efi-amd64-bin")
    return ok(name, f"dnsmasq, {', '.join(found)}")


def _servers(mode: str, interface: str, probes: Probes, *, asks: bool) -> Check:
    name = "netboot: DHCP servers"
    if not asks:
        return unknown(name, "only root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW, can ask for them")
    others = [server for server in probes.dhcp(interface) if not probes.is_ours(server)]
    if mode == "dhcp" and others:
        what = f"another one answers on {interface}: {few(others)}"
        return fail(name, what, "stop it; or leave the addresses to it: `netboot: {mode: proxy}`")
    if mode == "proxy" and not others:
        what = f"none answers on {interface}: machines get no address there"
        return warn(name, what, "start the one that `netboot: {mode: proxy}` is beside; or `mode: dhcp`")
    return ok(name, f"{few(others)} gives the addresses on {interface}" if others else f"no other on {interface}")
