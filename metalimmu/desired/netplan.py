"""A host's network as network-config version 2 (netplan's format, which cloud-init reads from a NoCloud seed).

Interfaces are matched by MAC and named only where another one refers to them (bonds, VLANs): the names of bare machines
differ by slot and kernel. Bonds and VLANs need netplan or NetworkManager in the image; cloud-init's own writer for
systemd-networkd (Debian 12: 22.4) knows plain interfaces only.
"""

from __future__ import annotations

from typing import Any

from metalimmu.desired.types import Network

_BOND = {
    # Without mii-monitor-interval the kernel never notices a dead link.
    "802.3ad": {"mode": "802.3ad", "mii-monitor-interval": 100, "transmit-hash-policy": "layer3+4"},
    "active-backup": {"mode": "active-backup", "mii-monitor-interval": 100},
}


def network_config(network: Network, nics: tuple[str, ...]) -> dict[str, Any]:
    """The document. `network` and `nics` are those of a HostSpec: MACs lower case. Static when there is an address, else DHCP."""
    used = tuple(network.nics) or nics
    layered = bool(network.bond or network.vlan)
    top = _addresses(network)
    link = {"mtu": network.mtu} if network.mtu else {}
    doc: dict[str, Any] = {"version": 2, "ethernets": {}}
    if not used:
        doc["ethernets"]["all"] = {"match": {"name": "e*"}, **top, "optional": True, **link}
        return doc
    for i, nic in enumerate(used):
        ethernet: dict[str, Any] = {"match": {"macaddress": nic}}
        if layered:
            ethernet |= {"set-name": f"nic{i}", "dhcp4": False}
        else:
            # An unplugged NIC must not hold up the boot for two minutes.
            ethernet |= top | ({"optional": True} if len(used) > 1 else {})
        doc["ethernets"][f"nic{i}"] = ethernet | link
    below = "nic0"
    if network.bond:
        below = "bond0"
        bond = {"interfaces": list(doc["ethernets"]), "parameters": dict(_BOND[network.bond])}
        doc["bonds"] = {below: bond | ({"dhcp4": False} if network.vlan else top) | link}
    if network.vlan:
        doc["vlans"] = {f"vlan{network.vlan}": {"id": network.vlan, "link": below, **top, **link}}
    return doc


def _addresses(network: Network) -> dict[str, Any]:
    servers: dict[str, Any] = {}
    if network.dns:
        servers["addresses"] = list(network.dns)
    if network.search:
        servers["search"] = list(network.search)
    names = {"nameservers": servers} if servers else {}
    if not network.address:
        return {"dhcp4": True, **names}
    routes = [{"to": _default(network.gateway), "via": network.gateway}] if network.gateway else []
    routes += [{"to": _default(r.via) if r.to == "default" else r.to, "via": r.via} for r in network.routes]
    return {"dhcp4": False, "addresses": [network.address], **({"routes": routes} if routes else {}), **names}


def _default(via: str) -> str:
    """Not the word `default`: cloud-init before 23 passes it on to writers that do not know it."""
    return "::/0" if ":" in via else "0.0.0.0/0"
