"""What entries of a BMC's logs mean, whose clock they go by, and how few requests they take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from walked import NOW, V1, Recorded, Target, link, small

from metalimmu.bmc import logs, times, uris
from metalimmu.bmc.ask import Reply, drive
from metalimmu.bmc.document import Doc
from metalimmu.errors import BmcUnreachable
from metalimmu.observed.log_entry import LogEntry
from metalimmu.observed.types import Reason, Unknown

DELL, HPE, LENOVO, SMC, OTHER = "Dell Inc.", "HPE", "Lenovo", "Supermicro", "NVIDIA"


def smc(ident: str, user: str = "ADMIN(ADMIN)") -> dict[str, Any]:
    return {"MessageId": f"Event.1.0.{ident}", "Oem": {"Supermicro": {"User": user}}}


def lenovo(ident: str) -> dict[str, Any]:
    return {"Oem": {"Lenovo": {"CommonEventID": ident}}}


@pytest.mark.parametrize(
    ("vendor", "message", "more", "kind", "account"),
    [
        (DELL, "Successfully logged in using root, from 192.168.248.29 and REDFISH.", {"MessageId": "IDRAC.2.7.USR0030"}, "login", "root"),
        (DELL, "One or more attributes are successfully changed.", {"MessageId": "IDRAC.2.7.UEFI0062", "Oem": {"Dell": {"LastUpdatedByUser": "ops"}}}, "bios-change", "ops"),
        (DELL, "Version change detected for BIOS firmware. Previous version:1.2, Current version:1.3", {"MessageId": "IDRAC.2.7.PR36"}, "firmware-update", ""),
        (DELL, "A CMOS battery loss is detected resulting in an invalid BIOS configuration.", {"MessageId": "IDRAC.2.7.UEFI0034"}, "cmos-clear", ""),
        (DELL, "The iDRAC request to reset BIOS to default settings is successfully completed.", {"MessageId": "IDRAC.2.7.UEFI0157"}, "reset-to-default", ""),
        (DELL, "The System Configuration Lockdown mode is disabled.", {"MessageId": "IDRAC.2.7.RAC804"}, "config-change", ""),
        (DELL, "System CPU Resetting.", {"MessageId": "IDRAC.2.7.SYS1003"}, "other", ""),
        (HPE, "Browser login: ctobmaas - 172.26.82.75(DNS name not found).", {"MessageId": "35.1017"}, "login", "ctobmaas"),
        (HPE, "System One-Time Boot modified by: ctobmaas.", {"MessageId": "35.420"}, "bios-change", "ctobmaas"),
        (HPE, "iLO Network configuration modified by: Administrator.", {"MessageId": "55.19"}, "config-change", "Administrator"),
        (HPE, "TLS Version 1.0 is Disabled by : Administrator", {"MessageId": "55.633"}, "config-change", "Administrator"),
        (HPE, "Firmware flashed (iLO 7 1.13.01)", {"MessageId": "32.2"}, "firmware-update", ""),
        (HPE, "Default configuration settings have been restored per user request. If Secure Boot was enabled, ...", {}, "reset-to-default", ""),
        (HPE, "Scriptable virtual media ejected by: Server_Reboot.", {}, "other", ""),
        (HPE, "Host server reset by: Administrator.", {"MessageId": "35.142"}, "other", "Administrator"),
        (HPE, "IML Cleared (iLO user: Administrator)", {}, "other", "Administrator"),
        (HPE, "iLO detected invalid System ROM firmware.", {}, "other", ""),
        (LENOVO, "Remote Login Successful. Login ID: USERID using WEB from 10.0.0.1 at IP address 10.0.0.1.", lenovo("FQXSPSE4001I"), "login", "USERID"),
        (LENOVO, "The OperatingModes setting has been changed to Custom by user USERID.", lenovo("FQXSPSS4008I"), "bios-change", "USERID"),
        (LENOVO, "Flash of UEFI from 10.0.0.1 succeeded for user ops.", lenovo("FQXSPUP4001I"), "firmware-update", "ops"),
        (LENOVO, "DHCP setting changed to enabled by user ops.", lenovo("FQXSPNM4015I"), "config-change", "ops"),
        (LENOVO, "Management Controller X Reset was caused by restoring default values.", lenovo("FQXSPBR4002I"), "reset-to-default", ""),
        (LENOVO, "Restored default locking behavior of AHCI-attached SATA drives.", lenovo("FQXSFPU4061I"), "other", ""),
        (SMC, "[MEL-0169] Set boot order instance to UEFI Pxe was successful.", smc("BootOrder"), "bios-change", "ADMIN"),
        (SMC, "[MEL-0101] BIOS was updated successfully.", smc("ComponentBiosFwUpdate"), "firmware-update", "ADMIN"),
        (SMC, "[MEL-0183] SysLockdown was configured to enabled successfully.", smc("SysLockdownEnabled", "root(ADMIN)"), "config-change", "root"),
        (SMC, "[MEL-0058] IPMI configuration was restored to default successfully.", smc("FactoryDefaultRestored"), "reset-to-default", "ADMIN"),
        (SMC, "[MEL-0135] The user attempted to access BMC", smc("AttemptConnect", "NoAuth"), "login", ""),
        (OTHER, "Set of BIOS Attributes changed.", {"MessageId": "OpenBMC.0.6.BIOSAttributesChanged"}, "bios-change", ""),
        (OTHER, "BIOS firmware update to version 1 completed successfully.", {"MessageId": "OpenBMC.0.1.FirmwareUpdateCompleted"}, "firmware-update", ""),
        (OTHER, "type=USYS_CONFIG op=PATCH acct=root exe=bmcweb hostname=? addr=10.0.0.1 terminal=? res=success", {"MessageId": "OpenBMC.0.6.AuditLogUsysConfig"}, "config-change", "root"),
        (OTHER, "HGX_GPU_2_Temp_1 sensor crossed a warning low threshold going high.", {"MessageId": "OpenBMC.0.1.SensorThresholdWarningLowGoingHigh"}, "other", ""),
    ],
)  # fmt: skip
def test_what_an_entry_means(vendor: str, message: str, more: dict[str, Any], kind: str, account: str) -> None:
    document = {"Created": "2026-01-01T00:00:00Z", "Message": message} | more
    found = logs.entry(Doc(document, f"{V1}/x"), logs.make(vendor))
    assert found is not None
    assert (found.kind, found.account) == (kind, account)
    assert found.message == message


def test_an_entry_without_a_time_cannot_be_placed() -> None:
    for created in ("0000-00-00T00:00:00Z", "", None, 5):
        assert logs.entry(Doc({"Created": created, "Message": "x"}, ""), logs.make(HPE)) is None


# reading


def with_log(vendor: str, owner: str, log: str, entries: list[dict[str, Any]], **more: Any) -> Recorded:
    machine = small(vendor)
    path = f"{owner}/LogServices/{log}/Entries"
    machine.edit(f"{V1}/{owner}", lambda d: d.update(LogServices=link(owner, "LogServices")))
    collection = link(path) | {"Members": entries, "Members@odata.count": len(entries)} | more
    machine.tree[uris.key(f"{V1}/{path}")] = json.dumps(collection).encode()
    return machine


def entries_at(*ats: float) -> list[dict[str, Any]]:
    return [link(f"E{n}") | {"Created": times.iso(at), "Message": f"entry {n}"} for n, at in enumerate(ats)]


def read(machine: Recorded, since: float, until: float, most: int = 200) -> logs.Found:
    machine.asked.clear()
    found = drive(logs.read(Target(), since, until, most=most), machine.fetch)
    assert isinstance(found, logs.Found)
    return found


def words(found: logs.Found) -> list[str]:
    return [e.message for e in found.entries]


def test_entries_in_the_window_newest_first() -> None:
    machine = with_log(SMC, "Managers/1", "Log1", entries_at(NOW - 500, NOW - 300, NOW - 200, NOW))
    found = read(machine, NOW - 400, NOW - 100)
    assert words(found) == ["entry 2", "entry 1"]
    assert found.complete
    assert found.requests == len(machine.asked)
    limited = read(machine, NOW - 400, NOW - 100, most=1)
    assert words(limited) == ["entry 2"]
    assert not limited.complete


def test_a_wrong_clock_is_corrected() -> None:
    machine = with_log(SMC, "Managers/1", "Log1", entries_at(1000.0))
    machine.edit(f"{V1}/Managers/1", lambda d: d.update(DateTime=times.iso(1500.0)))
    found = read(machine, NOW - 501, NOW - 499)
    assert [e.at for e in found.entries] == [NOW - 500]
    assert found.ahead == 1500.0 - NOW


def test_dells_pages_end_with_the_window() -> None:
    first = entries_at(*(NOW - n for n in range(50)))
    machine = with_log(DELL, "Managers/1", "Lclog", first, **{"Members@odata.nextLink": f"{V1}/next"})
    assert words(read(machine, NOW - 10, NOW)) == [f"entry {n}" for n in range(11)]
    assert f"{V1}/next" not in machine.asked
    machine.tree[uris.key(f"{V1}/next")] = json.dumps(link("next") | {"Members": entries_at(NOW - 60)}).encode()
    assert len(read(machine, NOW - 100, NOW).entries) == 51


def test_of_a_long_log_that_begins_long_ago_the_end_is_read() -> None:
    path = f"{V1}/Managers/1/LogServices/EventLog/Entries"
    more = {"Members@odata.count": 5000, "Members@odata.nextLink": f"{path}?$skip=3"}
    machine = with_log(OTHER, "Managers/1", "EventLog", entries_at(1.0, 2.0, 3.0), **more)
    end = link("x") | {"Members": entries_at(NOW - 2, NOW - 1), "Members@odata.count": 5000}
    machine.tree[uris.key(f"{path}?$skip=4800")] = json.dumps(end).encode()
    found = read(machine, NOW - 10, NOW)
    assert words(found) == ["entry 1", "entry 0"]
    assert f"{path}?$skip=3" not in machine.asked


def test_a_log_of_links_is_read_entry_by_entry_and_not_for_ever() -> None:
    links = [link(f"Managers/1/LogServices/Log1/Entries/{n}") for n in range(60)]
    machine = with_log(SMC, "Managers/1", "Log1", links)
    for n, entry in enumerate(entries_at(*(NOW - 60 + n for n in range(60)))):
        machine.tree[uris.key(links[n]["@odata.id"])] = json.dumps(entry).encode()
    found = read(machine, 0, NOW)
    assert words(found) == [f"entry {n}" for n in range(59, 19, -1)]
    assert not found.complete


def test_a_log_that_may_not_be_read_is_said() -> None:
    machine = with_log(DELL, "Managers/1", "Lclog", [])
    machine.faults[uris.key(f"{V1}/Managers/1/LogServices/Lclog/Entries")] = Reply(403, {}, b"{}")
    found = drive(logs.read(Target(), 0, NOW), machine.fetch)
    assert isinstance(found, Unknown)
    assert found.reason is Reason.not_permitted


def test_of_two_logs_one_is_better_than_none() -> None:
    machine = with_log(SMC, "Managers/1", "Log1", entries_at(NOW))
    machine.edit(f"{V1}/Systems/1", lambda d: d.update(LogServices=link("Systems/1/LogServices")))
    machine.faults[uris.key(f"{V1}/Systems/1/LogServices/Log1/Entries")] = Reply(403, {}, b"{}")
    found = read(machine, 0, NOW)
    assert words(found) == ["entry 0"]
    assert not found.complete


def test_a_machine_without_logs_has_none() -> None:
    assert read(small(), 0, NOW).entries == ()


def test_a_bmc_that_is_away() -> None:
    found = drive(logs.read(Target(), 0, NOW), Recorded({}, faults={"*": BmcUnreachable("no route")}).fetch)
    assert isinstance(found, Unknown)
    assert found.reason is Reason.unreachable


def test_an_entry_names_its_source() -> None:
    [entry] = read(with_log(SMC, "Managers/1", "Log1", entries_at(NOW)), 0, NOW).entries
    assert entry == LogEntry(at=NOW, message="entry 0", uri=f"{V1}/E0")
