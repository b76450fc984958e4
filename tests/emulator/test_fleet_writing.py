"""What writes do: staged settings and jobs, firmware that is pushed, accounts, power; each leaves an entry in the make's log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from emulator_rig import wait_until
from fleet_rig import ROOT, Client, client

from metalimmu_emulator.fleet import MAKES, Fleet
from metalimmu_emulator.fleet.updates import image

TURBO = {
    "clean": ("Turbo", "Disabled"),
    "dell": ("ProcVirtualization", "Disabled"),
    "hpe": ("ProcHyperthreading", "Disabled"),
    "lenovo": ("Processors_HyperThreading", "Disabled"),
    "supermicro": ("Hyper_Threading_ALL__3B00", "Disable"),
    "openbmc": ("EmbeddedUefiShell", "Disabled"),
}


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet([*MAKES], task_seconds=0.05) as running:
        yield running


@pytest.fixture(params=range(len(MAKES)), ids=MAKES)
def http(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Client]:
    found = client(fleet, request.param)
    yield found
    found.close()


def system(http: Client) -> tuple[str, dict[str, Any]]:
    for member in http.read(f"{ROOT}/Systems")["Members"]:
        document = http.read(member["@odata.id"])
        if "Bios" in document:
            return member["@odata.id"], document
    raise AssertionError("no system")


def bios(http: Client) -> dict[str, Any]:
    return dict(http.read(system(http)[1]["Bios"]["@odata.id"])["Attributes"])


def settings(http: Client) -> str:
    document = http.read(system(http)[1]["Bios"]["@odata.id"])
    return str(document["@Redfish.Settings"]["SettingsObject"]["@odata.id"])


def restart(http: Client) -> None:
    uri = system(http)[0]
    assert http.post(f"{uri}/Actions/ComputerSystem.Reset", {"ResetType": "ForceRestart"}).status in (200, 204)


def told(http: Client, *words: str) -> dict[str, Any]:
    """The newest log entry that has all these words in it."""
    for entry in reversed(http.bmc.log_entries()):
        if all(w in json.dumps(entry) for w in words):
            return dict(entry)
    raise AssertionError((words, http.bmc.log_entries()[-3:]))


def test_a_bios_setting_is_staged_then_applied_by_the_reset(http: Client) -> None:
    name, value = TURBO[http.bmc.make]
    before = bios(http)
    assert before[name] != value
    body: dict[str, Any] = {"Attributes": {name: value}}
    if http.bmc.make == "dell":
        body["@Redfish.SettingsApplyTime"] = {"ApplyTime": "OnReset"}
    reply = http.patch(settings(http), body)
    assert reply.status in (200, 202, 204), reply
    assert http.read(settings(http))["Attributes"][name] == value
    assert http.bmc.bios()[name] == before[name]
    # A Dell shows the pending value as the current one as soon as the job is there.
    assert (bios(http)[name] == value) == (http.bmc.make == "dell")
    restart(http)
    assert bios(http) == before | {name: value} == http.bmc.bios()
    assert http.bmc.pending() == {}
    idle = http.read(settings(http)).get("Attributes")
    assert idle == (bios(http) if http.bmc.make in ("hpe", "lenovo") else None if http.bmc.make == "supermicro" else {})
    entry = told(http, name)
    assert (http.bmc.username in json.dumps(entry)) == (http.bmc.make != "openbmc")


def test_a_dell_without_a_job_waits_for_ever(fleet: Fleet) -> None:
    http = client(fleet, "dell-000002")
    name, value = TURBO["dell"]
    assert http.patch(settings(http), {"Attributes": {name: value}}).status == 200
    restart(http)
    assert http.bmc.bios()[name] != value
    assert http.read(settings(http))["Attributes"] == {name: value}
    jobs = f"{ROOT}/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs"
    assert http.read(jobs)["Members"] == []
    made = http.post(jobs, {"TargetSettingsURI": settings(http)})
    job = made.headers["location"]
    assert http.read(job)["JobState"] == "Scheduled"
    ident = job.rpartition("/")[2]
    assert http.read(f"{ROOT}/JobService/Jobs/{ident}")["JobState"] == "Scheduled"
    restart(http)
    assert http.read(job)["JobState"] == "Completed"
    assert http.bmc.bios()[name] == value
    http.close()


def test_wrong_settings_are_refused(http: Client) -> None:
    name, _ = TURBO[http.bmc.make]
    assert http.patch(settings(http), {"Attributes": {"NoSuchThing": 1}}).message == "PropertyUnknown"
    assert http.patch(settings(http), {"Attributes": {name: 17}}).message == "PropertyValueTypeError"
    if http.bmc.make != "supermicro":  # its registry does not know its own values
        assert http.patch(settings(http), {"Attributes": {name: "Purple"}}).message == "PropertyValueNotInList"
    assert http.patch(settings(http), {}).status == 400
    assert http.bmc.pending() == {}


def test_supermicro_wants_the_current_etag(fleet: Fleet) -> None:
    http = client(fleet, "supermicro-000005")
    body = {"Attributes": {TURBO["supermicro"][0]: "Disable"}}
    assert http.ask("PATCH", settings(http), body).status == 428
    assert http.ask("PATCH", settings(http), body, If_Match='"0badc0de"').status == 412
    assert http.patch(settings(http), body).status == 200
    http.close()


def push(http: Client, component: str, version: str) -> str:
    """The URI of the task."""
    service = http.read(f"{ROOT}/UpdateService")
    content = image(component, version)
    if "MultipartHttpPushUri" in service:
        body = (
            b'--b\r\nContent-Disposition: form-data; name="UpdateParameters"\r\nContent-Type: application/json\r\n\r\n{"Targets": []}\r\n'
            b'--b\r\nContent-Disposition: form-data; name="UpdateFile"; filename="fw.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--b--\r\n"
        )
        reply = http.ask("POST", service["MultipartHttpPushUri"], body, Content_Type="multipart/form-data; boundary=b")
    else:
        reply = http.ask("POST", service["HttpPushUri"], content, Content_Type="application/octet-stream")
    assert reply.status == 202, reply
    return reply.headers["location"]


def versions(http: Client) -> list[str | None]:
    found = [http.read(m["@odata.id"]) for m in http.read(f"{ROOT}/UpdateService/FirmwareInventory")["Members"]]
    return [f["Version"] for f in found if not f["Id"].startswith("Previous-")]


def test_firmware_that_is_pushed_is_there_after_task_and_reset(http: Client) -> None:
    task = push(http, "bios", "9.9.9")
    wait_until(lambda: http.read(task)["TaskState"] == "Pending", 5, "the task waits for the reset")
    assert not any("9.9.9" in str(v) for v in versions(http))
    restart(http)
    assert http.read(task)["TaskState"] == "Completed"
    shown = [v for v in versions(http) if "9.9.9" in str(v)]
    assert shown
    assert "9.9.9" in system(http)[1].get("BiosVersion", "not said: 9.9.9")
    assert told(http, "updated to 9.9.9")


def test_firmware_of_a_dell_moves_to_another_id(fleet: Fleet) -> None:
    http = client(fleet, "dell-000002")
    push(http, "bios", "2.2.0")
    wait_until(lambda: http.bmc.counters() and http.read(f"{ROOT}/TaskService/Tasks")["Members"], 5, "task")
    time.sleep(0.06)
    restart(http)
    ids = {m["@odata.id"].rpartition("/")[2] for m in http.read(f"{ROOT}/UpdateService/FirmwareInventory")["Members"]}
    assert {i for i in ids if i.endswith("__BIOS.Setup.1-1")} == {
        "Installed-159-2.2.0__BIOS.Setup.1-1",
        "Previous-159-2.1.5__BIOS.Setup.1-1",
    }
    http.close()


def test_an_update_of_the_bmc_ends_its_sessions(fleet: Fleet) -> None:
    http = client(fleet, "lenovo-000004")
    push(http, "bmc", "4.00")
    time.sleep(0.06)
    wait_until(lambda: http.get(f"{ROOT}/Systems").status == 401, 5, "the session is gone")
    http.log_in()
    assert http.read(f"{ROOT}/UpdateService/FirmwareInventory/BMC-Primary")["Version"] == "4.00"
    http.close()


def test_supermicro_renames_attributes_with_its_bios(fleet: Fleet) -> None:
    http = client(fleet, "supermicro-000005")
    before = bios(http)
    push(http, "bios", "1.5")
    time.sleep(0.06)
    http.read(f"{ROOT}/Systems")
    restart(http)
    after = bios(http)
    assert len(after) == len(before)
    assert 0.5 < len(set(after) - set(before)) / len(after) < 0.8
    assert [n.rpartition("_")[0] for n in sorted(before)] == [n.rpartition("_")[0] for n in sorted(after)]
    registry = http.read("/registries/BiosAttributeRegistry.v2_1_0.json")["RegistryEntries"]["Attributes"]
    assert {e["AttributeName"] for e in registry} == set(after)
    assert http.read(f"{ROOT}/UpdateService/FirmwareInventory/BIOS")["Version"] == "BIOS Date: 02/04/2026 Ver 1.5"
    assert http.read(f"{ROOT}/UpdateService/FirmwareInventory/Golden_BIOS")["Version"].endswith("1.3")
    http.bmc.cmos_clear()
    assert bios(http) == after
    http.close()


def test_accounts_are_made_used_and_deleted(http: Client) -> None:
    where = f"{ROOT}/AccountService/Accounts"
    jane = {"UserName": "jane", "Password": "long enough 1", "RoleId": "Operator"}
    if http.bmc.make == "dell":
        assert http.post(where, jane).status == 405
        slot = f"{where}/5"
        assert http.patch(slot, jane | {"Enabled": True}).status == 200
    else:
        made = http.post(where, jane)
        assert made.status == 201, made
        slot = made.headers["location"]
        assert http.post(where, jane).message == "ResourceAlreadyExists"
    assert http.read(slot)["UserName"] == "jane"
    assert told(http, "jane", "created")
    as_jane = Client(http.bmc, http.ca)
    assert as_jane.log_in("jane", "long enough 1").status == 201
    assert as_jane.get(slot).status == 200
    if http.bmc.make == "dell":
        assert http.patch(slot, {"UserName": "", "Enabled": False}).status == 200
    else:
        assert http.ask("DELETE", slot).status == 204
        assert as_jane.get(f"{ROOT}/Systems").status == 401
    assert as_jane.log_in("jane", "long enough 1").status in (400, 401)
    assert told(http, "jane", "deleted")
    as_jane.close()


def test_a_monitor_may_not_write(fleet: Fleet) -> None:
    http = Client(fleet[0], str(fleet.ca))
    assert http.log_in("monitor", "look but do not touch").status == 201
    assert http.read(f"{ROOT}/Systems/1")["PowerState"] == "On"
    reply = http.patch(f"{ROOT}/Systems/1", {"AssetTag": "mine"})
    assert (reply.status, reply.message) == (403, "InsufficientPrivilege")
    http.close()


def test_power_and_the_attributes_of_a_host_that_is_off(http: Client) -> None:
    uri, _ = system(http)
    reset = f"{uri}/Actions/ComputerSystem.Reset"
    assert http.post(reset, {"ResetType": "Levitate"}).status == 400
    assert http.post(reset, {"ResetType": "ForceOff"}).status in (200, 204)
    assert system(http)[1]["PowerState"] == "Off"
    assert (bios(http) == {}) == (http.bmc.make in ("supermicro", "openbmc"))
    assert http.post(reset, {"ResetType": "On"}).status in (200, 204)
    assert len(bios(http)) > 240


def test_a_boot_override_is_used_up_by_one_boot(http: Client) -> None:
    uri, document = system(http)
    where = document.get("@Redfish.Settings", {}).get("SettingsObject", {}).get("@odata.id", uri)
    boot = {"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}}
    if where != uri:
        assert http.patch(uri, boot).status == 400
    assert http.patch(where, boot).status in (200, 204)
    assert system(http)[1]["Boot"]["BootSourceOverrideEnabled"] == "Once"
    wrong = {"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Tape"}}
    assert http.patch(where, wrong).message == "PropertyValueNotInList"
    restart(http)
    assert system(http)[1]["Boot"]["BootSourceOverrideEnabled"] == "Disabled"


def test_virtual_media_as_the_make_does_it(http: Client) -> None:
    owner = http.read(http.read(f"{ROOT}/Managers")["Members"][0]["@odata.id"])
    slots = [http.read(m["@odata.id"]) for m in http.read(owner["VirtualMedia"]["@odata.id"])["Members"]]
    slot = next(s for s in slots if "CD" in s["MediaTypes"])
    url = "http://10.0.0.5/boot.iso"
    if http.bmc.make == "lenovo":
        assert "Actions" not in slot
        assert http.patch(slot["@odata.id"], {"Image": url, "Inserted": True}).status == 204
    else:
        assert http.post(slot["Actions"]["#VirtualMedia.InsertMedia"]["target"], {"Image": url}).status in (200, 204)
    assert http.read(slot["@odata.id"])["Image"] == url


def test_what_may_not_be_written_says_so(http: Client) -> None:
    uri, _ = system(http)
    assert http.patch(uri, {"SerialNumber": "mine"}).status == 400
    assert http.patch(uri, {"NoSuchThing": 1}).status == 400
    refused = http.ask("PATCH", f"{ROOT}/UpdateService/FirmwareInventory", {"Name": "x"}, If_Match="*")
    assert refused.status == 405
    assert "GET" in refused.headers["allow"]
    assert http.ask("POST", f"{ROOT}/NoSuchThing", {}).status == 404
    assert http.ask("POST", f"{ROOT}/AccountService/Accounts", b"{", Content_Type="application/json").status == 400
    assert http.ask("PUT", uri, {}).status == 405


def test_the_clock_is_set_by_patch(fleet: Fleet) -> None:
    http = client(fleet, 0)
    uri = f"{ROOT}/Managers/BMC"
    assert http.patch(uri, {"DateTime": "2031-01-01T00:00:00Z"}).status == 200
    assert http.read(uri)["DateTime"].startswith("2031-01-01T00:0")
    assert "2031" in http.get(uri).headers["date"]
    http.close()
