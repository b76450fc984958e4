"""The standard services of a BMC (DSP0268): root, sessions, accounts, events, tasks, updates, registries, logs, manager."""

from __future__ import annotations

from typing import Any

from metalimmu_emulator.fleet.identity import NOW
from metalimmu_emulator.fleet.makes.builder import ROOT, Builder, Doc, below, link, ok

PRIVILEGES = {
    "Administrator": ["Login", "ConfigureManager", "ConfigureUsers", "ConfigureComponents", "ConfigureSelf"],
    "Operator": ["Login", "ConfigureComponents", "ConfigureSelf"],
    "ReadOnly": ["Login", "ConfigureSelf"],
}
PASSWORDS = {"monitor": ("look but do not touch", "ReadOnly")}  # beside the fleet's own account
EXPAND = {"ExpandAll": True, "Levels": True, "Links": True, "NoLinks": True}


def root(b: Builder, kind: str, redfish: str, *, levels: int | None, **fields: Any) -> None:
    """`levels` None: no `$expand`. Also /redfish, and the OData service document."""
    expand = (
        EXPAND | {"MaxLevels": levels}
        if levels
        else {"ExpandAll": False, "Levels": False, "Links": False, "NoLinks": False}
    )
    services = {
        "Systems": "Systems", "Chassis": "Chassis", "Managers": "Managers", "SessionService": "SessionService",
        "AccountService": "AccountService", "EventService": "EventService", "Tasks": "TaskService",
        "UpdateService": "UpdateService", "Registries": "Registries", "CertificateService": "CertificateService",
    }  # fmt: skip
    b.add(
        ROOT,
        kind,
        "Root Service",
        Id="RootService",
        RedfishVersion=redfish,
        UUID="%%UUID99%%",
        **{n: link(below(ROOT, p)) for n, p in services.items()},
        ProtocolFeaturesSupported={
            "ExcerptQuery": False, "FilterQuery": False, "OnlyMemberQuery": True, "SelectQuery": True,
            "ExpandQuery": expand, "DeepOperations": {"DeepPATCH": False, "DeepPOST": False},
        },
        Links={"Sessions": link(below(ROOT, "SessionService", "Sessions"))},
        **fields,
    )  # fmt: skip
    certificates(b)
    b.documents["/redfish"] = {"v1": "/redfish/v1/"}
    entries = [{"name": n, "kind": "Singleton", "url": below(ROOT, p)} for n, p in services.items()]
    entries.append({"name": "Sessions", "kind": "Singleton", "url": below(ROOT, "SessionService", "Sessions")})
    b.documents[below(ROOT, "odata")] = {
        "@odata.context": "/redfish/v1/$metadata",
        "value": [{"name": "Service", "kind": "Singleton", "url": "/redfish/v1/"}, *entries],
    }


def certificates(b: Builder) -> None:
    uri = below(ROOT, "CertificateService")
    b.add(
        uri, "CertificateService.v1_0_5", "Certificate Service", CertificateLocations=link(below(uri, "CertificateLocations")),
        Actions={"#CertificateService.ReplaceCertificate": {"target": f"{uri}/Actions/CertificateService.ReplaceCertificate"}},
    )  # fmt: skip
    b.add(
        below(uri, "CertificateLocations"),
        "CertificateLocations.v1_0_3",
        "Certificate Locations",
        Links={"Certificates": []},
    )


def sessions(b: Builder, **fields: Any) -> None:
    uri = below(ROOT, "SessionService")
    where = below(uri, "Sessions")
    b.add(
        uri, "SessionService.v1_1_9", "Session Service", ServiceEnabled=True, SessionTimeout=1800, Status=ok(),
        Sessions=link(where), **fields,
    )  # fmt: skip
    b.collect(where, "Session", "Session Collection", [])


def accounts(b: Builder, users: dict[str, tuple[str, str]], **fields: Any) -> str:
    """`users`: id -> (user name, role). Returns the collection."""
    uri = below(ROOT, "AccountService")
    where, roles = below(uri, "Accounts"), below(uri, "Roles")
    b.add(
        uri, "AccountService.v1_15_1", "Account Service", ServiceEnabled=True, Accounts=link(where), Roles=link(roles),
        Status=ok(), AuthFailureLoggingThreshold=3, MinPasswordLength=8, MaxPasswordLength=64, AccountLockoutThreshold=5,
        AccountLockoutDuration=60, AccountLockoutCounterResetAfter=60, **fields,
    )  # fmt: skip
    for ident, (name, role) in users.items():
        account(b, below(where, ident), name, role)
    b.collect(where, "ManagerAccount", "Accounts", [below(where, i) for i in users])
    for name, privileges in PRIVILEGES.items():
        b.add(
            below(roles, name), "Role.v1_3_2", f"{name} Role", RoleId=name, IsPredefined=True, AssignedPrivileges=privileges,
            OemPrivileges=[],
        )  # fmt: skip
    b.collect(roles, "Role", "Roles", [below(roles, n) for n in PRIVILEGES])
    return where


def account(b: Builder, uri: str, name: str, role: str, **fields: Any) -> str:
    return b.add(
        uri, "ManagerAccount.v1_12_1", "User Account", UserName=name, Password=None, RoleId=role, Enabled=bool(name),
        Locked=False, AccountTypes=["Redfish"], Links={"Role": link(below(ROOT, "AccountService", "Roles", role))}, **fields,
    )  # fmt: skip


def events(b: Builder, **fields: Any) -> None:
    uri = below(ROOT, "EventService")
    b.add(
        uri, "EventService.v1_10_3", "Event Service", ServiceEnabled=True, DeliveryRetryAttempts=3,
        DeliveryRetryIntervalSeconds=30, EventFormatTypes=["Event"], Subscriptions=link(below(uri, "Subscriptions")),
        Status=ok(), **fields,
    )  # fmt: skip
    b.collect(below(uri, "Subscriptions"), "EventDestination", "Event Subscriptions", [])


def task_service(b: Builder) -> str:
    uri = below(ROOT, "TaskService")
    where = below(uri, "Tasks")
    b.add(
        uri, "TaskService.v1_2_1", "Task Service", ServiceEnabled=True, DateTime=NOW, CompletedTaskOverWritePolicy="Oldest",
        LifeCycleEventOnTaskStateChange=False, Tasks=link(where), Status=ok(),
    )  # fmt: skip
    return b.collect(where, "Task", "Task Collection", [])


def update_service(b: Builder, items: dict[str, Doc], *, push: str, multipart: str, **fields: Any) -> str:
    """`items`: id -> fields of a SoftwareInventory. Returns the inventory's collection."""
    uri = below(ROOT, "UpdateService")
    where = below(uri, "FirmwareInventory")
    known: Doc = {"MultipartHttpPushUri": multipart} if multipart else {}
    if push:
        known["HttpPushUri"] = push
    b.add(
        uri, "UpdateService.v1_14_0", "Update Service", ServiceEnabled=True, FirmwareInventory=link(where), Status=ok(),
        **(known | {"Actions": simple_update(uri)} | fields),
    )  # fmt: skip
    for ident, said in items.items():
        name = said.get("Name", ident)
        more = {"Updateable": True, "Status": ok()} | {k: v for k, v in said.items() if k != "Name"}
        b.add(below(where, ident), "SoftwareInventory.v1_10_2", name, **more)
    return b.collect(where, "SoftwareInventory", "Firmware Inventory", [below(where, i) for i in items])


def simple_update(uri: str) -> Doc:
    return {
        "#UpdateService.SimpleUpdate": {
            "target": f"{uri}/Actions/UpdateService.SimpleUpdate",
            "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"],
        }
    }


def registries(b: Builder, files: dict[str, tuple[str, str]]) -> None:
    """`files`: id of the MessageRegistryFile -> (Registry, URI of the document)."""
    where = below(ROOT, "Registries")
    for ident, (name, uri) in files.items():
        b.add(
            below(where, ident), "MessageRegistryFile.v1_1_3", f"{ident} Registry File", Registry=name, Languages=["en"],
            Location=[{"Language": "en", "Uri": uri}],
        )  # fmt: skip
    b.collect(where, "MessageRegistryFile", "Registry File Collection", [below(where, i) for i in files])


def log(b: Builder, uri: str, name: str, entries: list[Doc], *, clear: bool = True, **fields: Any) -> str:
    """A LogService with `entries`, numbered from 1, newest first. Returns the Entries collection."""
    where = below(uri, "Entries")
    actions = {"#LogService.ClearLog": {"target": f"{uri}/Actions/LogService.ClearLog"}} if clear else {}
    more: Doc = {"Actions": actions} if actions else {}
    b.add(
        uri, "LogService.v1_7_0", name, ServiceEnabled=True, MaxNumberOfRecords=1000, OverWritePolicy="WrapsWhenFull",
        DateTime=NOW, DateTimeLocalOffset="+00:00", Entries=link(where), Status=ok(), **(more | fields),
    )  # fmt: skip
    numbers = range(len(entries), 0, -1)
    for number, entry in zip(numbers, reversed(entries), strict=True):
        b.documents[below(where, str(number))] = {"@odata.id": below(where, str(number))} | entry
    return b.collect(where, "LogEntry", f"{name} Entries", [below(where, str(n)) for n in numbers])


def manager(
    b: Builder, uri: str, kind: str, *, model: str, firmware: str, system: str, chassis: str, **fields: Any
) -> str:
    b.add(
        uri,
        kind,
        "Manager",
        **{
            "ManagerType": "BMC",
            "Model": model,
            "UUID": "%%UUID99%%",
            "FirmwareVersion": firmware,
            "DateTime": NOW,
            "DateTimeLocalOffset": "+00:00",
            "Status": ok(),
            "NetworkProtocol": link(below(uri, "NetworkProtocol")),
            "EthernetInterfaces": link(below(uri, "EthernetInterfaces")),
            "Actions": {
                "#Manager.Reset": {
                    "target": f"{uri}/Actions/Manager.Reset",
                    "ResetType@Redfish.AllowableValues": ["GracefulRestart", "ForceRestart"],
                },
                "#Manager.ResetToDefaults": {
                    "target": f"{uri}/Actions/Manager.ResetToDefaults",
                    "ResetType@Redfish.AllowableValues": ["ResetAll", "PreserveNetworkAndUsers"],
                },
            },
            "Links": {
                "ManagerForServers": [link(system)],
                "ManagerForChassis": [link(chassis)],
                "ManagerInChassis": link(chassis),
            },
        }
        | fields,
    )
    return uri


def network_protocol(b: Builder, uri: str, **fields: Any) -> str:
    where = below(uri, "NetworkProtocol")
    certificates = https_certificate(b, where)
    return b.add(
        where,
        "ManagerNetworkProtocol.v1_10_1",
        "Manager Network Protocol",
        **{
            "HostName": "%%NAME%%",
            "FQDN": "%%NAME%%.bmc.example.net",
            "HTTP": {"ProtocolEnabled": False, "Port": 80},
            "HTTPS": {"ProtocolEnabled": True, "Port": 443, "Certificates": link(certificates)},
            "SSH": {"ProtocolEnabled": True, "Port": 22},
            "IPMI": {"ProtocolEnabled": False, "Port": 623},
            "SNMP": {"ProtocolEnabled": False, "Port": 161},
            "NTP": {"ProtocolEnabled": True, "NTPServers": ["10.0.0.1", "10.0.0.2"]},
            "Status": ok(),
        }
        | fields,
    )


def https_certificate(b: Builder, uri: str) -> str:
    where = below(uri, "HTTPS", "Certificates")
    one = below(where, "1")
    name = {
        "CommonName": "%%NAME%%",
        "Organization": "Example",
        "OrganizationalUnit": "Servers",
        "Country": "NL",
        "State": "NH",
        "City": "Amsterdam",
    }
    b.add(
        one, "Certificate.v1_8_2", "HTTPS Certificate", CertificateType="PEM", CertificateString=None,
        ValidNotBefore="2026-01-01T00:00:00Z", ValidNotAfter="2036-01-01T00:00:00Z", Subject=name,
        Issuer=name | {"CommonName": "Example CA"}, KeyUsage=["DigitalSignature"], SerialNumber="%%SERIAL400%%",
    )  # fmt: skip
    return b.collect(where, "Certificate", "HTTPS Certificates", [one])


def manager_interface(b: Builder, uri: str, ident: str = "1", **fields: Any) -> str:
    where = below(uri, "EthernetInterfaces")
    b.add(
        below(where, ident),
        "EthernetInterface.v1_10_0",
        "Manager NIC",
        **{
            "MACAddress": "%%MAC200%%",
            "PermanentMACAddress": "%%MAC200%%",
            "InterfaceEnabled": True,
            "LinkStatus": "LinkUp",
            "SpeedMbps": 1000,
            "FullDuplex": True,
            "HostName": "%%NAME%%",
            "FQDN": "%%NAME%%.bmc.example.net",
            "IPv4Addresses": [{"Address": "%%IP%%", "SubnetMask": "255.0.0.0", "AddressOrigin": "Static", "Gateway": "127.0.0.1"}],
            "NameServers": ["10.0.0.53", "10.0.1.53"],
            "StaticNameServers": ["10.0.0.53", "10.0.1.53"],
            "Status": ok(),
        }
        | fields,
    )  # fmt: skip
    return b.collect(where, "EthernetInterface", "Manager NICs", [below(where, ident)])


def virtual_media(
    b: Builder, uri: str, slots: dict[str, list[str]], *, actions: bool = True, eject: bool = True
) -> str:
    """`slots`: id -> MediaTypes. Returns the collection below `uri`."""
    where = below(uri, "VirtualMedia")
    for ident, types in slots.items():
        one = below(where, ident)
        verbs = ["InsertMedia", *(["EjectMedia"] if eject else [])] if actions else []
        found: Doc = {f"#VirtualMedia.{v}": {"target": f"{one}/Actions/VirtualMedia.{v}"} for v in verbs}
        b.add(
            one, "VirtualMedia.v1_6_3", f"Virtual Media {ident}", MediaTypes=types, Image=None, ImageName=None,
            Inserted=False, ConnectedVia="NotConnected", WriteProtected=True, **({"Actions": found} if found else {}),
        )  # fmt: skip
    return b.collect(where, "VirtualMedia", "Virtual Media", [below(where, i) for i in slots])


def bios(
    b: Builder, system: str, values: Doc, *, registry: str, settings: str, shown: Doc | None, version: str = "Bios.v1_2_1",
    support: list[str] | None = None, name: str = "Bios", **fields: Any,
) -> str:  # fmt: skip
    """`shown`: the settings object's Attributes while nothing is staged, None: it has no such property."""
    uri = below(system, name)
    b.add(
        below(uri, settings),
        version,
        "BIOS Pending Settings",
        AttributeRegistry=registry,
        **({} if shown is None else {"Attributes": shown}),
    )
    known: Doc = {"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(below(uri, settings))}
    if support:
        known["SupportedApplyTimes"] = support
    return b.add(
        uri, version, "BIOS Configuration Current Settings", AttributeRegistry=registry, Attributes=values,
        **{"@Redfish.Settings": known},
        Actions={
            "#Bios.ResetBios": {"target": f"{uri}/Actions/Bios.ResetBios"},
            "#Bios.ChangePassword": {"target": f"{uri}/Actions/Bios.ChangePassword"},
        },
        **fields,
    )  # fmt: skip
