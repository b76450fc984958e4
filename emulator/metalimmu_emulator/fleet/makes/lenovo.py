"""As a ThinkSystem with XCC answers (seen: recording lenovo-sr670v2-xcc, XCC 2.83).

Strong ETags. Ten slots of virtual media without actions: media go in by PATCH. The settings object is `Pending` and mirrors
everything. The registry file's key has no `v`. Names of attributes carry a NIC's MAC. PATCH answers 204.
"""

from __future__ import annotations

from metalimmu_emulator.fleet.makes import attributes, hardware, services
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link, links, ok
from metalimmu_emulator.fleet.makes.hardware import Hardware
from metalimmu_emulator.fleet.template import Happened, Places, Template, Traits

SYSTEM, MANAGER, CHASSIS = below(ROOT, "Systems", "1"), below(ROOT, "Managers", "1"), below(ROOT, "Chassis", "1")
INVENTORY = below(ROOT, "UpdateService", "FirmwareInventory")
REGISTRY = below(ROOT, "schemas", "registries", "BiosAttributeRegistry.1.0.0.json")
HARDWARE = Hardware(
    "Lenovo", "ThinkSystem SR650 V3", "2.14", sku="7D76CTO1WW", disk_model="MZ7L3960HCJR-00B7C", watts=1100, cores=32,
    cpu="Intel(R) Xeon(R) Gold 6430",
    names={"cpu": "{n}", "dimm": "{n}", "disk": "Disk.{x}", "nic": "NIC{n}", "psu": "PSU{n}", "controller": "RAID_Slot3"},
)  # fmt: skip
ITEMS: dict[str, tuple[str, str, str]] = {  # id -> Name, Version, State
    "BMC-Primary": ("Firmware:BMC", "ESX3-3.10", "Enabled"),
    "BMC-Backup": ("Firmware:BMC", "ESX3-2.90", "StandbySpare"),
    "BMC-Primary-Pending": ("Firmware:BMC-Pending", "", "Absent"),
    "UEFI": ("Firmware:UEFI", "ESE1-2.14", "Enabled"),
    "UEFI-Pending": ("Firmware:UEFI-Pending", "", "Absent"),
    "LXPM": ("Software:LXPM", "XWL1-4.10", "Enabled"),
    "LXPMLinuxDriver": ("Software:LXPMLinuxDriver", "XWL2-4.10", "Enabled"),
    "Slot_3.1": ("Firmware:RAID", "52.24.0-4918", "Enabled"),
    "Slot_4.1": ("Firmware:NIC", "26.36.1010", "Enabled"),
    "Slot_4.Bundle": ("Firmware:NIC", "26.36.1010", "Enabled"),
    "Slot_5.1": ("Firmware:NIC", "21.80.9", "Enabled"),
    "Disk1": ("Firmware:DRIVE", "HXT7404Q", "Enabled"),
    "Disk2": ("Firmware:DRIVE", "HXT7404Q", "Enabled"),
    "PSU1": ("Firmware:PSU", "8.65", "Enabled"),
    "PSU2": ("Firmware:PSU", "8.65", "Enabled"),
    "FPGA": ("Firmware:FPGA", "3.1.0", "Enabled"),
}


def build() -> Template:
    b = Builder("lenovo", context=True, etag=True)
    found = attributes.load("lenovo")
    services.root(b, "ServiceRoot.v1_15_0", "1.15.0", levels=2, Vendor="Lenovo", Product="Lenovo XClarity Controller")
    b.documents[ROOT]["@odata.id"] = f"{ROOT}/"
    services.sessions(b)
    _licences(b)
    services.accounts(b, {"1": ("%%USER%%", "Administrator"), "2": ("monitor", "ReadOnly")})
    services.events(b)
    services.task_service(b)
    related = {"BMC": [link(MANAGER)], "UEFI": [link(below(SYSTEM, "Bios"))]}
    items: dict[str, Doc] = {
        ident: {
            "Name": name, "Version": version or None, "SoftwareId": name.partition(":")[2], "Manufacturer": "Lenovo",
            "Status": {"State": state, "Health": "OK"}, "RelatedItem": related.get(ident.partition("-")[0], []),
        }
        for ident, (name, version, state) in ITEMS.items()
    }  # fmt: skip
    services.update_service(b, items, push="/fwupdate", multipart="/mfwupdate")
    services.registries(b, {"BiosAttributeRegistry.1.0.0": ("BiosAttributeRegistry.1.0.0", REGISTRY)})
    system = {"model": HARDWARE.model, "firmware": HARDWARE.bios, "owner": "Lenovo"}
    b.documents[REGISTRY] = attributes.registry(found, "BiosAttributeRegistry.1.0.0", "1.0.0", system=system)
    hardware.chassis(b, CHASSIS, HARDWARE, system_uri=SYSTEM, manager=MANAGER)
    hardware.network_adapters(b, CHASSIS, HARDWARE, cards=1, lldp=True)
    b.collect(below(ROOT, "Chassis"), "Chassis", "Chassis Collection", [CHASSIS])
    bios = services.bios(
        b, SYSTEM, found.values, registry="BiosAttributeRegistry.1.0.0", settings="Pending", shown=found.values, support=["OnReset"],
        Links={"ActiveSoftwareImage": link(below(INVENTORY, "UEFI")), "SoftwareImages": [link(below(INVENTORY, "UEFI"))]},
    )  # fmt: skip
    hardware.system(
        b, SYSTEM, HARDWARE, kind="ComputerSystem.v1_18_0", manager=MANAGER, chassis=CHASSIS, Bios=link(bios)
    )
    boot = b.documents[SYSTEM]["Boot"]
    boot["BootSourceOverrideEnabled@Redfish.AllowableValues"] = ["Once", "Disabled"]
    b.collect(below(ROOT, "Systems"), "ComputerSystem", "ComputerSystemCollection", [SYSTEM])
    logs = _manager(b)
    return b.build(
        traits=Traits(expand_levels=2, pending="mirror", patch_status=204, patch_media=True, session_limit=16, chunked_over=60000),
        places=Places(
            system=SYSTEM, bios=bios, settings=below(bios, "Pending"), registry=REGISTRY, manager=MANAGER, firmware=INVENTORY,
            update=below(ROOT, "UpdateService"), accounts=below(ROOT, "AccountService", "Accounts"),
            tasks=below(ROOT, "TaskService", "Tasks"), log=logs[0], logs=logs, chassis=CHASSIS,
            protocol=below(MANAGER, "NetworkProtocol"),
        ),
        log_entry=log_entry,
        defaults=found.values,
        passwords=services.PASSWORDS,
        firmware={"bmc": ("BMC-Primary",), "bios": ("UEFI",), "nic": ("Slot_4.1",), "raid": ("Slot_3.1",), "psu": ("PSU1", "PSU2")},
    )  # fmt: skip


def log_entry(happened: Happened) -> Doc:
    """An entry of the audit log: user and address are in the text."""
    text = f"{happened.text.rstrip('.')} by user {happened.user} from 10.0.0.99." if happened.user else happened.text
    oem = {
        "@odata.type": "#LenovoLogEntry.v1_0_0.AuditLogEntry",
        "CommonEventID": "FQXSPSE4001I",
        "Source": happened.user or "System",
    }
    return {
        "@odata.type": "#LogEntry.v1_11_0.LogEntry",
        "@odata.context": "/redfish/v1/$metadata#LogEntry.LogEntry",
        "Id": str(happened.number),
        "Name": "LogEntry",
        "EntryType": "Oem",
        "OemRecordFormat": "Lenovo",
        "Severity": "OK",
        "Created": happened.at.replace("Z", ".000+00:00"),
        "Message": text,
        "MessageArgs": [],
        "EventId": f"0x{happened.number:016X}",
        "Oem": {"Lenovo": oem},
    }


def _licences(b: Builder) -> None:
    where = below(ROOT, "LicenseService")
    names = {
        "XCC_Enterprised": ("Enterprise", "Installed"),
        "XCC_Advanced": ("Advanced", "BuiltIn"),
    }  # its own spelling
    found = [
        b.add(
            below(where, "Licenses", ident), "License.v1_0_0", f"Lenovo XClarity Controller {tier} Upgrade", Manufacturer="Lenovo",
            LicenseType="Production", LicenseOrigin=origin, AuthorizationScope="Service", Removable=origin == "Installed",
            Status=ok(),
        )
        for ident, (tier, origin) in names.items()
    ]  # fmt: skip
    b.collect(below(where, "Licenses"), "License", "LicenseCollection", found)
    b.add(
        where, "LicenseService.v1_0_0", "License Service", ServiceEnabled=True, LicenseExpirationWarningDays=0,
        Licenses=link(below(where, "Licenses")),
    )  # fmt: skip
    b.change(ROOT, LicenseService=link(where))
    entry = {"name": "LicenseService", "kind": "Singleton", "url": where}
    b.documents[below(ROOT, "odata")]["value"].append(entry)


def _manager(b: Builder) -> tuple[str, ...]:
    logs = below(SYSTEM, "LogServices")
    entries = [
        log_entry(Happened(n, f"2026-10-0{n}T08:00:00Z", "power", f"The server was powered on ({n}).", ""))
        for n in (1, 2, 3)
    ]
    audit = services.log(b, below(logs, "AuditLog"), "AuditLog", entries)
    platform = services.log(b, below(logs, "PlatformLog"), "PlatformLog", [])
    b.collect(logs, "LogService", "LogServiceCollection", [below(logs, "AuditLog"), below(logs, "PlatformLog")])
    b.change(SYSTEM, LogServices=link(logs))
    services.network_protocol(b, MANAGER, FQDN="%%NAME%%", KVMIP={"ProtocolEnabled": True, "Port": 3900})
    services.manager_interface(b, MANAGER, "NIC")
    remote = {f"EXT{n}": ["CD", "USBStick"] for n in (1, 2, 3, 4)}
    slots = remote | {f"RDOC{n}": ["CD"] for n in (1, 2)} | {f"Remote{n}": ["CD", "USBStick"] for n in (1, 2, 3, 4)}
    media = services.virtual_media(b, MANAGER, slots, actions=False)
    where = services.virtual_media(b, SYSTEM, slots, actions=False)
    b.change(SYSTEM, VirtualMedia=link(where))
    clock = b.add(
        below(MANAGER, "Oem", "Lenovo", "DateTimeService"), "LenovoDateTimeService.v1_0_0", "Date Time", DateTime="%%NOW%%",
        SettingMethod="NTP", NTPServerAddresses=["10.0.0.1", "10.0.0.2"], UTCOffset="+0:00", HostTimeFormat="UTC",
    )  # fmt: skip
    services.manager(
        b, MANAGER, "Manager.v1_16_0", model="Lenovo XClarity Controller", firmware="3.10 2026-03-01", system=SYSTEM, chassis=CHASSIS,
        VirtualMedia=link(media),
        Links={
            "ManagerForServers": [link(SYSTEM)], "ManagerForChassis": [link(CHASSIS)], "ManagerInChassis": link(CHASSIS),
            "ActiveSoftwareImage": link(below(INVENTORY, "BMC-Primary")),
            "SoftwareImages": links([below(INVENTORY, "BMC-Primary"), below(INVENTORY, "BMC-Backup")]),
        },
        Oem={"Lenovo": {"@odata.type": "#LenovoManager.v1_0_0.LenovoManagerProperties", "DateTimeService": link(clock), "KCSEnabled": True}},
    )  # fmt: skip
    b.collect(below(ROOT, "Managers"), "Manager", "ManagerCollection", [MANAGER])
    return audit, platform
