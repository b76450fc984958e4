"""Redfish resources that sushy-tools has not, or has with made-up values: plain dictionaries of a server's make-up."""

from __future__ import annotations

from typing import Any

from metalimmu_emulator.machine import ServerSpec
from metalimmu_emulator.qemu import RESET_TYPES, Override

CPU = "CPU1"
FIRMWARE_VERSION = "1.0"
FIRMWARE = "/redfish/v1/UpdateService/FirmwareInventory"
SESSION_SERVICE = "/redfish/v1/SessionService"


def root(base: dict[str, Any], server: ServerSpec) -> dict[str, Any]:
    return base | {
        "UUID": server.uuid,
        "Vendor": server.manufacturer,
        "Product": server.product,
        "SessionService": {"@odata.id": SESSION_SERVICE},
        "Links": {"Sessions": {"@odata.id": f"{SESSION_SERVICE}/Sessions"}},
    }


def system(base: dict[str, Any], server: ServerSpec, override: Override) -> dict[str, Any]:
    """`base` is sushy-tools' own answer."""
    once = [] if server.persona == "continuous-only" else ["Once"]
    boot = {
        "BootSourceOverrideEnabled": override.enabled,
        "BootSourceOverrideEnabled@Redfish.AllowableValues": ["Disabled", *once, "Continuous"],
        "BootSourceOverrideTarget": override.target,
        "BootSourceOverrideTarget@Redfish.AllowableValues": targets(server),
        "BootSourceOverrideMode": override.mode,
        "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"],
    }
    summary = dict(base.get("MemorySummary", {})) | {"TotalSystemMemoryGiB": server.memory / 1024}
    actions = dict(base["Actions"])
    actions["#ComputerSystem.Reset"] = {
        "target": actions["#ComputerSystem.Reset"]["target"],
        "ResetType@Redfish.AllowableValues": list(RESET_TYPES),
    }
    shown = {k: v for k, v in base.items() if k != "Memory"}  # sushy-tools links it and has it not
    return shown | {
        "SystemType": "Virtual",
        "Manufacturer": server.manufacturer,
        "Model": server.product,
        "SerialNumber": server.serial,
        "UUID": server.uuid,
        "SKU": "lab",
        "BiosVersion": FIRMWARE_VERSION,
        "Boot": boot,
        "MemorySummary": summary,
        "Actions": actions,
    }


def targets(server: ServerSpec) -> list[str]:
    """UEFI HTTP boot needs a DHCP server that speaks of it, which QEMU's own network has not."""
    return ["None", "Pxe", "Cd", "Hdd", *(["UefiHttp"] if server.tap else [])]


def storage_collection(system_path: str) -> dict[str, Any]:
    return _collection(f"{system_path}/Storage", "StorageCollection", [f"{system_path}/Storage/1"])


def storage(server: ServerSpec, system_path: str) -> dict[str, Any]:
    here = f"{system_path}/Storage/1"
    return {
        "@odata.id": here,
        "@odata.type": "#Storage.v1_4_0.Storage",
        "Id": "1",
        "Name": "Disks",
        "Status": {"State": "Enabled", "Health": "OK"},
        "Drives": [{"@odata.id": f"{here}/Drives/{i}"} for i in range(len(server.disks))],
        "Drives@odata.count": len(server.disks),
    }


def drive(server: ServerSpec, system_path: str, number: int) -> dict[str, Any]:
    disk = server.disks[number]
    return {
        "@odata.id": f"{system_path}/Storage/1/Drives/{number}",
        "@odata.type": "#Drive.v1_4_0.Drive",
        "Id": str(number),
        "Name": f"Disk {number}",
        "Manufacturer": "QEMU",
        "Model": f"{disk.bus} disk",
        "SerialNumber": disk.serial,
        "CapacityBytes": disk.size,
        "BlockSizeBytes": 512,
        "MediaType": "SSD",
        "Protocol": {"nvme": "NVMe", "ahci": "SATA", "scsi": "SAS"}.get(disk.bus, "PCIe"),
        "Status": {"State": "Enabled", "Health": "OK"},
    }


def processor(server: ServerSpec, system_path: str) -> dict[str, Any]:
    """sushy-tools gives the numbers as text."""
    return {
        "@odata.id": f"{system_path}/Processors/{CPU}",
        "@odata.type": "#Processor.v1_0_7.Processor",
        "Id": CPU,
        "Name": "Processor",
        "Socket": "CPU 1",
        "ProcessorType": "CPU",
        "ProcessorArchitecture": "x86",
        "InstructionSet": "x86-64",
        "Manufacturer": "QEMU",
        "Model": "host" if server.kvm else "qemu64",
        "TotalCores": 1,
        "TotalThreads": 1,
        "Status": {"State": "Enabled", "Health": "OK"},
    }


def firmware_items(firmware: str) -> dict[str, dict[str, Any]]:
    items = {
        "BIOS": ("BIOS", "SeaBIOS" if firmware == "bios" else "OVMF", FIRMWARE_VERSION),
        "BMC": ("BMC", "metalimmu lab", FIRMWARE_VERSION),
    }
    return {
        key: {
            "@odata.id": f"{FIRMWARE}/{key}",
            "@odata.type": "#SoftwareInventory.v1_2_0.SoftwareInventory",
            "Id": key,
            "Name": name,
            "Description": description,
            "Version": version,
            "Updateable": False,
            "Status": {"State": "Enabled", "Health": "OK"},
        }
        for key, (name, description, version) in items.items()
    }


def firmware_collection(items: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return _collection(FIRMWARE, "SoftwareInventoryCollection", [i["@odata.id"] for i in items.values()])


def session_service(limit_seconds: float) -> dict[str, Any]:
    return {
        "@odata.id": SESSION_SERVICE,
        "@odata.type": "#SessionService.v1_1_0.SessionService",
        "Id": "SessionService",
        "Name": "Session Service",
        "ServiceEnabled": True,
        "SessionTimeout": int(limit_seconds),
        "Sessions": {"@odata.id": f"{SESSION_SERVICE}/Sessions"},
    }


def session_collection(ids: list[str]) -> dict[str, Any]:
    here = f"{SESSION_SERVICE}/Sessions"
    return _collection(here, "SessionCollection", [f"{here}/{i}" for i in ids])


def session(number: str, user: str) -> dict[str, Any]:
    return {
        "@odata.id": f"{SESSION_SERVICE}/Sessions/{number}",
        "@odata.type": "#Session.v1_1_0.Session",
        "Id": number,
        "Name": f"Session {number}",
        "UserName": user,
    }


def _collection(path: str, kind: str, members: list[str]) -> dict[str, Any]:
    return {
        "@odata.id": path,
        "@odata.type": f"#{kind}.{kind}",
        "Name": kind,
        "Members": [{"@odata.id": m} for m in members],
        "Members@odata.count": len(members),
    }
