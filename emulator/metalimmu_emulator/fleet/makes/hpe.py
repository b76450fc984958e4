"""As a ProLiant with iLO 5 or 6 answers (seen: recordings hpe-dl360-gen10plus-ilo5 and hpe-dl380a-gen12-ilo7).

Weak ETags. Links in another letter case with trailing slashes. The settings object mirrors everything. Firmware ids are ordinals.
The registry's name carries the ROM family. A wrong login is a 400. /redfish/v1 redirects. No `$expand`, no PowerCycle.
"""

from __future__ import annotations

from metalimmu_emulator.fleet.makes import attributes, hardware, services
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link
from metalimmu_emulator.fleet.makes.hardware import Hardware
from metalimmu_emulator.fleet.template import Happened, Places, Template, Traits

SYSTEM, MANAGER, CHASSIS = below(ROOT, "Systems", "1"), below(ROOT, "Managers", "1"), below(ROOT, "Chassis", "1")
FAMILY, BIOS_VERSION = "U54", "2.16"
REGISTRY_NAME = f"BiosAttributeRegistry{FAMILY}.v1_2_16"
REGISTRY = below(ROOT, "RegistryStore", "registries", "en", REGISTRY_NAME.lower())
RESETS = ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "Nmi", "PushPowerButton", "GracefulRestart"]
HARDWARE = Hardware(
    "HPE", "ProLiant DL360 Gen11", f"{FAMILY} v{BIOS_VERSION} (03/01/2026)", sku="P52499-B21", disk_model="VK000960GZXRD",
    watts=800, cpu="Intel(R) Xeon(R) Silver 4416+", cores=20,
    names={"cpu": "{n}", "dimm": "proc1dimm{n}", "disk": "{x}", "nic": "{n}", "psu": "{x}", "boot": "{n}", "controller": "DE00A000"},
)  # fmt: skip
# Ordinals that shift when hardware changes; several items of one name.
ITEMS = (
    ("iLO 6", "iLO", "1.55 Nov 02 2025", "System Board"),
    ("System ROM", "SystemRomActive", f"{FAMILY} v{BIOS_VERSION} (03/01/2026)", "System Board"),
    ("Redundant System ROM", "SystemRomBackup", f"{FAMILY} v1.44 (08/01/2025)", "System Board"),
    ("System Programmable Logic Device", "CPLD", "0x12", "System Board"),
    ("Power Management Controller Firmware", "PMC", "1.1.0", "System Board"),
    ("Innovation Engine (IE) Firmware", "IE", "6.0.4.41", "System Board"),
    ("Server Platform Services (SPS) Firmware", "SPS", "6.0.4.47", "System Board"),
    ("Intelligent Provisioning", "IP", "4.21.3", "System Board"),
    ("TPM Firmware", "TPM", "73.64", "System Board"),
    ("HPE Eth 10/25Gb 2p 631SFP28 Adptr", "NIC", "225.1.110.0", "PCI-E Slot 1"),
    ("HPE Eth 10/25Gb 2p 631SFP28 Adptr", "NIC", "225.1.110.0", "PCI-E Slot 2"),
    ("HPE MR416i-o Gen11", "RAID", "52.24.3-4948", "OCP Slot 1"),
    ("VK000960GZXRD", "Drive", "HPG1", "Slot=12:Port=1:Box=1:Bay=1"),
    ("VK000960GZXRD", "Drive", "HPG1", "Slot=12:Port=1:Box=1:Bay=2"),
    ("Power Supply Firmware", "PSU", "1.04", "Bay 1"),
    ("Power Supply Firmware", "PSU", "1.04", "Bay 2"),
    ("Embedded Video Controller", "Video", "2.5", "Embedded Device"),
)


def build() -> Template:
    b = Builder("hpe", context=True, etag=True)
    found = attributes.load("hpe")
    services.root(
        b, "ServiceRoot.v1_13_0", "1.13.0", levels=None, Vendor="HPE", Product=HARDWARE.model,
        Oem={"Hpe": {"@odata.type": "#HpeiLOServiceExt.v2_5_0.HpeiLOServiceExt", "Manager": [{"ManagerFirmwareVersion": "1.55", "ManagerType": "iLO 6", "HostName": "%%NAME%%"}]}},
    )  # fmt: skip
    b.documents[ROOT]["@odata.id"] = f"{ROOT}/"
    services.sessions(b)
    services.accounts(b, {"1": ("%%USER%%", "Administrator"), "2": ("monitor", "ReadOnly")})
    services.events(b)
    services.task_service(b)
    items: dict[str, Doc] = {}
    for n, (name, description, version, where) in enumerate(ITEMS, 1):
        oem = {
            "@odata.type": "#HpeiLOSoftwareInventory.v2_0_0.HpeiLOSoftwareInventory",
            "DeviceClass": f"%%UUID{500 + n}%%",
            "DeviceContext": where,
        }
        items[str(n)] = {"Name": name, "Description": description, "Version": version, "Oem": {"Hpe": oem}}
    services.update_service(b, items, push="/cgi-bin/uploadFile", multipart="")
    services.registries(b, {REGISTRY_NAME: (REGISTRY_NAME, REGISTRY + "/")})
    system = {"model": HARDWARE.model, "firmware": BIOS_VERSION, "owner": "HPE"}
    b.documents[REGISTRY] = attributes.registry(found, REGISTRY_NAME, "1.2.16", system=system)
    hardware.chassis(b, CHASSIS, HARDWARE, system_uri=SYSTEM, manager=MANAGER, old_power=True)
    hardware.network_adapters(b, CHASSIS, HARDWARE, cards=2)
    b.collect(below(ROOT, "Chassis"), "Chassis", "Computer System Chassis", [CHASSIS])
    bios = _bios(b, found)
    hardware.system(
        b, SYSTEM, HARDWARE, kind="ComputerSystem.v1_17_0", manager=MANAGER, chassis=CHASSIS,
        Bios=link("/redfish/v1/systems/1/bios/"), Actions=hardware.reset_action(SYSTEM, RESETS),
    )  # fmt: skip
    b.collect(below(ROOT, "Systems"), "ComputerSystem", "Computer Systems", [SYSTEM])
    logs = _manager(b)
    return b.build(
        traits=Traits(
            etags="weak", expand="absent", any_case=True, root_redirects=True, pending="mirror", login_refused=400,
            session_limit=12,
        ),
        places=Places(
            system=SYSTEM, bios=bios, settings=below(bios, "settings"), registry=REGISTRY, manager=MANAGER,
            firmware=below(ROOT, "UpdateService", "FirmwareInventory"), update=below(ROOT, "UpdateService"),
            accounts=below(ROOT, "AccountService", "Accounts"), tasks=below(ROOT, "TaskService", "Tasks"),
            log=logs[0], logs=logs, chassis=CHASSIS, protocol=below(MANAGER, "NetworkProtocol"),
        ),
        log_entry=log_entry,
        defaults=found.values,
        passwords=services.PASSWORDS,
        firmware={"bmc": ("1",), "bios": ("2",), "nic": ("10", "11"), "cpld": ("4",), "psu": ("15", "16")},
    )  # fmt: skip


def _bios(b: Builder, found: attributes.Bios) -> str:
    """The tree has Systems/1/bios; the links say systems/1/bios/."""
    uri = services.bios(
        b, SYSTEM, found.values, name="bios", version="Bios.v1_0_4", registry=REGISTRY_NAME, settings="settings", shown=found.values,
    )  # fmt: skip
    b.change(uri, **{"@Redfish.Settings": {
        "@odata.type": "#Settings.v1_0_0.Settings", "ETag": "", "Messages": [{"MessageId": "Base.1.0.Success"}],
        "SettingsObject": link("/redfish/v1/systems/1/bios/settings/"), "Time": None,
    }})  # fmt: skip
    return uri


def log_entry(happened: Happened) -> Doc:
    """An entry of the iLO event log: the account is in the text."""
    text = f"{happened.text.rstrip('.')} by: {happened.user}." if happened.user else happened.text
    categories = {"bios": "Maintenance", "firmware": "Firmware", "account": "Security", "power": "Power"}
    oem = {
        "@odata.type": "#HpeLogEntry.v2_4_0.HpeLogEntry",
        "Categories": [categories.get(happened.what, "Administration")],
        "Class": 35, "ClassDescription": "iLO 6", "Code": 1018, "Count": 1, "EventNumber": happened.number,
        "Severity": "Informational", "Updated": happened.at,
    }  # fmt: skip
    return {
        "@odata.type": "#LogEntry.v1_11_0.LogEntry",
        "@odata.context": "/redfish/v1/$metadata#LogEntry.LogEntry",
        "Id": str(happened.number),
        "Name": "iLO Event Log",
        "EntryType": "Oem",
        "OemRecordFormat": "Hpe-iLOEventLog",
        "Severity": "OK",
        "Created": happened.at,
        "Message": text,
        "MessageArgs": [],
        "MessageId": "35.1018",
        "Oem": {"Hpe": oem},
    }


def _manager(b: Builder) -> tuple[str, ...]:
    logs = below(MANAGER, "LogServices")
    entries = [
        log_entry(Happened(n, f"2026-10-0{n}T08:00:00Z", "power", f"Server power restored ({n}).", ""))
        for n in (1, 2, 3)
    ]
    event = services.log(b, below(logs, "IEL"), "iLO Event Log", entries)
    b.collect(logs, "LogService", "Logs", [below(logs, "IEL")])
    iml = services.log(b, below(SYSTEM, "LogServices", "IML"), "Integrated Management Log", [])
    b.collect(below(SYSTEM, "LogServices"), "LogService", "Logs", [below(SYSTEM, "LogServices", "IML")])
    b.change(SYSTEM, LogServices=link(below(SYSTEM, "LogServices")))
    services.network_protocol(
        b, MANAGER, FQDN="", KVMIP={"ProtocolEnabled": True, "Port": 17990}, VirtualMedia={"ProtocolEnabled": True, "Port": 17988},
        Oem={"Hpe": {"@odata.type": "#HpeiLOManagerNetworkService.v2_3_0.HpeiLOManagerNetworkService", "RemoteSyslogEnabled": True, "RemoteSyslogPort": 514, "RemoteSyslogServer": "10.0.0.9"}},
    )  # fmt: skip
    b.drop(below(MANAGER, "NetworkProtocol"), "NTP")
    b.documents[below(MANAGER, "NetworkProtocol")]["HTTPS"].pop("Certificates")
    services.manager_interface(b, MANAGER, "1")
    media = services.virtual_media(b, MANAGER, {"1": ["Floppy", "USBStick"], "2": ["CD", "DVD"]})
    oem = _oem(b)
    services.manager(
        b, MANAGER, "Manager.v1_17_0", model="iLO 6", firmware="iLO 6 v1.55", system=SYSTEM, chassis=CHASSIS,
        LogServices=link(logs), VirtualMedia=link(media), Oem={"Hpe": oem},
    )  # fmt: skip
    b.collect(below(ROOT, "Managers"), "Manager", "Managers", [MANAGER])
    return event, iml


def _oem(b: Builder) -> Doc:
    """Time, and the certificate, under Oem."""
    clock = b.add(
        below(MANAGER, "DateTime"), "HpeiLODateTime.v2_0_0", "iLO Date and Time Settings", ConfigurationSettings="Current",
        DateTime="%%NOW%%", NTPServers=["10.0.0.1", "10.0.0.2"], StaticNTPServers=["10.0.0.1", "10.0.0.2"],
        PropagateTimeToHost=False, TimeZone={"Index": 15, "Name": "Greenwich Mean Time, Casablanca, Monrovia", "UtcOffset": "+00:00"},
    )  # fmt: skip
    security = below(MANAGER, "SecurityService")
    certificate = b.add(
        below(security, "HttpsCert"), "HpeHttpsCert.v2_0_0", "Https Certificate",
        X509CertificateInformation={
            "Issuer": "C=NL, O=Example, CN=Example CA", "SerialNumber": "%%SERIAL400%%",
            "Subject": "C=NL, O=Example, CN=%%NAME%%", "ValidNotAfter": "2036-01-01T00:00:00Z", "ValidNotBefore": "2026-01-01T00:00:00Z",
        },
    )  # fmt: skip
    b.add(
        security,
        "HpeiLOSecurityService.v2_3_0",
        "SecurityService",
        SecurityState="Production",
        Links={"HttpsCert": link(certificate)},
    )
    licences = below(MANAGER, "LicenseService")
    licence = b.add(
        below(licences, "1"), "HpeiLOLicense.v2_3_0", "iLO License", License="iLO Advanced", LicenseType="Perpetual",
        LicenseClass="FQL", LicenseTier="ADV",
    )  # fmt: skip
    b.collect(licences, "HpeiLOLicense", "iLO License Service", [licence])
    return {
        "@odata.type": "#HpeiLO.v2_13_0.HpeiLO",
        "License": {"LicenseString": "iLO Advanced", "LicenseType": "Perpetual"},
        "Links": {
            "DateTimeService": link(clock),
            "LicenseService": link(licences),
            "SecurityService": link(security),
        },
    }
