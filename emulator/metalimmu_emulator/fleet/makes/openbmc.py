"""As bmcweb on a GPU server answers (seen: recording nvidia-gb200-openbmc).

Two systems: the host, and a GPU board with neither BIOS nor a power switch. The boot override is written to a settings object of
the system. Every firmware item is named 'Software Inventory'. The registry is there and not linked from Bios. Settings are `{}`
while nothing is staged. Reset values behind ActionInfo. The host says neither who made it nor its serial. No boot mode.
"""

from __future__ import annotations

from metalimmu_emulator.fleet.makes import attributes, hardware, services
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link, ok
from metalimmu_emulator.fleet.makes.hardware import Hardware
from metalimmu_emulator.fleet.template import Happened, Places, Template, Traits

SYSTEM, MANAGER, CHASSIS = (
    below(ROOT, "Systems", "System_0"),
    below(ROOT, "Managers", "BMC_0"),
    below(ROOT, "Chassis", "Chassis_0"),
)
BOARD = below(ROOT, "Systems", "HGX_Baseboard_0")
REGISTRY = below(ROOT, "Registries", "BiosAttributeRegistry", "BiosAttributeRegistry")
HARDWARE = Hardware(
    "NVIDIA", "GB200 NVL", "02.03.17", cpu="Grace", cpu_maker="NVIDIA", cpus=2, cores=72, architecture=("ARM", "ARM-A64"), dimms=4,
    dimm_gib=240, disks=2, disk_model="MZTL63T8HFLA", disk_media=("SSD", "NVMe"), ports=0, supplies=4, watts=5500,
    names={"cpu": "ProcessorModule_{x}_CPU_0", "dimm": "ProcessorModule_{x}_LPDDR5", "disk": "NVME_{x}", "psu": "powersupply{x}", "boot": "Boot{x:04X}", "controller": "1"},
)  # fmt: skip
ITEMS: dict[str, tuple[str, str]] = {
    "FW_BMC_0": ("BMC image", "GB200Nvl-25.10-3"),
    "FW_ERoT_BMC_0": ("Other image", "01.04.0008.0000_n04"),
    "FW_CPLD_0": ("Other image", "0.1F"),
    "FW_CPLD_1": ("Other image", "0.1F"),
    "UEFI": ("Host image", "02.03.17"),
    "HGX_FW_BMC_0": ("Other image", "GB200Nvl-25.10-2"),
    "HGX_FW_CPU_0": ("Other image", "02.03.17"),
    "HGX_FW_CPU_1": ("Other image", "02.03.17"),
    "HGX_FW_GPU_0": ("Other image", "97.00.82.00.18"),
    "HGX_FW_GPU_1": ("Other image", "97.00.82.00.18"),
    "HGX_FW_FPGA_0": ("Other image", "1.50"),
    "HGX_InfoROM_GPU_0": ("Other image", "G548.0201.00.06"),
    "HGX_InfoROM_GPU_1": ("Other image", "G548.0201.00.06"),
    "CX7_0": ("Other image", "28.42.1234"),
    "NIC_0": ("Other image", "32.41.1300"),
    "NIC_1": ("Other image", "32.41.1300"),
}


def build() -> Template:
    b = Builder("openbmc")
    found = attributes.load("openbmc")
    services.root(b, "ServiceRoot.v1_15_0", "1.17.0", levels=6, Vendor="NVIDIA", Product=HARDWARE.model)
    b.change(
        ROOT,
        Links={"Sessions": link(below(ROOT, "SessionService", "Sessions")), "ManagerProvidingService": link(MANAGER)},
    )
    services.sessions(b)
    services.accounts(b, {"root": ("%%USER%%", "Administrator"), "monitor": ("monitor", "ReadOnly")})
    services.events(b)
    services.task_service(b)
    items: dict[str, Doc] = {
        i: {"Name": "Software Inventory", "Description": d, "Version": v, "Manufacturer": "NVIDIA"}
        for i, (d, v) in ITEMS.items()
    }
    items["UEFI"]["RelatedItem"] = [link(below(SYSTEM, "Bios"))]
    items["FW_BMC_0"]["RelatedItem"] = [link(MANAGER)]
    services.update_service(
        b,
        items,
        push=below(ROOT, "UpdateService", "update"),
        multipart=below(ROOT, "UpdateService", "update-multipart"),
    )
    services.registries(b, {"BiosAttributeRegistry": ("BiosAttributeRegistry.1.0.0", REGISTRY)})
    system = {"model": HARDWARE.model, "firmware": HARDWARE.bios, "owner": "NVIDIA"}
    b.documents[REGISTRY] = {"@odata.id": REGISTRY} | attributes.registry(
        found, "BiosAttributeRegistry", "1.0.0", system=system
    )
    hardware.chassis(b, CHASSIS, HARDWARE, system_uri=SYSTEM, manager=MANAGER)
    hardware.network_adapters(b, CHASSIS, HARDWARE, cards=1)
    b.collect(below(ROOT, "Chassis"), "Chassis", "Chassis Collection", [CHASSIS])
    bios = services.bios(b, SYSTEM, found.values, registry="", settings="Settings", shown={})
    for uri in (bios, below(bios, "Settings")):
        b.drop(uri, "AttributeRegistry")
    _systems(b, bios)
    _managers(b)
    log = _logs(b)
    return b.build(
        traits=Traits(expand_levels=6, empty_when_off=True, session_limit=64, patch_status=204),
        places=Places(
            system=SYSTEM, bios=bios, settings=below(bios, "Settings"), boot_settings=below(SYSTEM, "Settings"), registry=REGISTRY,
            manager=MANAGER, firmware=below(ROOT, "UpdateService", "FirmwareInventory"), update=below(ROOT, "UpdateService"),
            accounts=below(ROOT, "AccountService", "Accounts"), tasks=below(ROOT, "TaskService", "Tasks"), log=log, logs=(log,),
            chassis=CHASSIS, protocol=below(MANAGER, "NetworkProtocol"),
        ),
        log_entry=log_entry,
        defaults=found.values,
        passwords=services.PASSWORDS,
        firmware={"bmc": ("FW_BMC_0",), "bios": ("UEFI",), "nic": ("NIC_0", "NIC_1"), "gpu": ("HGX_FW_GPU_0", "HGX_FW_GPU_1")},
    )  # fmt: skip


def _systems(b: Builder, bios: str) -> None:
    info = hardware.action_info(b, below(SYSTEM, "ResetActionInfo"), "ResetType", hardware.RESETS)
    settings = below(SYSTEM, "Settings")
    hardware.system(
        b, SYSTEM, HARDWARE, kind="ComputerSystem.v1_22_0", manager=MANAGER, chassis=CHASSIS, Bios=link(bios),
        Actions=hardware.reset_action(SYSTEM, [], info),
        **{"@Redfish.Settings": {"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(settings)}},
    )  # fmt: skip
    b.drop(SYSTEM, "BiosVersion", "Manufacturer", "Model", "SerialNumber", "EthernetInterfaces", "AssetTag", "HostName")
    where = below(SYSTEM, "EthernetInterfaces")
    b.documents.pop(where)
    boot = b.documents[SYSTEM]["Boot"]
    for name in ("BootSourceOverrideMode", "BootSourceOverrideMode@Redfish.AllowableValues"):
        boot.pop(name)
    boot["BootSourceOverrideTarget@Redfish.AllowableValues"] = ["None", "Pxe", "Hdd", "Cd", "Diags", "BiosSetup", "Usb"]
    b.add(settings, "ComputerSystem.v1_22_0", "System_0 Pending Settings", Boot=dict(boot))
    board = b.add(
        BOARD, "ComputerSystem.v1_22_0", "HGX_Baseboard_0", SystemType="Physical", SerialNumber="%%SERIAL5%%", Model="HGX Baseboard",
        UUID="%%UUID5%%", PowerState="On", Status=ok(), Links={"Chassis": [link(CHASSIS)], "ManagedBy": [link(MANAGER)]},
    )  # fmt: skip
    b.collect(below(ROOT, "Systems"), "ComputerSystem", "Computer System Collection", [board, SYSTEM])


def log_entry(happened: Happened) -> Doc:
    """An entry of the event log: bmcweb does not say who."""
    return {
        "@odata.type": "#LogEntry.v1_15_0.LogEntry",
        "Id": str(happened.number),
        "Name": "System Event Log Entry",
        "EntryType": "Event",
        "Severity": "OK",
        "Created": happened.at.replace("Z", "+00:00"),
        "Modified": happened.at.replace("Z", "+00:00"),
        "Message": happened.text,
        "MessageId": "OpenBMC.0.4.PropertyChanged",
        "Resolved": False,
    }


def _logs(b: Builder) -> str:
    logs = below(SYSTEM, "LogServices")
    entries = [
        log_entry(Happened(n, f"2026-10-0{n}T08:00:00Z", "power", f"Host started ({n}).", "")) for n in (1, 2, 3)
    ]
    where = services.log(b, below(logs, "EventLog"), "Event Log Service", entries)
    b.collect(logs, "LogService", "System Log Services Collection", [below(logs, "EventLog")])
    b.change(SYSTEM, LogServices=link(logs))
    return where


def _managers(b: Builder) -> None:
    services.network_protocol(
        b, MANAGER, FQDN="%%NAME%%", HTTP={"ProtocolEnabled": False, "Port": None},
        Oem={"Nvidia": {"@odata.type": "#NvidiaNetworkProtocol.v1_0_0.NetworkProtocol", "Rsyslog": {"Address": "10.0.0.9", "Port": 514, "State": "Enabled", "TransportProtocol": "TCP"}}},
    )  # fmt: skip
    services.manager_interface(b, MANAGER, "eth0")
    media = services.virtual_media(b, MANAGER, {"USB1": ["CD", "USBStick"], "USB2": ["CD", "USBStick"]})
    services.manager(
        b, MANAGER, "Manager.v1_14_0", model="OpenBmc", firmware="GB200Nvl-25.10-3", system=SYSTEM, chassis=CHASSIS, VirtualMedia=link(media),
    )  # fmt: skip
    second = below(ROOT, "Managers", "HGX_BMC_0")
    b.add(
        second, "Manager.v1_14_0", "HGX_BMC_0", ManagerType="BMC", FirmwareVersion="GB200Nvl-25.10-2", DateTime="%%NOW%%",
        Status=ok(), Links={"ManagerForServers": [link(BOARD)], "ManagerInChassis": link(CHASSIS)},
    )  # fmt: skip
    b.collect(below(ROOT, "Managers"), "Manager", "Manager Collection", [MANAGER, second])
