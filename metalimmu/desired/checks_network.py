"""Does a host's network make sense? Addresses, gateways, routes, bonds."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache

from metalimmu.desired.problems import Path, listed, quoted
from metalimmu.desired.resolve import mac
from metalimmu.desired.types import Network

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Wrong = tuple[Path, str, str, str]  # field, expected, got, write


def network_problems(network: Network, nics: list[str]) -> Iterator[Wrong]:
    """`network` is the host's over its role's; `nics` are the host's own."""
    interface: Interface | None = None
    if network.address:
        try:
            interface = ipaddress.ip_interface(network.address)
        except ValueError:
            yield ("address",), "an address/prefix length", quoted(network.address), 'write "10.1.12.7/24"'
        else:
            yield from _usable(interface)
    if network.gateway and not network.address:
        yield (
            ("gateway",),
            "an address too",
            "a gateway without an address",
            "write address, or remove gateway: DHCP brings one",
        )
    elif network.gateway:
        yield from _next_hop(network.gateway, interface, ("gateway",), "a gateway")
    for i, server in enumerate(network.dns):
        if _address(server) is None:
            yield ("dns", i), "an IP address of a name server", quoted(server), 'write "10.1.0.53"'
    yield from _routes(network, interface)
    yield from _nics(network, nics)


def _usable(interface: Interface) -> Iterator[Wrong]:
    net, ip, bits = interface.network, interface.ip, interface.max_prefixlen
    why = ""
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        why = "which no host can have"
    elif net.prefixlen < bits - 1 and ip == net.network_address:
        why = "the network's own address"
    elif net.version == 4 and net.prefixlen < bits - 1 and ip == net.broadcast_address:
        why = "the broadcast address"
    if why:
        first = f"{net.network_address + 1}/{net.prefixlen}" if net.num_addresses > 2 else str(interface)
        yield ("address",), "an address of a host", f"{interface}, {why}", f"write one like {first}"


def _next_hop(text: str, interface: Interface | None, field: Path, what: str) -> Iterator[Wrong]:
    ip = _address(text)
    if ip is None:
        yield field, f"{what}: an IP address", quoted(text), 'write "10.1.12.1"'
    elif interface is None:
        return
    elif ip == interface.ip:
        yield field, f"{what} other than the host itself", str(ip), "write the router's address"
    elif ip not in interface.network and not ip.is_link_local:
        yield field, f"{what} in {interface.network}", str(ip), "correct it, or the prefix length of address"


def _routes(network: Network, interface: Interface | None) -> Iterator[Wrong]:
    for i, route in enumerate(network.routes):
        if not network.address:
            yield ("routes", i), "an address too", "a route without an address", "write address, or remove the route"
            continue
        yield from _next_hop(route.via, interface, ("routes", i, "via"), "a next hop")
        if route.to == "default":
            if network.gateway:
                yield ("routes", i, "to"), "one default route", "default beside gateway", "keep one of them"
            continue
        try:
            to = ipaddress.ip_network(route.to)
        except ValueError:
            loose = _loose(route.to)
            write = f'write "{loose}"' if loose else 'write "10.0.0.0/8"'
            yield ("routes", i, "to"), "a network", quoted(route.to), write
            continue
        via = _address(route.via)
        if via is not None and via.version != to.version:
            yield ("routes", i, "via"), f"an IPv{to.version} address", str(via), f"write the IPv{to.version} router"


def _loose(text: str) -> str:
    """10.1.0.5/8 as 10.0.0.0/8: host bits set is the usual slip."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return ""


def _nics(network: Network, nics: list[str]) -> Iterator[Wrong]:
    own = [mac(n) for n in nics]
    used = [mac(n) for n in network.nics]
    for i, nic in enumerate(used):
        if own and nic not in own:
            yield ("nics", i), "one of the host's nics", quoted(nic), f"write one of {listed(own)}"
        elif nic in used[:i]:
            yield ("nics", i), "each NIC once", quoted(nic), "remove it here"
    count = len(used or own)
    if network.bond and not count:
        yield ("nics",), f"the NICs of the {network.bond} bond", "none", 'write nics: ["b8:ca:3a:00:00:01", ...]'
    elif network.address and not network.bond and count != 1:
        got = f"{count} NICs" if count else "none"
        yield ("nics",), "the one NIC that has the address, or a bond", got, 'write nics: ["b8:ca:3a:00:00:01"]'
    elif network.vlan and not network.bond and count != 1:
        got = f"{count} NICs" if count else "none"
        yield ("nics",), "the one NIC that carries the VLAN, or a bond", got, 'write nics: ["b8:ca:3a:00:00:01"]'


@lru_cache(maxsize=10_000)
def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
