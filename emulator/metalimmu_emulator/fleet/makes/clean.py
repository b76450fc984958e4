"""As the standard has it: no oddity at all. What differs from this on a make is that make's."""

from __future__ import annotations

from metalimmu_emulator.fleet.makes import attributes, hardware, services
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link
from metalimmu_emulator.fleet.makes.hardware import Hardware
from metalimmu_emulator.fleet.template import Happened, Places, Template, Traits, plain_log

SYSTEM, MANAGER, CHASSIS = below(ROOT, "Systems", "1"), below(ROOT, "Managers", "BMC"), below(ROOT, "Chassis", "1")
REGISTRY = below(ROOT, "Registries", "BiosAttributeRegistry", "BiosAttributeRegistry.v1_0_0.json")
HARDWARE = Hardware("Contoso", "Server 3000", "1.2.3", sku="S3000-2U")
ITEMS: dict[str, Doc] = {
    "BIOS": {"Name": "System BIOS", "Version": "1.2.3", "Manufacturer": "Contoso", "SoftwareId": "bios-s3000"},
    "BMC": {"Name": "BMC", "Version": "2.10", "Manufacturer": "Contoso", "SoftwareId": "bmc-s3000"},
    "NIC1": {"Name": "NIC 1", "Version": "22.36.10", "Manufacturer": "Contoso", "SoftwareId": "nic-25g"},
    "PSU1": {"Name": "Power Supply 1", "Version": "00.1D.7D", "SoftwareId": "psu-1100", "Updateable": False},
    "PSU2": {"Name": "Power Supply 2", "Version": "00.1D.7D", "SoftwareId": "psu-1100", "Updateable": False},
    "CPLD": {"Name": "System CPLD", "Version": "1.0.8", "SoftwareId": "cpld-s3000"},
}


def build() -> Template:
    b = Builder("clean", etag=True)
    found = attributes.load("clean")
    services.root(b, "ServiceRoot.v1_17_0", "1.20.0", levels=6, Vendor="Contoso", Product="Standard BMC")
    services.sessions(b)
    services.accounts(b, {"1": ("%%USER%%", "Administrator"), "2": ("monitor", "ReadOnly")})
    services.events(b)
    services.task_service(b)
    items = {i: dict(f) for i, f in ITEMS.items()}
    items["BIOS"]["RelatedItem"] = [link(below(SYSTEM, "Bios"))]
    items["BMC"]["RelatedItem"] = [link(MANAGER)]
    services.update_service(b, items, push="", multipart=below(ROOT, "UpdateService", "update-multipart"))
    services.registries(b, {"BiosAttributeRegistry.v1_0_0": ("BiosAttributeRegistry.v1_0_0", REGISTRY)})
    system = {"model": HARDWARE.model, "firmware": HARDWARE.bios, "owner": "Contoso"}
    b.documents[REGISTRY] = {"@odata.id": REGISTRY} | attributes.registry(
        found, "BiosAttributeRegistry.v1_0_0", "1.0.0", system=system
    )
    hardware.chassis(b, CHASSIS, HARDWARE, system_uri=SYSTEM, manager=MANAGER)
    hardware.network_adapters(b, CHASSIS, HARDWARE, cards=2, lldp=True)
    b.collect(below(ROOT, "Chassis"), "Chassis", "Chassis Collection", [CHASSIS])
    bios = services.bios(
        b,
        SYSTEM,
        found.values,
        registry="BiosAttributeRegistry.v1_0_0",
        settings="Settings",
        shown={},
        support=["OnReset"],
    )
    hardware.system(
        b, SYSTEM, HARDWARE, kind="ComputerSystem.v1_22_0", manager=MANAGER, chassis=CHASSIS, Bios=link(bios)
    )
    b.collect(below(ROOT, "Systems"), "ComputerSystem", "Computer System Collection", [SYSTEM])
    log = _manager(b)
    return b.build(
        traits=Traits(expand_levels=6),
        places=Places(
            system=SYSTEM, bios=bios, settings=below(bios, "Settings"), registry=REGISTRY, manager=MANAGER,
            firmware=below(ROOT, "UpdateService", "FirmwareInventory"), update=below(ROOT, "UpdateService"),
            accounts=below(ROOT, "AccountService", "Accounts"), tasks=below(ROOT, "TaskService", "Tasks"), log=log,
            logs=(log,), chassis=CHASSIS, protocol=below(MANAGER, "NetworkProtocol"),
        ),
        defaults=found.values,
        passwords=services.PASSWORDS,
        firmware={"bios": ("BIOS",), "bmc": ("BMC",), "nic": ("NIC1",), "cpld": ("CPLD",)},
    )  # fmt: skip


def _manager(b: Builder) -> str:
    """Returns the audit log's Entries."""
    logs = below(MANAGER, "LogServices")
    entries = [
        plain_log(Happened(n, f"2026-10-0{n}T08:00:00Z", "other", f"The host booted ({n}).", "")) for n in (1, 2, 3)
    ]
    where = services.log(b, below(logs, "Audit"), "Audit Log", entries)
    b.collect(logs, "LogService", "Log Services", [below(logs, "Audit")])
    services.network_protocol(b, MANAGER)
    services.manager_interface(b, MANAGER)
    media = services.virtual_media(b, MANAGER, {"CD1": ["CD", "DVD"], "USB1": ["USBStick"]})
    services.manager(
        b, MANAGER, "Manager.v1_19_2", model="Contoso BMC", firmware="2.10", system=SYSTEM, chassis=CHASSIS,
        LogServices=link(logs), VirtualMedia=link(media),
    )  # fmt: skip
    b.collect(below(ROOT, "Managers"), "Manager", "Manager Collection", [MANAGER])
    return where
