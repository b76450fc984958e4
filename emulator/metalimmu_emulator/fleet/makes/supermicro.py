"""As a Supermicro X13 answers (seen: recording supermicro-sys821ge-x13, BMC 11.01).

Strong ETags that a PATCH must carry. The settings object `SD` has no Attributes while nothing is staged. The registry lies outside
/redfish, under another version than Bios declares, and does not validate the machine's own values: its enum names are ordinals.
Attribute names end in a question id that a BIOS update moves. Golden, backup and staging copies in the firmware inventory.
`$expand` is offered and loses members. Reset values only behind ActionInfo. InsertMedia, and no EjectMedia while empty.
"""

from __future__ import annotations

from typing import Any

from metalimmu_emulator.fleet.makes import attributes, hardware, services
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link
from metalimmu_emulator.fleet.makes.hardware import Hardware
from metalimmu_emulator.fleet.template import Happened, Places, Template, Traits

SYSTEM, MANAGER, CHASSIS = below(ROOT, "Systems", "1"), below(ROOT, "Managers", "1"), below(ROOT, "Chassis", "1")
OEM = below(MANAGER, "Oem", "Supermicro")
REGISTRY = "/registries/BiosAttributeRegistry.v2_1_0.json"
HARDWARE = Hardware(
    "Supermicro", "SYS-621C-TN12R", "1.4", sku="To be filled by O.E.M.", disk_model="MTFDKCC960TFR", watts=1200, cores=32,
    cpu="Intel(R) Xeon(R) Platinum 8462Y+", disk_media=("SSD", "NVMe"),
    names={"cpu": "{n}", "dimm": "{n}", "disk": "Disk.Bay.{x}", "nic": "{n}", "psu": "{x}", "boot": "Boot{x:04X}", "controller": "NVMeSSD"},
)  # fmt: skip
DATED = "BIOS Date: 02/04/2026 Ver 1.4"
ITEMS: dict[str, tuple[str, str | None]] = {
    "BIOS": ("BIOS", DATED),
    "Backup_BIOS": ("BIOS Backup", "Not Present"),
    "Golden_BIOS": ("BIOS Golden", "BIOS Date: 05/04/2025 Ver 1.3"),
    "Staging_BIOS": ("BIOS Staging", DATED),
    "Capsule_BIOS": ("BIOS Capsule", "N/A"),
    "BIOS_ME": ("BIOS ME", "-*"),
    "BMC": ("BMC", "01.02.03"),
    "Backup_BMC": ("BMC Backup", "01.02.03"),
    "Golden_BMC": ("BMC Golden", "01.00.11"),
    "Staging_BMC": ("BMC Staging", "01.02.03"),
    "CPLD_Motherboard": ("CPLD Motherboard", "F1.A5.17"),
    "Golden_CPLD_Motherboard": ("CPLD Motherboard Golden", "F1.A5.12"),
    "CPLD_Backplane_1": ("CPLD Backplane 1", None),
    "NIC1": ("NIC1", "26.38.10"),
    "NIC2": ("NIC2", "26.38.10"),
    "PowerSupply1": ("Power Supply 1", "1.6"),
    "PowerSupply2": ("Power Supply 2", "1.6"),
    "NVMeSSDA1": ("NVMe SSD A1", "2.1.5"),
    "NVMeSSDA2": ("NVMe SSD A2", "2.1.5"),
}


def build() -> Template:
    b = Builder("supermicro", etag=True)
    found = _suffixed(attributes.load("supermicro"))
    services.root(b, "ServiceRoot.v1_14_0", "1.14.0", levels=2, Vendor="Supermicro", Product="")
    b.drop(ROOT, "Vendor", "Product")
    services.sessions(b)
    services.accounts(b, {"2": ("%%USER%%", "Administrator"), "3": ("monitor", "ReadOnly")})
    services.events(b)
    services.task_service(b)
    items: dict[str, Doc] = {i: {"Name": n, "Version": v, "Manufacturer": "Supermicro"} for i, (n, v) in ITEMS.items()}
    services.update_service(b, items, push="", multipart=below(ROOT, "UpdateService", "upload"))
    services.registries(b, {"BiosAttributeRegistry": ("BiosAttributeRegistry.v1_0_0", REGISTRY)})
    system = {"model": HARDWARE.model, "firmware": HARDWARE.bios, "owner": "Supermicro"}
    b.documents[REGISTRY] = attributes.registry(found, "BiosAttributeRegistry.v2_1_0", "2.1.0", system=system)
    hardware.chassis(b, CHASSIS, HARDWARE, system_uri=SYSTEM, manager=MANAGER, old_power=True)
    b.collect(below(ROOT, "Chassis"), "Chassis", "Chassis Collection", [CHASSIS])
    bios = services.bios(b, SYSTEM, found.values, registry="BiosAttributeRegistry.v1_0_0", settings="SD", shown=None)
    info = hardware.action_info(b, below(SYSTEM, "ResetActionInfo"), "ResetType", hardware.RESETS)
    hardware.system(
        b, SYSTEM, HARDWARE, kind="ComputerSystem.v1_16_0", manager=MANAGER, chassis=CHASSIS, Bios=link(bios),
        Actions=hardware.reset_action(SYSTEM, [], info),
    )  # fmt: skip
    boot = b.documents[SYSTEM]["Boot"]
    boot["BootSourceOverrideTarget"] = "Pxe"  # stale while Disabled
    boot["BootSourceOverrideTarget@Redfish.AllowableValues"] = [
        "None",
        "Pxe",
        "Floppy",
        "Cd",
        "Usb",
        "Hdd",
        "BiosSetup",
        "UsbCd",
        "UefiHttp",
    ]
    b.collect(below(ROOT, "Systems"), "ComputerSystem", "Computer System Collection", [SYSTEM])
    log = _manager(b)
    return b.build(
        traits=Traits(
            if_match=True, expand="wrong", expand_levels=2, pending="hidden", slash="redirect", empty_when_off=True,
            renames_bios=True, session_limit=16, date=False,
        ),
        places=Places(
            system=SYSTEM, bios=bios, settings=below(bios, "SD"), registry=REGISTRY, manager=MANAGER,
            firmware=below(ROOT, "UpdateService", "FirmwareInventory"), update=below(ROOT, "UpdateService"),
            accounts=below(ROOT, "AccountService", "Accounts"), tasks=below(ROOT, "TaskService", "Tasks"), log=log, logs=(log,),
            chassis=CHASSIS, protocol=below(MANAGER, "NetworkProtocol"),
        ),
        log_entry=log_entry,
        defaults=found.values,
        passwords=services.PASSWORDS,
        firmware={"bmc": ("BMC",), "bios": ("BIOS",), "nic": ("NIC1", "NIC2"), "psu": ("PowerSupply1", "PowerSupply2")},
    )  # fmt: skip


def _suffixed(bios: attributes.Bios) -> attributes.Bios:
    """`TurboMode` becomes `TurboMode_0021`, and enum names ordinals: the values are the display names."""
    names = {n: f"{n}_{0x3B00 + i * 3:04X}" for i, n in enumerate(bios.values)}
    entries = []
    for entry in bios.entries:
        new: dict[str, Any] = entry | {"AttributeName": names[entry["AttributeName"]]}
        if "Value" in entry:
            new["Value"] = [
                {"ValueName": str(i), "ValueDisplayName": v["ValueName"]} for i, v in enumerate(entry["Value"])
            ]
            new["DefaultValue"] = "0"
        entries.append(new)
    return attributes.Bios({names[n]: v for n, v in bios.values.items()}, entries, [])


def log_entry(happened: Happened) -> Doc:
    """An entry of the maintenance event log: user and interface under Oem."""
    oem = {
        "@odata.type": "#SmcLogEntryExtensions.v1_0_0.LogEntry",
        "Category": "AC",
        "EventInterface": "REDFISH",
        "EventUser": happened.user or "N/A",
    }
    return {
        "@odata.type": "#LogEntry.v1_9_0.LogEntry",
        "Id": str(happened.number),
        "Name": f"Log Entry {happened.number}",
        "EntryType": "Oem",
        "OemRecordFormat": "Supermicro",
        "Severity": "OK",
        "Created": happened.at,
        "Message": f"[MEL-{happened.number:04d}] {happened.text}"
        + (f" User: {happened.user}." if happened.user else ""),
        "MessageId": "SMC.1.0.OemLogEntryAdded",
        "Oem": {"Supermicro": oem},
    }


def _manager(b: Builder) -> str:
    logs = below(MANAGER, "LogServices")
    entries = [
        log_entry(Happened(n, f"2026-10-0{n}T08:00:00Z", "power", f"Host power on ({n}).", "")) for n in (1, 2, 3)
    ]
    where = services.log(b, below(logs, "Log1"), "System Event Log Service", entries)
    b.collect(logs, "LogService", "Log Service Collection", [below(logs, "Log1")])
    services.network_protocol(b, MANAGER, HostName=None, FQDN=None, SSDP={"ProtocolEnabled": False, "Port": 1900})
    services.manager_interface(b, MANAGER, "1")
    slots = {f"VirtualMedia{n}": ["CD", "DVD", "USBStick"] for n in (1, 2, 3)}
    media = services.virtual_media(b, MANAGER, slots, eject=False)
    b.change(SYSTEM, VirtualMedia=link(media))
    oem: Doc = {"@odata.type": "#SmcManagerExtensions.v1_0_0.Manager"}
    oem["NTP"] = link(
        b.add(
            below(OEM, "NTP"),
            "NTP.v1_0_3",
            "NTP Service",
            NTPEnable=True,
            PrimaryNTPServer="10.0.0.1",
            SecondaryNTPServer="10.0.0.2",
            DaylightSavingTime=False,
        )
    )
    oem["Syslog"] = link(
        b.add(
            below(OEM, "Syslog"),
            "Syslog.v1_0_1",
            "Syslog",
            EnableSyslog=True,
            SyslogServer="10.0.0.9",
            SyslogPortNumber=514,
        )
    )
    oem["SysLockdown"] = link(
        b.add(below(OEM, "SysLockdown"), "SysLockdown.v1_0_0", "SysLockdown", SysLockdownEnabled=False)
    )
    heard = {"ChassisId": "02:5a:00:00:00:ff", "PortId": "Ethernet2/1", "SystemName": "oob-sw1"}
    oem["LLDP"] = link(b.add(below(OEM, "LLDP"), "LldpService.v1_0_0", "LLDP", LLDPEnabled=True, LLDPReceive=heard))
    query = b.add(
        below(MANAGER, "LicenseManager", "QueryLicense"), "QueryLicense.v1_0_0", "LicenseManager", Id="1",
        Licenses=['{"ProductKey":{"Node":{"LicenseID":"2","LicenseName":"SFT-DCMS-SINGLE","CreateDate":"20260720"}}}'],
    )  # fmt: skip
    licences = b.add(
        below(MANAGER, "LicenseManager"), "LicenseManager.v1_0_0", "License Manager", QueryLicense=link(query)
    )
    oem["LicenseManager"] = link(licences)
    services.manager(
        b, MANAGER, "Manager.v1_14_0", model="ASPEED", firmware="01.02.03", system=SYSTEM, chassis=CHASSIS, LogServices=link(logs),
        VirtualMedia=link(media), Oem={"Supermicro": oem},
    )  # fmt: skip
    b.collect(below(ROOT, "Managers"), "Manager", "Manager Collection", [MANAGER])
    return where
