"""Names and versions of firmware components, by make."""

from __future__ import annotations

import pytest

from metalimmu.bmc.firmware_rules import agree, sort, version
from metalimmu.bmc.reading import Item
from metalimmu.bmc.snapshot_firmware import sort_out
from metalimmu.observed.types import Component


@pytest.mark.parametrize(
    ("raw", "bare"),
    [
        ("1.8.2", "1.8.2"),
        ("U46 v2.34 (03/11/2025)", "2.34"),
        ("2.34 04/08/2024", "2.34"),
        ("3.11 Feb 25 2025", "3.11"),
        ("1.13.01 May  3 2025", "1.13.01"),
        ("iLO 5 v3.11", "3.11"),
        ("BIOS Date: 08/04/2023 Ver 1.4", "1.4"),
        ("BIOS Date: 08/04/2023 Ver 1.4a", "1.4a"),
        ("22J-1.51", "1.51"),
        ("TGBT42S 2.83 2023-07-05", "2.83"),
        ("P79 v1.45", "1.45"),
        ("v2.0.1", "2.0.1"),
        ("GB200Nvl-24.12-8", "GB200Nvl-24.12-8"),
        ("13.3.0 Build 37", "13.3.0 Build 37"),
        ("0x00 0x0b 0x03 0x04", "0x00 0x0b 0x03 0x04"),
        ("3.50 0x800016DC", "3.50 0x800016DC"),
        ("1.3 0", "1.3 0"),
        ("", ""),
        ("-*", ""),
        ("Not Present", ""),
        ("N/A", ""),
        (" NA ", ""),
    ],
)
def test_the_bare_version(raw: str, bare: str) -> None:
    assert version(raw).bare == bare


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.4", "BIOS Date: 08/04/2023 Ver 1.4", True),
        ("22J-1.51", "U8E122J", True),
        ("U8E122K", "22J-1.51", False),
        ("1.8.2", "1.8.3", False),
        ("U46 v2.34 (03/11/2025)", "U46 v2.34 (03/11/2025)", True),
        ("2.1", "12.10", False),
    ],
)
def test_two_that_say_the_same(one: str, other: str, same: bool) -> None:
    assert agree(one, other) is same


@pytest.mark.parametrize(
    ("vendor", "ident", "name", "description", "context", "key"),
    [
        ("Dell Inc.", "Installed-0-24.40.10.00__NIC.Slot.5-1", "Mellanox - B8:3F:D2:38:16:E5", "", "", "NIC.Slot.5-1"),
        ("Dell Inc.", "Installed-25806-4301A56__Diagnostics.Embedded.1:LC.Embedded.1", "Diagnostics, version 4301, 4301A56", "", "",
         "Diagnostics.Embedded.1:LC.Embedded.1"),
        ("HPE", "6", "Power Supply Firmware", "PowerSupplies", "Bay 1", "Power Supply Firmware Bay 1"),
        ("HPE", "15", "TPM Firmware", "TrustedPlatformModule20", "System Board", "TPM Firmware"),
        ("Lenovo", "Slot_25.1", "Firmware:DEVICE-MV88NR2241", "", "", "MV88NR2241 Slot_25.1"),
        ("Lenovo", "PSU1", "POWER-PSU1", "", "", "POWER-PSU1"),
        ("Lenovo", "Disk1", "Firmware:DISK-Micron_7450", "", "", "Micron_7450 Disk1"),
        ("Supermicro", "NIC1", "NIC1 System Slot1 MCX75310AAS-NEAT", "", "", "NIC1 System Slot1 MCX75310AAS-NEAT"),
        ("Supermicro", "HGX_FW_GPU_SXM_1", "Software Inventory", "", "", "HGX_FW_GPU_SXM_1"),
        ("NVIDIA", "FW_CPLD_0", "Software Inventory", "Other image", "", "FW_CPLD_0"),
        ("Contoso", "4f2a9c01", "Software Inventory", "Power supply image", "", "Power supply image"),
        ("Contoso", "7", "NIC 70:B5:E8:81:46:A6", "", "", "NIC"),
    ],
)  # fmt: skip
def test_a_key_is_the_same_on_a_twin_and_after_an_update(
    vendor: str, ident: str, name: str, description: str, context: str, key: str
) -> None:
    assert sort(vendor, ident, name, description, context).key == key


def items(vendor: str, *rows: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Item]:
    """(id, name, version, state)"""
    found = []
    for ident, name, raw, *state in rows:
        detail = {"state": state[0]} if state else {}
        component = Component(ident, name, uri=f"/redfish/v1/F/{ident}", version=raw, detail=detail)
        found.append(Item(component, sort(vendor, ident, name, "", "")))
    return found


def told(found: list[Item], active: str = "", **says: str) -> dict[str, str]:
    return {i.key: i.version for i in sort_out(found, says, active) if i.running}


def test_dells_rollback_and_stored_images_do_not_run() -> None:
    rows = items(
        "Dell Inc.",
        ("Current-159-1.8.2__BIOS.Setup.1-1", "BIOS", "1.8.2"),
        ("Previous-159-1.2.4__BIOS.Setup.1-1", "BIOS", "1.2.4"),
        ("Installed-159-1.8.2__BIOS.Setup.1-1", "BIOS", "1.8.2"),
        ("Current-1-3.0__RAID.Slot.1-1", "PERC", "3.0"),
    )
    assert told(rows) == {"bios": "1.8.2", "RAID.Slot.1-1": "3.0"}  # kept when it is all that is said of the device
    assert [i.key for i in sort_out(rows, {}) if not i.running] == ["bios", "bios"]


def test_after_an_update_the_key_stays() -> None:
    before = items("Dell Inc.", ("Installed-0-1.0__NIC.Slot.5-1", "NIC", "1.0"))
    after = items("Dell Inc.", ("Installed-0-2.0__NIC.Slot.5-1", "NIC", "2.0"))
    assert told(before) == {"NIC.Slot.5-1": "1.0"}
    assert told(after) == {"NIC.Slot.5-1": "2.0"}


def test_of_two_that_may_be_the_bios_the_one_that_agrees() -> None:
    rows = items("Contoso", ("bios", "BIOS", "1.0"), ("BIOS", "BIOS", "2.0"))
    assert told(rows, bios="2.0") == {"bios": "2.0", "BIOS": "1.0"}
    assert told(rows, bios="3.0") == {"bios": "1.0", "BIOS": "2.0"}


def test_the_bmcs_own_item_is_the_one_that_it_links() -> None:
    rows = items("NVIDIA", ("HGX_FW_BMC_0", "Software Inventory", "1"), ("FW_BMC_1", "Software Inventory", "2"))
    assert told(rows, "/redfish/v1/F/FW_BMC_1/") == {"HGX_FW_BMC_0": "1", "bmc": "2"}


def test_what_cannot_be_told_apart_is_counted() -> None:
    rows = items("HPE", ("14", "Riser", "0.2F"), ("15", "Riser", "0.30"), ("16", "Riser", "9", "StandbySpare"))
    found = sort_out(rows, {})
    assert [(i.key, i.ambiguous, i.running) for i in found] == [
        ("Riser", 2, True),
        ("Riser", 2, True),
        ("Riser", 2, False),
    ]


@pytest.mark.parametrize("state", ["Absent", "StandbySpare", "Disabled"])
def test_a_state_in_which_nothing_runs(state: str) -> None:
    assert told(items("Contoso", ("GPU_0", "GPU", "97.00", state))) == {}
