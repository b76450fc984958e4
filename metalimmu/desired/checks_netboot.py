"""Does `netboot:` make sense? Interface, range, router, and an address in the clear."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from metalimmu.desired import netboot
from metalimmu.desired.collected import Placed
from metalimmu.desired.problems import Problem, quoted
from metalimmu.desired.types import Site, Urls


def netboot_problems(placed: Placed[Site]) -> Iterator[Problem]:
    settings = placed.value.netboot
    if settings.mode == "off":
        return
    if not plain_boot_url(placed.value.urls):
        got = "no address in the clear"
        write = "write urls.boot: http://ADDRESS:PORT, as the machines reach the controller"
        yield placed.problem(("netboot", "mode"), "`urls.boot`: boot loaders speak plain HTTP", got, write)
    if not settings.interface:
        write = "write the name that `ip link` shows: eth1"
        yield placed.problem(("netboot", "interface"), "an interface", "none", write)
    yield from _range(placed)
    for i, server in enumerate(settings.dns):
        yield from _address(placed, ("netboot", "dns", i), server)
    if settings.router is not None:
        yield from _address(placed, ("netboot", "router"), settings.router)


def plain_boot_url(urls: Urls) -> str | None:
    """Where machines that boot from the network fetch, without a trailing slash: `boot`; else `chunks` or `bmc`, where BMCs
    are served in the clear.
    """
    candidates = (urls.boot, *((urls.chunks, urls.bmc) if urls.bmc.startswith("http://") else ()))
    return next((url.rstrip("/") for url in candidates if url and url.startswith("http://")), None)


def _range(placed: Placed[Site]) -> Iterator[Problem]:
    settings = placed.value.netboot
    dhcp = settings.mode == "dhcp"
    expected = "FIRST-LAST" if dhcp else "NETWORK/PREFIX"
    write = 'write "10.1.0.100-10.1.0.200"' if dhcp else 'write "10.1.0.0/24"'
    if settings.range is None:
        yield placed.problem(("netboot", "range"), expected, "none", write)
        return
    try:
        (netboot.pool if dhcp else netboot.proxied)(settings.range)
    except ValueError as exc:
        yield placed.problem(("netboot", "range"), expected, f"{quoted(settings.range)} ({exc})", write)


def _address(placed: Placed[Site], path: tuple[str | int, ...], text: str) -> Iterator[Problem]:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        yield placed.problem(path, "an IPv4 address", quoted(text), 'write "10.1.0.1"')
