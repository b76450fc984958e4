"""Switches in the documents: what must be there, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest

from metalimmu.desired.check import check
from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve

SITE = 'name: s\nurls: {bmc: "http://a", machines: "https://a"}\n'
ROLE = "image: sonic@1\nboot: onie\nsoak: 5m\nconfig: {config_db.json: c.j2}\n"
TEMPLATE = '{"mac": {{ switch.base_mac | tojson }}}\n'


def leaf(number: int, peer: int, more: str = "", bmc: str = "") -> str:
    bmc = bmc or f"ssh://10.0.0.{number}"
    return (
        f"- {{name: leaf-{number}, kind: switch, serial: S{number}, bmc: '{bmc}', role: leaf, "
        f"switch: {{platform: x86_64-accton_as7726_32x-r0, base_mac: '34:EF:B6:00:00:0{number}', peer: leaf-{peer}{more}}}}}\n"
    )


def site(make_site: Any, hosts: str, role: str = ROLE, template: str = TEMPLATE) -> Any:
    return make_site({"site.yaml": SITE, "hosts/a.yaml": hosts, "roles/leaf.yaml": role, "templates/c.j2": template})


def test_a_pair(make_site: Any) -> None:
    folder = site(
        make_site,
        leaf(1, 2) + leaf(2, 1, ", ssh: '10.9.0.2:2200', mgmt_mac: '34:ef:b6:00:01:02'", "redfish+https://10.0.0.2"),
    )
    assert check(folder).problems == ()
    docs = load(folder)
    first, second = (resolve(docs, name, root=folder) for name in ("leaf-1", "leaf-2"))
    assert first.switch is not None
    assert (first.switch.address, first.switch.port, first.switch.base_mac) == ("10.0.0.1", 22, "34:ef:b6:00:00:01")
    assert (first.switch.mgmt_mac, first.switch.soak, first.kind) == ("34:ef:b6:00:00:01", 300.0, "switch")
    assert second.switch is not None
    assert (second.switch.address, second.switch.port, second.switch.mgmt_mac) == (
        "10.9.0.2",
        2200,
        "34:ef:b6:00:01:02",
    )


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (leaf(1, 2) + leaf(2, 3) + leaf(3, 2), "leaf-1.switch.peer: expected a pair that names each other, got leaf-2"),
        (leaf(1, 1), "the other switch of the pair, got itself"),
        (leaf(1, 9), "leaf-1.switch.peer: expected the name of a switch"),
        (leaf(1, 2) + leaf(2, 1).replace("00:00:02", "00:00:01"), "a MAC address that no other switch has"),
        (leaf(1, 2) + leaf(2, 1, bmc="redfish+https://10.0.0.2"), "leaf-2.switch.ssh: expected where its NOS listens"),
        (
            leaf(1, 2).replace("serial: S1, ", "") + leaf(2, 1),
            "leaf-1.serial: expected the serial number that ONIE says",
        ),
        (leaf(1, 2, ", key: none.key") + leaf(2, 1), "which is not there"),
        ("- {name: a, kind: switch, serial: S, bmc: 'ssh://a'}\n", "a.kind: expected a `switch:`"),
        ("- {name: a, serial: S, bmc: 'ssh://a'}\n", "only a switch may have none"),
        (
            leaf(1, 2).replace("kind: switch", "kind: server") + leaf(2, 1),
            "leaf-1.switch: expected nothing for a server",
        ),
        (leaf(1, 2).replace("x86_64-accton", "accton") + leaf(2, 1), "ONIE's platform"),
    ],
)
def test_what_is_wrong(make_site: Any, hosts: str, words: str) -> None:
    assert words in "\n".join(str(p) for p in check(site(make_site, hosts)).problems)


def test_a_role_for_servers_is_no_role_for_switches(make_site: Any) -> None:
    said = check(site(make_site, leaf(1, 2) + leaf(2, 1), ROLE.replace("onie", "virtual-media"))).problems
    assert "a role for switches" in str(said[0])


def test_a_config_that_is_no_json_is_found_before_it_is_served(make_site: Any) -> None:
    (said,) = check(site(make_site, leaf(1, 2) + leaf(2, 1), template="{{ name }}\n")).problems
    assert "config_db.json in JSON" in str(said)
