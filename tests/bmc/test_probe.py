"""What a BMC can do, by what stands there: each question's yes, no and unknown."""

from __future__ import annotations

from typing import Any

import pytest
from redfish_server import ROOT, RedfishServer, link, small_tree, status

from metalimmu.bmc.probe import QUESTIONS, Probe, nothing, probe
from metalimmu.bmc.roles import roles
from metalimmu.desired.makes import makes

SYSTEM, MANAGER = f"{ROOT}/systems/1", f"{ROOT}/managers/bmc"


def asked(tree: dict[str, Any], connect_to: Any, *faults: tuple[str, Any]) -> Probe:
    with RedfishServer(tree) as server:
        for part, act in faults:
            server.fault("GET", part, act)
        with connect_to(server, mode="read-only") as bmc:
            found: Probe = bmc.run(probe)
        assert {m for m, _ in server.requests} <= {"GET", "POST", "DELETE"}
        assert server.writes == []
        assert server.sessions == {}
    assert [a.capability for a in found.answers] == list(QUESTIONS)
    assert all(a.reason for a in found.answers)
    return found


def words(found: Probe) -> dict[str, str]:
    return {a.capability: a.answer for a in found.answers}


def test_a_small_bmc(connect_to: Any) -> None:
    found = asked(small_tree(), connect_to)
    assert (found.make, found.model, found.bmc) == ("contoso", "Server 3000", "TestBMC 1.0")
    said = words(found)
    assert said["virtual_media"] == said["boot_once"] == said["http_boot"] == "yes"
    assert said["firmware_multipart"] == said["firmware_pull"] == said["event_stream"] == said["secure_boot"] == "no"
    assert said["licence"] == "unknown"
    assert found.of("virtual_media").detail == {"slots": 2, "cd": 1, "by": "InsertMedia action"}
    assert found.of("virtual_media").source == f"{ROOT}/Managers/BMC/VirtualMedia/CD1"
    assert found.of("bios_settings").answer == "no"  # no settings object
    assert found.requests < 25


def test_media_by_patch(connect_to: Any) -> None:
    assert asked(small_tree(media="patch"), connect_to).of("virtual_media").detail["by"] == "PATCH"


def test_a_host_that_is_off_does_not_say_its_settings(connect_to: Any) -> None:
    tree = small_tree()
    tree[SYSTEM]["PowerState"] = "Off"
    tree[f"{SYSTEM}/bios"]["Attributes"] = {}
    answer = asked(tree, connect_to).of("bios_settings")
    assert answer.answer == "unknown"
    assert answer.reason.startswith("off")


def test_settings_that_this_account_may_not_write(connect_to: Any) -> None:
    tree = small_tree()
    tree[f"{SYSTEM}/bios"]["@Redfish.Settings"] = {"SettingsObject": link("Systems", "1", "Bios", "Settings")}
    tree[f"{SYSTEM}/bios/settings"] = {"@odata.id": f"{ROOT}/Systems/1/Bios/Settings", "Attributes": {}}
    assert asked(tree, connect_to).of("bios_settings").answer == "yes"
    read_only = ("/Bios/Settings", status(200, {"Allow": "GET, HEAD"}, {"Attributes": {}}))
    answer = asked(tree, connect_to, read_only).of("bios_settings")
    assert answer.answer == "no"
    assert "GET, HEAD" in answer.reason


@pytest.mark.parametrize(
    ("fault", "answer", "reason"),
    [
        (status(403), "unknown", "not permitted"),
        (status(404), "no", "404"),
        (
            status(400, {}, {"error": {"code": "SMC.1.0.OemLicenseNotPassed", "message": "Not licensed"}}),
            "no",
            "licence missing",
        ),
        (
            status(403, {}, {"error": {"code": "iLO.2.14.LicenseKeyRequired", "message": "A license key is required"}}),
            "no",
            "licence missing",
        ),
        (status(200, {}, b"{"), "unknown", "broken"),
        (status(200, {}, {"Members": None}), "unknown", "broken"),
    ],
)
def test_virtual_media_that_cannot_be_read(connect_to: Any, fault: Any, answer: str, reason: str) -> None:
    found = asked(small_tree(), connect_to, ("/VirtualMedia", fault)).of("virtual_media")
    assert found.answer == answer
    assert reason in found.reason


@pytest.mark.parametrize(
    ("vendor", "path", "document", "answer"),
    [
        (
            "Dell Inc.",
            "Oem/Dell/DellLicenses",
            {"Members": [{"LicenseDescription": ["iDRAC9 Enterprise License"]}]},
            "yes",
        ),
        ("Dell Inc.", "Oem/Dell/DellLicenses", {"Members": [{"LicenseDescription": ["iDRAC9 Express License"]}]}, "no"),
        ("Dell Inc.", "Oem/Dell/DellLicenses", {"Members": []}, "no"),
        ("HPE", "LicenseService", {"Members": [{"License": "iLO Standard"}]}, "no"),
        ("HPE", "LicenseService", {"Members": [{"License": "iLO Advanced"}]}, "yes"),
        ("Supermicro", "LicenseManager/QueryLicense", {"Licenses": ['{"LicenseName":"SFT-DCMS-SINGLE"}']}, "yes"),
        ("Supermicro", "LicenseManager/QueryLicense", {"Licenses": []}, "no"),
        ("Supermicro", "LicenseManager/QueryLicense", {"Licenses": 7}, "no"),
        ("Supermicro", "elsewhere", {}, "unknown"),
    ],
)
def test_licences(connect_to: Any, vendor: str, path: str, document: dict[str, Any], answer: str) -> None:
    tree = small_tree()
    tree[SYSTEM]["Manufacturer"] = vendor
    tree[f"{MANAGER}/{path}".lower()] = document
    found = asked(tree, connect_to).of("licence")
    assert found.answer == answer
    assert found.reason


def test_a_bmc_that_lies_about_types_costs_single_questions(connect_to: Any) -> None:
    tree = small_tree()
    tree[SYSTEM].update(Boot=[], Bios="no link", SecureBoot=[1])
    tree[f"{ROOT}/updateservice"]["Actions"] = "none"
    tree[f"{ROOT}/sessionservice"] = {"SessionTimeout": "long", "Sessions": 7}
    found = asked(tree, connect_to)
    assert found.of("virtual_media").answer == "yes"


def test_everything_unknown_has_its_reason() -> None:
    found = nothing("unreachable: no TCP connection")
    assert {a.answer for a in found.answers} == {"unknown"}
    assert {a.reason for a in found.answers} == {"unreachable: no TCP connection"}


def test_registries_are_read_once_for_machines_that_are_alike(connect_to: Any) -> None:
    known: dict[tuple[str, ...], Any] = {}
    registry = f"{ROOT}/Registries/BiosAttributeRegistry.v1_0_0"
    tree = small_tree()
    tree[f"{SYSTEM}/bios"]["AttributeRegistry"] = "BiosAttributeRegistry.v1_0_0"
    tree[f"{ROOT}/registries"] = {"Members": [{"@odata.id": registry}]}
    tree[registry.lower()] = {"Location": [{"Language": "en", "Uri": "/registry.json"}]}
    tree["/registry.json"] = {
        "Id": "BiosAttributeRegistry",
        "RegistryEntries": {"Attributes": [{"AttributeName": "ProcTurbo", "Type": "String"}]},
    }
    asked_for = 0
    for _ in range(3):
        with RedfishServer(tree) as server:
            with connect_to(server, mode="read-only") as bmc:
                found = bmc.run(lambda service, tree_: probe(service, tree_, known))
            asked_for += sum(p == "/registry.json" for _, p in server.requests)
        assert found.of("bios_registry").answer == "yes", found.of("bios_registry")
    assert asked_for == 1


def test_roles_are_there_for_every_make() -> None:
    assert {r.make for r in roles()} >= {*makes(), "ipmi", "other"}
    for role in roles():
        assert all((role.scan, role.probe, role.reimage, role.how, role.sources)), role.make
