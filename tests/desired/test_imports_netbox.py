"""NetBox's devices as host documents: the API's answers of several versions, and exports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metalimmu.desired.imports_netbox import devices, imported, management, without_address
from metalimmu.errors import UsageError


def device(ident: int, **more: Any) -> dict[str, Any]:
    """As NetBox 4 answers it, shortened."""
    return {
        "id": ident,
        "url": f"https://netbox/api/dcim/devices/{ident}/",
        "name": f"r12-u0{ident}",
        "device_type": {
            "id": 3,
            "manufacturer": {"id": 1, "name": "Dell Inc.", "slug": "dell"},
            "model": "PowerEdge R750",
        },
        "role": {"id": 2, "name": "Compute Server", "slug": "compute-server"},
        "serial": f"7XK2P1{ident}",
        "asset_tag": None,
        "site": {"id": 1, "name": "AMS1", "slug": "ams1"},
        "location": {"id": 4, "name": "Room 2", "slug": "room-2"},
        "rack": {"id": 5, "name": "r12"},
        "position": 7.0,
        "status": {"value": "active", "label": "Active"},
        "primary_ip4": {"address": "10.1.0.9/24"},
        "oob_ip": {"id": 9, "family": {"value": 4}, "address": f"10.12.0.{ident}/24"},
        "tags": [{"id": 1, "name": "GPU node", "slug": "gpu-node"}, {"id": 2, "name": "prod", "slug": "prod"}],
    } | more


def test_a_device_of_netbox_4() -> None:
    (candidate,) = imported([device(7)]).candidates
    assert candidate.fields == {
        "name": "r12-u07",
        "bmc": "redfish+https://10.12.0.7",
        "vendor": "dell",
        "model": "PowerEdge R750",
        "serial": "7XK2P17",
        "location": {"site": "AMS1", "room": "Room 2", "rack": "r12", "u": 7},
        "labels": {"gpu-node": "true", "prod": "true", "device_role": "compute-server", "site": "ams1"},
    }
    assert candidate.origin == "NetBox device 7"


def test_the_primary_address_is_never_taken_for_the_bmcs() -> None:
    result = imported([device(1, oob_ip=None)])
    assert result.candidates == []
    assert result.left_out == ["r12-u01: no oob_ip, and no address on an interface with mgmt_only"]


def test_before_36_the_management_interface_has_it() -> None:
    old = device(1)
    del old["oob_ip"]
    old["device_role"] = old.pop("role")
    assert without_address([old, device(2)]) == [1]
    interfaces = [
        {"id": 11, "name": "idrac", "mgmt_only": True, "device": {"id": 1}},
        {"id": 12, "name": "xmgmt", "mgmt_only": True, "device": {"id": 1}},
        {"id": 13, "name": "eth0", "mgmt_only": False, "device": {"id": 1}},
    ]
    addresses = [
        {"address": "10.9.9.9/24", "assigned_object_type": "dcim.interface", "assigned_object_id": 13},
        {"address": "10.9.9.8/24", "assigned_object_type": "dcim.interface", "assigned_object_id": 12},
        {"address": "10.9.9.7/24", "assigned_object_type": "dcim.interface", "assigned_object_id": 11},
        {"address": "10.9.9.6/24", "assigned_object_type": "virtualization.vminterface", "assigned_object_id": 11},
        {"address": None, "assigned_object_type": "dcim.interface", "assigned_object_id": 11},
    ]
    managed = management(interfaces, addresses)
    assert managed == {1: "10.9.9.7/24"}
    (candidate,) = imported([old], managed).candidates
    assert candidate.fields["bmc"] == "redfish+https://10.9.9.7"
    assert candidate.fields["labels"]["device_role"] == "compute-server"


def test_json_exports() -> None:
    listed = [device(1), device(2)]
    for text in (json.dumps({"count": 2, "next": None, "results": listed}), json.dumps(listed)):
        assert len(imported(devices(text)).candidates) == 2


def test_csv_exports() -> None:
    """Of `All Data` and of the table view."""
    text = (
        "\ufeffID,Name,Status,Manufacturer,Type,Role,Site,Location,Rack,Position,Serial number,OOB IP,Tags\n"
        '7,R12-U07,Active,Dell,PowerEdge R750,Compute Server,AMS1,Room 2,r12,7.0,7XK2P13,10.12.0.7/24,"GPU node,prod"\n'
        "8,r12-u08,Active,Dell,PowerEdge R750,Compute Server,AMS1,,r12,7.5,,,\n"
    )
    result = imported(devices(text))
    (candidate,) = result.candidates
    assert candidate.fields["name"] == "r12-u07"
    assert candidate.fields["location"] == {"site": "AMS1", "room": "Room 2", "rack": "r12", "u": 7}
    assert candidate.fields["labels"] == {
        "GPU-node": "true",
        "prod": "true",
        "device_role": "Compute-Server",
        "site": "AMS1",
    }
    assert candidate.fields["vendor"] == "dell"
    assert result.left_out[0].startswith("r12-u08")


@pytest.mark.parametrize(
    ("only", "count"),
    [
        ({"site": "ams1"}, 2),
        ({"site": "AMS1", "role": "compute-server"}, 2),
        ({"tag": "prod"}, 2),
        ({"status": "active", "manufacturer": "dell"}, 2),
        ({"site": "fra1"}, 0),
        ({"tag": "none"}, 0),
    ],
)
def test_only_those(only: dict[str, str], count: int) -> None:
    assert len(imported([device(1), device(2)], only=only).candidates) == count


def test_odd_devices_do_not_lose_the_others() -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"id": "x", "name": None, "oob_ip": 7, "tags": None, "device_type": "text", "position": "high"},
        {
            "id": 3,
            "name": "a\x1b[31mb",
            "oob_ip": {"address": "10.0.0.3/24"},
            "serial": ["x"],
            "site": 7,
            "tags": [None, {}],
        },
        {"id": 4, "name": "bad", "oob_ip": {"address": "not an address"}},
        device(5, position=7.5, name="Ü 5", rack=None),
    ]
    result = imported(odd)
    assert len(result.candidates) == 2
    assert len(result.left_out) == 3
    assert result.candidates[0].fields["name"] == "a-31mb"
    assert result.candidates[1].fields["name"] == "5"
    assert "u" not in result.candidates[1].fields["location"]
    assert all(line.isprintable() for line in result.left_out)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"results": 7}', "a,b\n1,2\n", '"text"'])
def test_what_is_no_export(text: str) -> None:
    with pytest.raises(UsageError):
        devices(text)
