"""Each persona read as a client reads it: trees without a dead link, the oddities of its make, counters that are true."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from fleet_rig import ROOT, Client, client, walk

from metalimmu_emulator.fleet import MAKES, Fleet

SYSTEM = {
    "clean": f"{ROOT}/Systems/1",
    "dell": f"{ROOT}/Systems/System.Embedded.1",
    "hpe": f"{ROOT}/Systems/1",
    "lenovo": f"{ROOT}/Systems/1",
    "supermicro": f"{ROOT}/Systems/1",
    "openbmc": f"{ROOT}/Systems/System_0",
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet([*MAKES, "dell"]) as running:
        yield running


@pytest.fixture(params=range(len(MAKES)), ids=MAKES)
def http(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Client]:
    found = client(fleet, request.param)
    yield found
    found.ask("DELETE", found.session)
    found.close()


def test_every_link_leads_somewhere(http: Client) -> None:
    tree = walk(http)
    assert len(tree) > 80
    for uri, document in tree.items():
        text = json.dumps(document)
        assert "%%" not in text, uri
        if "Members" in document:
            assert document["Members@odata.count"] == len(document["Members"])


def test_has_what_a_scan_reads(http: Client) -> None:
    system = http.read(SYSTEM[http.bmc.make])
    bios = http.read(system["Bios"]["@odata.id"])
    assert 240 < len(bios["Attributes"]) < 420
    inventory = http.read(f"{ROOT}/UpdateService/FirmwareInventory")
    versions = [http.read(m["@odata.id"])["Version"] for m in inventory["Members"]]
    assert len(versions) == len(inventory["Members"]) > 5
    assert system["Boot"]["BootOrder"]
    root = http.read(ROOT + "/")
    assert root["ProtocolFeaturesSupported"]["ExpandQuery"]
    assert http.read(root["AccountService"]["@odata.id"] + "/Accounts")["Members"]


def test_only_the_root_is_read_without_a_login(http: Client) -> None:
    stranger = Client(http.bmc, http.ca)
    assert stranger.get(ROOT + "/").status == 200
    assert stranger.get("/redfish").json == {"v1": "/redfish/v1/"}
    refused = stranger.get(f"{ROOT}/Systems")
    assert refused.status == 401
    assert "Basic" in refused.headers["www-authenticate"]
    stranger.basic()
    assert stranger.get(f"{ROOT}/Systems").status == 200
    stranger.close()


def test_machines_of_one_make_differ_in_identity_alone(fleet: Fleet) -> None:
    one, other = client(fleet, "dell-000002"), client(fleet, "dell-000007")
    first, second = ({u: d for u, d in walk(c).items() if "/Sessions" not in u} for c in (one, other))
    assert set(first) == set(second)
    differing = {uri for uri in first if first[uri] != second[uri]}
    assert SYSTEM["dell"] in differing
    assert len(differing) < 40
    a, b = first[SYSTEM["dell"]], second[SYSTEM["dell"]]
    assert {k for k in a if a[k] != b[k]} == {"SerialNumber", "SKU", "UUID"}
    assert a["SKU"] == fleet["dell-000002"].serial
    for http in (one, other):
        http.ask("DELETE", http.session)
        http.close()


def test_each_make_has_its_etags(http: Client) -> None:
    reply = http.get(SYSTEM[http.bmc.make])
    etag = reply.headers.get("etag", "")
    assert {"dell": etag == "", "hpe": etag.startswith('W/"')}.get(http.bmc.make, etag.startswith('"'))
    if etag:
        assert reply.json.get("@odata.etag", etag) == etag
        again = http.get(SYSTEM[http.bmc.make], If_None_Match=etag)
        assert (again.status, again.body) == (304, b"")


EXPANDED = f"{ROOT}/UpdateService/FirmwareInventory?$expand=.($levels=1)"


def test_expand_is_right_or_wrong_or_absent_as_the_make_does_it(http: Client) -> None:
    collection = f"{ROOT}/UpdateService/FirmwareInventory"
    plain = [http.read(m["@odata.id"]) for m in http.read(collection)["Members"]]
    reply = http.get(EXPANDED)
    if http.bmc.make == "hpe":
        assert (reply.status, reply.message) == (501, "QueryNotSupported")
        return
    expanded = reply.json["Members"]
    if http.bmc.make == "supermicro":
        assert expanded != plain
        assert len(expanded) < reply.json["Members@odata.count"]
    else:
        assert expanded == plain


def test_expand_beyond_what_is_offered_is_refused(http: Client) -> None:
    levels = http.read(ROOT + "/")["ProtocolFeaturesSupported"]["ExpandQuery"].get("MaxLevels")
    if levels:
        reply = http.get(f"{ROOT}/Systems?$expand=.($levels={levels + 1})")
        assert (reply.status, reply.message) == (400, "QueryParameterOutOfRange")


def test_queries_that_are_not_offered_are_refused_and_unknown_ones_ignored(http: Client) -> None:
    assert http.get(f"{ROOT}/Systems?$filter=Id eq '1'".replace(" ", "%20")).status == 501
    assert http.get(f"{ROOT}/Systems?nothing=here").json == http.read(f"{ROOT}/Systems")
    assert set(http.read(f"{SYSTEM[http.bmc.make]}?$select=PowerState")) <= {
        "@odata.id",
        "@odata.type",
        "@odata.context",
        "@odata.etag",
        "PowerState",
    }
    assert http.read(f"{ROOT}/Chassis?only")["@odata.type"].startswith("#Chassis.v1")
    assert len(http.read(f"{ROOT}/AccountService/Roles?$top=2&$skip=1")["Members"]) == 2


def test_slashes_and_letter_case(http: Client) -> None:
    system = SYSTEM[http.bmc.make]
    slashed = http.get(system + "/")
    shouted = http.get(system.upper().replace("/REDFISH/V1", ROOT))
    match http.bmc.make:
        case "supermicro":
            assert (slashed.status, slashed.headers["location"]) == (308, system)
        case "hpe":
            assert http.get(ROOT).headers["location"] == ROOT + "/"
            assert http.get("/redfish/v1/systems/1/bios/").status == 200
            assert shouted.json == slashed.json
        case _:
            assert slashed.json == http.read(system)
    if http.bmc.make != "hpe" and system.upper() != system:
        assert shouted.status == (200 if shouted.body == slashed.body else 404)


def test_large_answers_of_a_dell_are_chunked(fleet: Fleet) -> None:
    http = client(fleet, "dell-000002")
    reply = http.get(f"{ROOT}/Systems/System.Embedded.1/Bios/BiosRegistry")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.headers
    assert len(reply.json["RegistryEntries"]["Attributes"]) > 250
    assert "content-length" in http.get(f"{ROOT}/Systems").headers
    http.close()


def test_pending_looks_as_on_each_make(http: Client) -> None:
    bios = http.read(http.read(SYSTEM[http.bmc.make])["Bios"]["@odata.id"])
    pending = http.read(bios["@Redfish.Settings"]["SettingsObject"]["@odata.id"])
    match http.bmc.make:
        case "hpe" | "lenovo":
            assert pending["Attributes"] == bios["Attributes"]
        case "supermicro":
            assert "Attributes" not in pending
        case _:
            assert pending["Attributes"] == {}


REGISTRIES = {
    "clean": f"{ROOT}/Registries/BiosAttributeRegistry/BiosAttributeRegistry.v1_0_0.json",
    "dell": f"{ROOT}/Systems/System.Embedded.1/Bios/BiosRegistry",
    "hpe": f"{ROOT}/RegistryStore/registries/en/biosattributeregistryu54.v1_2_16/",
    "lenovo": f"{ROOT}/schemas/registries/BiosAttributeRegistry.1.0.0.json",
    "supermicro": "/registries/BiosAttributeRegistry.v2_1_0.json",
    "openbmc": f"{ROOT}/Registries/BiosAttributeRegistry/BiosAttributeRegistry",
}


def test_the_registry_is_where_the_make_has_it(http: Client) -> None:
    bios = http.read(http.read(SYSTEM[http.bmc.make])["Bios"]["@odata.id"])
    registry = http.read(REGISTRIES[http.bmc.make])
    entries = {e["AttributeName"]: e for e in registry["RegistryEntries"]["Attributes"]}
    assert set(entries) == set(bios["Attributes"])
    wrong = [
        n
        for n, v in bios["Attributes"].items()
        if (listed := [c["ValueName"] for c in entries[n].get("Value", [])]) and v not in listed
    ]
    assert bool(wrong) == (http.bmc.make == "supermicro")
    assert (bios.get("AttributeRegistry") is None) == (http.bmc.make == "openbmc")


def test_counters_are_true(fleet: Fleet) -> None:
    bmc = fleet["clean-000001"]
    bmc.clear_counters()
    http = client(fleet, 0)
    for _ in range(3):
        http.read(f"{ROOT}/Systems")
    seen = bmc.counters()
    assert (seen.requests, seen.reads, seen.writes, seen.logins, seen.sessions) == (4, 4, 0, 1, 1)
    assert (seen.connections, seen.most_in_flight) == (1, 1)
    assert 0 < seen.first <= seen.last
    assert http.ask("DELETE", http.session).status == 204
    assert bmc.counters().sessions == 0
    assert http.log_in(password="guessed wrong").status == 401
    assert bmc.counters().refused_logins == 1
    http.log_in()
    http.patch(f"{ROOT}/Systems/1", {"AssetTag": "A-17"})
    assert bmc.counters().writes == 1
    assert bmc.written() == [("PATCH", f"{ROOT}/Systems/1", {"AssetTag": "A-17"})]
    assert fleet.counters().writes >= 1
    http.close()


def test_a_session_limit_is_reached(fleet: Fleet) -> None:
    bmc = fleet["dell-000007"]
    stubborn = Client(bmc, str(fleet.ca))
    made = [stubborn.log_in() for _ in range(9)]
    assert [r.status for r in made] == [201] * 8 + [503]
    assert made[-1].message == "SessionLimitExceeded"
    assert bmc.counters().most_sessions == 8
    sessions = stubborn.read(f"{ROOT}/SessionService/Sessions")["Members"]
    assert len(sessions) == 8
    for session in sessions:
        stubborn.ask("DELETE", session["@odata.id"])
    stubborn.close()


def test_requests_in_flight_are_counted() -> None:
    with Fleet(["clean"], latency=0.2) as slow:
        first, second = (Client(slow[0], str(slow.ca)) for _ in range(2))
        for http in (first, second):
            http.http.request("GET", ROOT + "/")
        begun = time.monotonic()
        for http in (first, second):
            assert http.http.getresponse().read()
            http.close()
        assert time.monotonic() - begun < 0.35
        seen = slow[0].counters()
        assert (seen.most_in_flight, seen.connections, seen.requests) == (2, 2, 2)


def test_what_ports_hear_by_lldp_as_the_make_reports_it(fleet: Fleet) -> None:
    heard = {
        "clean-000001": f"{ROOT}/Chassis/1/NetworkAdapters/NIC2/Ports/1",
        "dell-000002": f"{ROOT}/Systems/System.Embedded.1/NetworkPorts/Oem/Dell/DellSwitchConnections/NIC.Integrated.1-1-1",
        "lenovo-000004": f"{ROOT}/Chassis/1/NetworkAdapters/NIC1/Ports/2",
        "supermicro-000005": f"{ROOT}/Managers/1/Oem/Supermicro/LLDP",
    }
    for name, uri in heard.items():
        assert "Ethernet" in json.dumps(fleet[name].document(uri)).partition("PortId")[2] or name.startswith("dell")
        assert "02:5a:00:00:00" in json.dumps(fleet[name].document(uri))
