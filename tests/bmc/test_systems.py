"""Which of several systems is the host; what two addresses of one thing are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redfish_server import RedfishServer, collection, key, small_tree, system

from metalimmu.bmc import quirks, uris
from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.redfish import RedfishBmc, base_url
from metalimmu.errors import BmcUnsupported, UsageError
from metalimmu.observed.types import PowerState, Unknown
from metalimmu.plan.identity import PLACEHOLDERS

Open = Callable[..., RedfishBmc]


def with_systems(server: RedfishServer, *idents: str) -> None:
    server.tree[key("/redfish/v1/Systems")] = collection("Systems", *idents)
    for ident in idents:
        server.tree[key(f"/redfish/v1/Systems/{ident}")] = system(ident)


def test_the_one_with_bios_and_power_is_the_host(server: RedfishServer, connect_to: Open) -> None:
    with_systems(server, "Board", "Host", "Gone")
    del server.doc("/redfish/v1/Systems/Board")["Bios"]
    del server.tree[key("/redfish/v1/Systems/Gone")]
    bmc = connect_to(server)
    assert bmc.identity().system_id == "Host"
    assert bmc.inventory().systems == ("Board", "Host", "Gone")


def test_two_that_could_be_it_are_named(server: RedfishServer, connect_to: Open) -> None:
    with_systems(server, "NodeA", "NodeB")
    bmc = connect_to(server)
    with pytest.raises(BmcUnsupported, match="NodeA, NodeB") as caught:
        bmc.power_state()
    assert "`system: ID`" in caught.value.hint
    found = bmc.inventory()
    assert isinstance(found.identity, Unknown)
    assert not isinstance(found.bmc, Unknown)  # what does not depend on the system is still read
    assert connect_to(server, system="nodeb").identity().system_id == "NodeB"


def test_a_named_system_that_is_not_there(server: RedfishServer, connect_to: Open) -> None:
    with pytest.raises(BmcUnsupported, match="no system 'Host'; it has 1"):
        connect_to(server, system="Host").power_state()


def test_a_named_system_is_the_only_one_read(server: RedfishServer, connect_to: Open) -> None:
    with_systems(server, "NodeA", "NodeB")
    connect_to(server, system="NodeB").power_state()
    assert ("GET", "/redfish/v1/Systems/NodeA") not in server.requests


def test_a_bmc_without_systems(server: RedfishServer, connect_to: Open) -> None:
    with_systems(server)
    with pytest.raises(BmcUnsupported, match="no system"):
        connect_to(server).power_state()


def test_collections_over_pages_and_in_circles(server: RedfishServer, connect_to: Open) -> None:
    first = server.doc("/redfish/v1/UpdateService/FirmwareInventory")
    second = {"Members": first["Members"][1:] * 2, "Members@odata.nextLink": first["@odata.id"] + "/"}
    server.tree[key("/redfish/v1/UpdateService/FirmwareInventory/page2")] = second
    first["Members"] = [first["Members"][0], {"@odata.id": first["@odata.id"]}]  # and itself as a member
    first["Members@odata.nextLink"] = "/redfish/v1/updateservice/firmwareinventory/Page2"
    found = connect_to(server).inventory().firmware
    assert [c.id for c in found] == ["BIOS", "BMC"]


def test_an_endless_tree_is_read_to_a_limit(server: RedfishServer, connect_to: Open) -> None:
    members = [{"@odata.id": f"/redfish/v1/UpdateService/FirmwareInventory/{i}"} for i in range(4000)]
    server.doc("/redfish/v1/UpdateService/FirmwareInventory")["Members"] = members
    found = connect_to(server).inventory()
    assert found.requests <= 2010
    assert len(found.gaps) == 1000


def test_one_bad_member_is_a_gap(server: RedfishServer, connect_to: Open) -> None:
    server.tree[key("/redfish/v1/UpdateService/FirmwareInventory/BMC")] = b'{"Id": "BM'
    server.doc("/redfish/v1/UpdateService/FirmwareInventory/BIOS")["Version"] = 7
    found = connect_to(server).inventory()
    assert [(c.id, c.version) for c in found.firmware] == [("BIOS", "")]
    assert {g.source.rpartition("/")[2] for g in found.gaps} == {"BMC", "BIOS"}
    assert any("Version: expected text, got int" in g.detail for g in found.gaps)


@pytest.mark.parametrize("serial", ["", "   ", "To be filled by O.E.M.", "Default string", None])
def test_placeholder_serials_are_no_serials(server: RedfishServer, connect_to: Open, serial: str | None) -> None:
    server.doc("/redfish/v1/Systems/1")["SerialNumber"] = serial
    assert connect_to(server).identity().serial == ""


def test_dell_is_known_by_its_service_tag(server: RedfishServer, connect_to: Open) -> None:
    server.doc("/redfish/v1/Systems/1").update(Manufacturer="Dell Inc.", SKU="7XK2P13")
    assert connect_to(server).identity().serial == "7XK2P13"


def test_uris_of_one_resource_are_the_same() -> None:
    same = ["/redfish/v1/Systems/1", "/redfish/v1/systems/1/", "//redfish//v1/Systems/1", "redfish/v1/Systems/1#/Boot"]
    assert all(uris.same(same[0], other) for other in [*same, "https://10.0.0.1/redfish/v1/Systems/1"])
    assert not uris.same(same[0], "/redfish/v1/Systems/10")
    assert uris.path("https://10.0.0.1:8443/redfish/v1//Systems/1/") == "/redfish/v1/Systems/1"
    assert uris.path("/x/y?a=b") == "/x/y?a=b"
    assert uris.path("/") == "/"
    assert uris.last("/redfish/v1/Systems/1/") == "1"


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("redfish+https://10.0.0.1", "https://10.0.0.1"),
        ("redfish+https://10.0.0.1:8443/", "https://10.0.0.1:8443"),
        ("redfish+http://[fd00::1]:80", "http://[fd00::1]:80"),
        ("redfish+https://BMC.example/redfish/v1", "https://bmc.example"),
    ],
)
def test_addresses(address: str, base: str) -> None:
    assert base_url(address) == base


@pytest.mark.parametrize("address", ["redfish+https://", "redfish+https://x:port", "redfish+https://root:pw@10.0.0.1"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(Address(bmc=address))
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "driver"), [("redfish+https", "redfish"), ("redfish-raw+https", "redfish-raw"), ("ipmi", "ipmi")]
)
def test_the_scheme_names_the_driver(scheme: str, driver: str) -> None:
    with connect(Address(bmc=f"{scheme}://10.0.0.1")) as bmc:
        assert bmc.driver == driver


@pytest.mark.parametrize("address", ["10.0.0.1", "https://10.0.0.1", "telnet://10.0.0.1"])
def test_schemes_that_are_none(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a BMC"):
        connect(Address(bmc=address))


def test_every_quirk_says_why_and_where() -> None:
    for entry in quirks.entries():
        assert entry.what
        assert len(entry.because) > 20
        assert entry.seen_on
        assert entry.since
        assert quirks.find(entry.match.vendor.replace("*", ""), "x", "1") != quirks.Quirks()
    assert quirks.find("Contoso", "Server 3000", "1.0") == quirks.Quirks()
    assert all(p == p.lower() for p in PLACEHOLDERS)


def test_a_status_read_imports_no_sushy() -> None:
    import subprocess
    import sys
    from pathlib import Path

    with RedfishServer(small_tree(), login="none") as server:
        program = f"""
import sys
from metalimmu.bmc.connect import Address, connect
assert "requests" not in sys.modules
with connect(Address(bmc={server.address!r})) as bmc:
    bmc.inventory()
assert "sushy" not in sys.modules
"""
        root = str(Path(__file__).parents[2])
        done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": root}, check=False, timeout=60)
    assert done.returncode == 0


def test_power_states_of_the_standard(server: RedfishServer, connect_to: Open) -> None:
    bmc = connect_to(server)
    for word, state in {"PoweringOn": PowerState.powering_on, "Off": PowerState.off, None: PowerState.unknown}.items():
        server.doc("/redfish/v1/Systems/1")["PowerState"] = word
        assert bmc.power_state() is state
