"""As a PowerEdge with iDRAC9 answers (seen: recording dell-poweredge-r750-idrac9, iDRAC9 6.00.30.00; what-hurts 17, 18).

No ETags. Pending values need a config job, and Bios shows them from then on. Firmware ids hold the version; Previous- is the
rollback image. Accounts are 16 slots. Manager attributes in one flat document. The registry is below the system's Bios.
"""

from __future__ import annotations

from typing import Any

from metalimmu_emulator.fleet.makes import attributes, hardware, services
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link, links, ok
from metalimmu_emulator.fleet.makes.hardware import Hardware
from metalimmu_emulator.fleet.template import Happened, Places, Template, Traits

SYSTEM = below(ROOT, "Systems", "System.Embedded.1")
MANAGER = below(ROOT, "Managers", "iDRAC.Embedded.1")
CHASSIS = below(ROOT, "Chassis", "System.Embedded.1")
OEM = below(MANAGER, "Oem", "Dell")
DELL_JOBS = below(OEM, "Jobs")
JOBS = below(ROOT, "JobService", "Jobs")
ATTRIBUTES = below(OEM, "DellAttributes", "iDRAC.Embedded.1")
SWITCHES = below(SYSTEM, "NetworkPorts", "Oem", "Dell", "DellSwitchConnections")
REGISTRY = below(SYSTEM, "Bios", "BiosRegistry")
HARDWARE = Hardware(
    "Dell Inc.", "PowerEdge R760", "2.1.5", sku="%%SERIAL%%", disk_model="MTFDDAK960TDT", watts=1400,
    names={
        "cpu": "CPU.Socket.{n}", "dimm": "DIMM.Socket.A{n}", "disk": "Disk.Bay.{x}:Enclosure.Internal.0-1",
        "nic": "NIC.Integrated.1-{n}-1", "psu": "PSU.Slot.{n}", "controller": "RAID.SL.3-1",
    },
)  # fmt: skip
BIOS, IDRAC, NIC = (
    "Installed-159-2.1.5__BIOS.Setup.1-1",
    "Installed-25227-7.10.30.00__iDRAC.Embedded.1-1",
    "Installed-108255-22.31.6__NIC.Integrated.1-{}-1",
)
NAMES = {
    "Installed-159-2.1.5__BIOS.Setup.1-1": "BIOS",
    "Current-159-2.1.5__BIOS.Setup.1-1": "BIOS",
    "Previous-159-1.8.2__BIOS.Setup.1-1": "BIOS",
    "Installed-25227-7.10.30.00__iDRAC.Embedded.1-1": "Integrated Dell Remote Access Controller",
    "Previous-25227-7.00.60.00__iDRAC.Embedded.1-1": "Integrated Dell Remote Access Controller",
    "Installed-108255-22.31.6__NIC.Integrated.1-1-1": "Broadcom Adv. Dual 25Gb Ethernet - 02:00:00:00:00:01",
    "Installed-108255-22.31.6__NIC.Integrated.1-2-1": "Broadcom Adv. Dual 25Gb Ethernet - 02:00:00:00:00:02",
    "Installed-104298-52.26.0-5179__RAID.SL.3-1": "PERC H755 Front",
    "Installed-0-2.1.3__Disk.Bay.0:Enclosure.Internal.0-1": "Solid State Drive 0",
    "Installed-0-2.1.3__Disk.Bay.1:Enclosure.Internal.0-1": "Solid State Drive 1",
    "Installed-108076-00.1D.7D__PSU.Slot.1": "Power Supply.Slot.1",
    "Installed-108076-00.1D.7D__PSU.Slot.2": "Power Supply.Slot.2",
    "Installed-27763-1.2.1__CPLD.Embedded.1": "System CPLD",
    "Installed-28897-7.10.30.00__USC.Embedded.1:LC.Embedded.1": "Lifecycle Controller",
    "Installed-25806-4301A73__Diagnostics.Embedded.1:LC.Embedded.1": "Dell 64 Bit uEFI Diagnostics",
    "Installed-18981-23.08.04__DriverPack.Embedded.1:LC.Embedded.1": "Dell OS Driver Pack",
    "Installed-109673-7.2.2.0__TPM.Integrated.1-1": "TPM",
    "Installed-107649-3.48__RAID.Backplane.Firmware.1": "Backplane 1",
}


def build() -> Template:
    b = Builder("dell", context=True)
    found = attributes.load("dell")
    services.root(
        b, "ServiceRoot.v1_15_0", "1.17.0", levels=1, Vendor="Dell", Product="Integrated Dell Remote Access Controller",
        JobService=link(below(ROOT, "JobService")),
        Oem={"Dell": {"@odata.type": "#DellServiceRoot.v1_0_0.DellServiceRoot", "IsBranded": 0, "ManagerMACAddress": "%%MAC200%%", "ServiceTag": "%%SERIAL%%"}},
    )  # fmt: skip
    services.sessions(b)
    _accounts(b)
    services.events(b)
    services.task_service(b)
    _jobs(b)
    _firmware(b)
    services.registries(b, {"BiosAttributeRegistry.v1_0_3": ("BiosAttributeRegistry.v1_0_3", REGISTRY)})
    system = {"model": HARDWARE.model, "firmware": HARDWARE.bios, "owner": "Dell"}
    b.documents[REGISTRY] = {"@odata.id": REGISTRY} | attributes.registry(
        found, "BiosAttributeRegistry", "v1_0_3", system=system
    )
    hardware.chassis(b, CHASSIS, HARDWARE, system_uri=SYSTEM, manager=MANAGER, SKU="%%SERIAL%%")
    b.change(CHASSIS, Power=link(hardware.power(b, CHASSIS, HARDWARE)), Thermal=link(hardware.thermal(b, CHASSIS)))
    b.collect(below(ROOT, "Chassis"), "Chassis", "Chassis Collection", [CHASSIS])
    bios = services.bios(
        b, SYSTEM, found.values, registry="BiosAttributeRegistry.v1_0_3", settings="Settings", shown={},
        support=["OnReset", "AtMaintenanceWindowStart", "InMaintenanceWindowOnReset"],
    )  # fmt: skip
    clear = {"target": f"{bios}/Settings/Actions/Oem/DellManager.ClearPending"}
    b.change(below(bios, "Settings"), Actions={"Oem": {"#DellManager.ClearPending": clear}})
    hardware.system(
        b, SYSTEM, HARDWARE, kind="ComputerSystem.v1_20_1", manager=MANAGER, chassis=CHASSIS, Bios=link(bios)
    )
    b.change(SYSTEM, SerialNumber="CN%%SERIAL1%%A01", PartNumber="0XK5M1A03")  # the mainboard's; SKU is the service tag
    media = services.virtual_media(b, SYSTEM, {"1": ["CD", "DVD", "USBStick"], "2": ["CD", "DVD", "USBStick"]})
    b.change(SYSTEM, VirtualMedia=link(media))
    _switches(b)
    b.collect(below(ROOT, "Systems"), "ComputerSystem", "Computer System Collection", [SYSTEM])
    _manager(b)
    return b.build(
        traits=Traits(
            etags="none", expand_levels=1, chunked_over=16384, job_needed=True, current_early=True, post_accounts=False,
            session_limit=8,
        ),
        places=Places(
            system=SYSTEM, bios=bios, settings=below(bios, "Settings"), registry=REGISTRY, manager=MANAGER,
            firmware=below(ROOT, "UpdateService", "FirmwareInventory"), update=below(ROOT, "UpdateService"),
            accounts=below(ROOT, "AccountService", "Accounts"), tasks=below(ROOT, "TaskService", "Tasks"),
            jobs=(DELL_JOBS, JOBS), log=below(MANAGER, "LogServices", "Lclog", "Entries"),
            logs=(below(MANAGER, "LogServices", "Lclog", "Entries"), below(MANAGER, "LogServices", "Sel", "Entries")),
            chassis=CHASSIS, protocol=below(MANAGER, "NetworkProtocol"),
        ),
        log_entry=log_entry,
        defaults=found.values,
        passwords=services.PASSWORDS,
        firmware={"bios": (BIOS,), "bmc": (IDRAC,), "nic": (NIC.format(1), NIC.format(2)), "cpld": ("Installed-27763-1.2.1__CPLD.Embedded.1",)},
    )  # fmt: skip


IDS = {
    "bios": "UEFI0134",
    "firmware": "PR36",
    "account": "USR0032",
    "power": "SYS1003",
    "reset": "RAC0182",
    "clear": "LOG006",
}


def log_entry(happened: Happened) -> Doc:
    """An entry of the lifecycle log. Who it was: LastUpdatedByUser of older firmware is null, the text names the account."""
    text = f"{happened.text} Changed by {happened.user}." if happened.user else happened.text
    return {
        "@odata.type": "#LogEntry.v1_9_0.LogEntry",
        "@odata.context": "/redfish/v1/$metadata#LogEntry.LogEntry",
        "Id": str(happened.number),
        "Name": f"Log Entry {happened.number}",
        "Description": f"Log Entry {happened.number}",
        "EntryType": "Oem",
        "OemRecordFormat": "Dell",
        "Severity": "OK",
        "Created": happened.at.replace("Z", "+00:00"),
        "Message": text,
        "MessageArgs": [happened.user] if happened.user else [],
        "MessageId": f"IDRAC.2.8.{IDS.get(happened.what, 'LOG007')}",
        "Links": {},
        "Oem": {
            "Dell": {
                "@odata.type": "#DellLCLogEntry.v1_1_0.DellLCLogEntry",
                "Category": "Configuration" if happened.what == "bios" else "Audit",
                "Comment": None,
                "LastUpdatedByUser": happened.user or None,
            }
        },
    }


def _accounts(b: Builder) -> None:
    users = {"2": ("%%USER%%", "Administrator"), "3": ("monitor", "ReadOnly")}
    slots = {str(n): users.get(str(n), ("", "None" if n > 1 else "ReadOnly")) for n in range(1, 17)}
    where = services.accounts(b, slots)
    for n in range(1, 17):
        if str(n) not in users:
            b.change(below(where, str(n)), RoleId="ReadOnly" if n == 1 else "None", Enabled=False)
    role = below(ROOT, "AccountService", "Roles", "None")
    b.add(role, "Role.v1_3_2", "None Role", RoleId="None", IsPredefined=True, AssignedPrivileges=[], OemPrivileges=[])
    roles = below(ROOT, "AccountService", "Roles")
    names = [*services.PRIVILEGES, "None"]
    b.collect(roles, "Role", "Roles", [below(roles, n) for n in names])


def _jobs(b: Builder) -> None:
    uri = below(ROOT, "JobService")
    b.add(
        uri, "JobService.v1_0_5", "Job Service", ServiceEnabled=True, DateTime="%%NOW%%", Jobs=link(JOBS), Status=ok()
    )
    b.collect(JOBS, "Job", "Job Collection", [])
    b.collect(DELL_JOBS, "DellJob", "JobQueue", [])


def _firmware(b: Builder) -> None:
    items: dict[str, Doc] = {}
    for ident, name in NAMES.items():
        number, version = ident.split("__")[0].split("-", 2)[1:]
        fqdd = ident.partition("__")[2]
        oem: Doc = {
            "@odata.type": "#DellOem.v1_3_0.DellOemResources",
            "DellSoftwareInventory": {
                "@odata.type": "#DellSoftwareInventory.v1_1_1.DellSoftwareInventory",
                "ComponentID": number,
                "ComponentType": "BIOS" if name == "BIOS" else "FRMW",
                "ElementName": name,
                "Status": "Installed" if ident.startswith(("Installed", "Current")) else "AvailableForInstallation",
            },
        }
        items[ident] = {
            "Name": name,
            "Version": version,
            "SoftwareId": number,
            "ReleaseDate": "2026-02-01T00:00:00Z",
            "Oem": {"Dell": oem},
        }
        if fqdd.startswith("NIC"):
            items[ident]["Name"] = name.rpartition(" - ")[0] + f" - %%MAC{fqdd[-3]}%%"
    push = below(ROOT, "UpdateService", "FirmwareInventory")
    services.update_service(
        b, items, push="", multipart=below(ROOT, "UpdateService", "MultipartUpload"), HttpPushUri=push
    )


def _switches(b: Builder) -> None:
    """What the NIC ports hear by LLDP."""
    members = []
    for n in (1, 2):
        ident = f"NIC.Integrated.1-{n}-1"
        members.append(
            b.add(
                below(SWITCHES, ident), "DellSwitchConnection.v1_1_0", "DellSwitchConnection", Id=ident, FQDD=ident,
                InstanceID=ident, SwitchConnectionID=f"02:5a:00:00:00:{n:02x}", SwitchPortConnectionID=f"Ethernet1/{n}", StaleData="NotStale",
            )
        )  # fmt: skip
    b.collect(SWITCHES, "DellSwitchConnection", "DellSwitchConnectionCollection", members)


def _manager(b: Builder) -> None:
    logs = below(MANAGER, "LogServices")
    entries = [
        log_entry(Happened(n, f"2026-10-0{n}T08:00:00Z", "other", f"The system booted ({n}).", "")) for n in (1, 2, 3)
    ]
    services.log(b, below(logs, "Lclog"), "LifeCycle Controller Log Service", entries, clear=False, LogEntryType="OEM")
    services.log(b, below(logs, "Sel"), "SEL Log Service", [], LogEntryType="SEL")
    b.collect(logs, "LogService", "Log Service Collection", [below(logs, "Lclog"), below(logs, "Sel")])
    services.network_protocol(
        b,
        MANAGER,
        NTP={"ProtocolEnabled": True, "NTPServers": ["10.0.0.1", "10.0.0.2", ""], "NTPServers@odata.count": 3},
    )
    services.manager_interface(b, MANAGER, "NIC.1")
    media = services.virtual_media(b, MANAGER, {"CD": ["CD", "DVD"], "RemovableDisk": ["USBStick"]})
    b.add(
        ATTRIBUTES,
        "DellAttributes.v1_0_0",
        "OEMAttributeRegistry",
        Id="iDRACAttributes",
        AttributeRegistry="ManagerAttributeRegistry.v1_0_0",
        Attributes=_idrac(),
    )
    licences = below(OEM, "DellLicenses")
    licence = b.add(
        below(licences, "FD00000016000000"), "DellLicense.v1_2_0", "DellLicense", LicenseDescription=["iDRAC9 16g Enterprise License"],
        LicensePrimaryStatus="OK", LicenseType="Perpetual", AssignedDevices=["iDRAC.Embedded.1"],
    )  # fmt: skip
    b.collect(licences, "DellLicense", "DellLicenseCollection", [licence])
    b.change(licences, Members=[b.documents[licence]])  # a Dell's list has them whole
    oem = {
        "@odata.type": "#DellOem.v1_3_0.DellOemLinks",
        "DellAttributes": links([ATTRIBUTES]),
        "DellAttributes@odata.count": 1,
        "DellLicenseCollection": link(licences),
        "Jobs": link(DELL_JOBS),
        "DellSwitchConnectionCollection": link(SWITCHES),
    }
    services.manager(
        b, MANAGER, "Manager.v1_17_0", model="16G Monolithic", firmware="7.10.30.00", system=SYSTEM, chassis=CHASSIS,
        LogServices=link(logs), VirtualMedia=link(media),
        Links={
            "ManagerForServers": [link(SYSTEM)], "ManagerForChassis": [link(CHASSIS)], "ManagerInChassis": link(CHASSIS),
            "ActiveSoftwareImage": link(below(ROOT, "UpdateService", "FirmwareInventory", IDRAC)), "Oem": {"Dell": oem},
        },
        Actions={
            "#Manager.Reset": {"target": f"{MANAGER}/Actions/Manager.Reset", "ResetType@Redfish.AllowableValues": ["GracefulRestart"]},
            "#Manager.ResetToDefaults": {
                "target": f"{MANAGER}/Actions/Manager.ResetToDefaults",
                "ResetType@Redfish.AllowableValues": ["ResetAll", "PreserveNetworkAndUsers"],
            },
        },
    )  # fmt: skip
    b.collect(below(ROOT, "Managers"), "Manager", "Manager Collection", [MANAGER])


def _idrac() -> dict[str, Any]:
    """Some of the thousand: those that tell users, time, names, log targets, certificate, lockdown."""
    found: dict[str, Any] = {
        "Info.1.Version": "7.10.30.00", "Info.1.ServerGen": "16G", "CurrentNIC.1.MACAddress": "%%MAC200%%",
        "CurrentNIC.1.DNSRacName": "%%NAME%%", "NIC.1.DNSRacName": "%%NAME%%", "CurrentIPv4.1.Address": "%%IP%%",
        "CurrentIPv4.1.DNS1": "10.0.0.53", "CurrentIPv4.1.DNS2": "10.0.1.53", "CurrentIPv6.1.DNS1": "::", "CurrentIPv6.1.DNS2": "::",
        "IPv4.1.DNS1": "10.0.0.53", "IPv4.1.DNS2": "10.0.1.53", "IPv4.1.DHCPEnable": "Disabled",
        "NTPConfigGroup.1.NTPEnable": "Enabled", "NTPConfigGroup.1.NTP1": "10.0.0.1", "NTPConfigGroup.1.NTP2": "10.0.0.2",
        "NTPConfigGroup.1.NTP3": "", "SysLog.1.SysLogEnable": "Enabled", "SysLog.1.Server1": "10.0.0.9", "SysLog.1.Server2": "",
        "SysLog.1.Server3": "", "SysLog.1.Port": 514, "Lockdown.1.SystemLockdown": "Disabled", "SSH.1.Enable": "Enabled",
        "SSH.1.Port": 22, "SSH.1.Timeout": 1800, "IPMILan.1.Enable": "Disabled", "IPMILan.1.PrivLimit": "Administrator",
        "WebServer.1.Enable": "Enabled", "WebServer.1.HttpsPort": 443, "WebServer.1.TLSProtocol": "TLS 1.2 and Higher",
        "WebServer.1.Timeout": 1800, "SNMP.1.AgentEnable": "Disabled", "Racadm.1.Enable": "Enabled", "VNCServer.1.Enable": "Disabled",
        "Time.1.Timezone": "UTC", "SwitchConnectionView.1.Enable": "Enabled", "NIC.1.SwitchConnection": "02:5a:00:00:00:ff",
        "NIC.1.SwitchPortConnection": "Ethernet2/1", "SecurityCertificate.1.CertificateType": "WEBSERVER_SSL",
        "SecurityCertificate.1.CertValidFrom": "Jan 01 00:00:00 2026 GMT", "SecurityCertificate.1.CertValidTo": "Jan 01 00:00:00 2036 GMT",
        "SecurityCertificate.1.Issuer": "C=NL, O=Example, CN=Example CA", "SecurityCertificate.1.Subject": "C=NL, O=Example, CN=%%NAME%%",
    }  # fmt: skip
    for n in range(1, 17):
        name, privilege = {2: ("%%USER%%", 511), 3: ("monitor", 1)}.get(n, ("", 0))
        found |= {
            f"Users.{n}.UserName": name,
            f"Users.{n}.Enable": "Enabled" if name else "Disabled",
            f"Users.{n}.Privilege": privilege,
            f"Users.{n}.Password": None,
            f"Users.{n}.IpmiLanPrivilege": "No Access",
        }
    return found
