"""What a network port says of the switch that it is plugged into, as makes say it."""

from __future__ import annotations

import json

import pytest
from walked import V1, Recorded, collection, link, small

from metalimmu.bmc import uris
from metalimmu.bmc.ask import Reply
from metalimmu.bmc.snapshot_hardware import _readable
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.bmc.walk import EVERYTHING, Want
from metalimmu.observed.types import Reason

CABLING = Want(frozenset({"cabling"}))
HARDWARE = Want(frozenset({"hardware"}))


@pytest.mark.parametrize(
    ("sent", "subtype", "meant"),
    [
        ("31:2F:31:0F:E0:6A:34", "IfName", "1/1"),  # iLO 5
        ("45:74:68:31:2F:31", "IfName", "Eth1/1"),
        ("BC:D7:A5:72:B3:7B", "MacAddr", "bc:d7:a5:72:b3:7b"),
        ("44:41:42:43:44:45", "", "44:41:42:43:44:45"),
        ("Eth1/1", "IfName", "Eth1/1"),
        ("swp20", "", "swp20"),
        ("12", "LocalAssign", "12"),
        ("", "NotTransmitted", ""),
    ],
)
def test_a_port_in_readable_words(sent: str, subtype: str, meant: str) -> None:
    assert _readable(sent, subtype) == meant


def with_ports(vendor: str = "Contoso") -> Recorded:
    machine = small(vendor)
    machine.edit(f"{V1}/Systems/1", lambda d: d["Links"].update(Chassis=[link("Chassis", "1")]))
    adapter = {
        "Ports": link("Chassis/1/NetworkAdapters/A/Ports"),
        "Controllers": [{"Location": {"PartLocation": {"ServiceLabel": "Slot 3"}}}],
    }
    heard = {"ChassisId": "BC:D7:A5:72:B3:7B", "PortId": "Eth1/7", "SystemName": "leaf-12a"}
    for path, document in {
        "Chassis/1": {"NetworkAdapters": link("Chassis/1/NetworkAdapters")},
        "Chassis/1/NetworkAdapters": collection("Chassis/1/NetworkAdapters", "A"),
        "Chassis/1/NetworkAdapters/A": link("Chassis/1/NetworkAdapters/A") | {"Id": "A"} | adapter,
        "Chassis/1/NetworkAdapters/A/Ports": collection("Chassis/1/NetworkAdapters/A/Ports", "1", "2", "3"),
        "Chassis/1/NetworkAdapters/A/Ports/1": {"PortId": "1", "Ethernet": {"LLDPReceive": heard}},
        "Chassis/1/NetworkAdapters/A/Ports/2": {
            "PortId": "2",
            "Ethernet": {"LLDPReceive": {"ChassisId": "", "PortId": ""}},
        },
        "Chassis/1/NetworkAdapters/A/Ports/3": {"PortId": "3", "Ethernet": {}},
    }.items():
        machine.tree[uris.key(f"{V1}/{path}")] = json.dumps(link(path) | document).encode()
    return machine


def test_the_standards_ports() -> None:
    found = with_ports().walk(CABLING)
    assert {s: v for s, v in found.settings.items() if s.startswith("cabling")} == {
        "cabling.Slot 3 port 1": "leaf-12a Eth1/7"
    }
    assert "cabling" not in found.unknown  # port 2 heard nobody: what is expected there is missing


def test_a_port_that_cannot_be_read_is_unknown_not_unplugged() -> None:
    machine = with_ports()
    machine.faults[uris.key(f"{V1}/Chassis/1/NetworkAdapters/A/Ports/2")] = Reply(403, {}, b"{}")
    found = machine.walk(CABLING)
    assert found.settings["cabling.Slot 3 port 1"] == "leaf-12a Eth1/7"
    why = found.why_unknown("cabling.Slot 3 port 2")
    assert why is not None
    assert why.reason is Reason.not_permitted


def test_the_managers_own_port_that_cannot_be_read_is_unknown_not_unplugged() -> None:
    machine = with_ports("Supermicro")
    machine.edit(
        f"{V1}/Managers/1", lambda d: d.update(Oem={"Supermicro": {"LLDP": link("Managers/1/Oem/Supermicro/LLDP")}})
    )
    machine.faults[uris.key(f"{V1}/Managers/1/Oem/Supermicro/LLDP")] = BmcTimeout("no answer")
    found = machine.walk(CABLING)
    assert found.settings["cabling.Slot 3 port 1"] == "leaf-12a Eth1/7"
    why = found.why_unknown("cabling.BMC")
    assert why is not None
    assert why.reason is Reason.timeout


@pytest.mark.parametrize(("stale", "count"), [("NotStale", 1), ("Stale", 0)])
def test_dells_switch_connections(stale: str, count: int) -> None:
    machine = small("Dell Inc.")
    path = "Systems/1/NetworkPorts/Oem/Dell/DellSwitchConnections"
    machine.edit(
        f"{V1}/Managers/1", lambda d: d.update(Links={"Oem": {"Dell": {"DellSwitchConnectionCollection": link(path)}}})
    )
    machine.tree[uris.key(f"{V1}/{path}")] = json.dumps(collection(path, "NIC.1", "NIC.2")).encode()
    for n, far in (("NIC.1", "swp20"), ("NIC.2", "No Link")):
        document = link(path, n) | {
            "FQDD": n, "StaleData": stale, "SwitchPortConnectionID": far,
            "SwitchConnectionID": "No Link" if far == "No Link" else "B0:4F:13:AB:13:43",
        }  # fmt: skip
        machine.tree[uris.key(f"{V1}/{path}/{n}")] = json.dumps(document).encode()
    found = machine.walk(CABLING)
    told = [v for s, v in found.settings.items() if s.startswith("cabling.")]
    assert told == ["b0:4f:13:ab:13:43 swp20"] * count


def test_a_count_that_is_not_certain_is_not_given() -> None:
    machine = small()
    machine.edit(f"{V1}/Systems/1", lambda d: d.update(Memory=link("Systems/1/Memory")))
    path = f"{V1}/Systems/1/Memory"
    machine.tree[uris.key(path)] = json.dumps(collection("Systems/1/Memory", "A1", "A2", "A3")).encode()
    machine.tree[uris.key(f"{path}/A1")] = json.dumps({"Id": "A1", "CapacityMiB": 32768}).encode()
    machine.tree[uris.key(f"{path}/A2")] = json.dumps({"Id": "A2", "Status": {"State": "Absent"}}).encode()
    machine.tree[uris.key(f"{path}/A3")] = json.dumps({"Id": "A3", "CapacityMiB": 16384}).encode()
    found = machine.walk(HARDWARE)
    assert found.settings["hardware.memory.count"] == 2
    assert found.settings["hardware.memory.sizes"] == (16 << 30, 32 << 30)
    machine.tree[uris.key(f"{path}/A3")] = b'{"Id": "A3", "Capac'
    found = machine.walk(HARDWARE)
    assert "hardware.memory.count" not in found.settings
    assert found.unknown["hardware.memory"].reason is Reason.broken


def test_kinds_of_hardware_that_a_bmc_does_not_list_are_not_modelled() -> None:
    found = small().walk(EVERYTHING)
    assert {s: w.reason for s, w in found.unknown.items() if s.startswith("hardware")} == {
        f"hardware.{kind}": Reason.not_modelled for kind in ("processors", "memory", "disks", "nics", "power_supplies")
    }
