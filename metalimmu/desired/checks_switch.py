"""Hosts that are switches: what they must say, pairs that name each other, addresses that only one may have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.problems import Problem, nearest, quoted
from metalimmu.desired.resolve import beside, mac
from metalimmu.desired.switch import METHODS, Switch, no_bmc, ssh_address
from metalimmu.desired.types import Host


def switch_problems(docs: Collected, root: Path) -> Iterator[Problem]:
    """`root` is the site's folder: key files must exist."""
    switches = {p.value.name: p for p in docs.hosts if p.value.kind == "switch"}
    macs: dict[str, Placed[Host]] = {}
    for placed in docs.hosts:
        host = placed.value
        if host.kind != "switch":
            yield from _no_switch(placed)
            continue
        if host.switch is None:
            if not placed.partial:
                write = "write switch: {platform: x86_64-vendor_model-r0, base_mac: ...}"
                yield placed.problem(("kind",), "a `switch:` beside kind: switch", "none", write)
            continue
        yield from _switch(placed, host.switch, switches, docs, root)
        for field in ("base_mac", "mgmt_mac"):
            value = getattr(host.switch, field)
            if value and (first := macs.setdefault(mac(value), placed)) is not placed:
                yield placed.problem(
                    ("switch", field),
                    "a MAC address that no other switch has",
                    f"{quoted(value)} as of {first.value.name} ({first.place})",
                    "write the right one at the switch that has it wrong",
                )


def _no_switch(placed: Placed[Host]) -> Iterator[Problem]:
    host = placed.value
    if host.switch is not None:
        yield placed.problem(("switch",), "nothing for a server", "switch:", "write kind: switch, or remove it")
    if no_bmc(host.bmc):
        yield placed.problem(("bmc",), "the BMC of a server", quoted(host.bmc), "only a switch may have none")


def _switch(
    placed: Placed[Host], switch: Switch, switches: dict[str, Placed[Host]], docs: Collected, root: Path
) -> Iterator[Problem]:
    host = placed.value
    if not ssh_address(host.bmc, switch.ssh)[0]:
        write = "write switch.ssh: ADDRESS[:PORT], or bmc: ssh://ADDRESS where it has no BMC"
        yield placed.problem(("switch", "ssh"), "where its NOS listens for SSH", "no address", write)
    if not host.serial:
        yield placed.problem(
            ("serial",), "the serial number that ONIE says", "none", "write what `onie-sysinfo -s` says"
        )
    if switch.key and not beside(root, switch.key).is_file():
        got = f"{quoted(switch.key)}, which is not there"
        yield placed.problem(("switch", "key"), "a private key", got, "write its path from the site's folder")
    role = docs.roles.get(host.role or "")
    if role is not None and not role.partial and role.value.boot not in (*METHODS, "auto"):
        got = f"{role.value.boot}, by role {host.role}"
        yield placed.problem(
            ("role",), "a role for switches: boot: auto, onie or two-slot", got, "give it another role"
        )
    yield from _peer(placed, switch.peer, switches, docs)


def _peer(
    placed: Placed[Host], peer: str | None, switches: dict[str, Placed[Host]], docs: Collected
) -> Iterator[Problem]:
    if peer is None or docs.unread_hosts:
        return
    name = placed.value.name
    other = switches.get(peer)
    if peer == name:
        yield placed.problem(("switch", "peer"), "the other switch of the pair", "itself", "name the other one")
    elif other is None:
        write = nearest(peer, set(switches), none="write its document")
        yield placed.problem(("switch", "peer"), "the name of a switch", quoted(peer), write)
    elif other.value.switch is not None and other.value.switch.peer != name:
        got = f"{peer}, whose own peer is {other.value.switch.peer or 'none'} ({other.place})"
        yield placed.problem(("switch", "peer"), "a pair that names each other", got, f"write peer: {name} there")
