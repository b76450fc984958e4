"""A BMC in memory for readers (see metalimmu.bmc.ask): a tree of documents, with `$expand` and faults, and no sockets."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metalimmu.bmc import uris
from metalimmu.bmc.ask import Ask, Reply, drive
from metalimmu.bmc.walk import MakeKey, Remembered, Want, walk
from metalimmu.errors import BmcError
from metalimmu.observed.snapshot import Snapshot

NOW = 1_800_000_000.0
V1 = "/redfish/v1"


@dataclass
class Target:
    name: str = "node-1"
    system: str | None = None


class Memory(dict[MakeKey, Remembered]):
    """A PathMemory."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    def put(self, key: MakeKey, remembered: Remembered) -> None:
        self.puts += 1
        self[key] = remembered


@dataclass
class Recorded:
    """`expand`: right | links (ignored) | poor (members without Version and BootOptionReference) | 400."""

    tree: dict[str, bytes]
    expand: str = "right"
    headers: dict[str, str] = field(default_factory=dict)
    peer: bytes = b""
    asked: list[str] = field(default_factory=list)
    faults: dict[str, Reply | BmcError] = field(default_factory=dict)

    def fetch(self, ask: Ask) -> Reply:
        self.asked.append(ask.path)
        key = uris.key(ask.uri)
        fault = self.faults.get(key) or self.faults.get("*")
        if isinstance(fault, BmcError):
            return Reply(0, error=fault)
        if fault is not None:
            return fault
        if ask.expand and self.expand == "400":
            return Reply(400, self.headers, b"{}", at=NOW)
        body = self.tree.get(key)
        if body is None:
            return Reply(404, self.headers, b"{}", at=NOW, peer=self.peer)
        if ask.expand and self.expand != "links":
            body = self._expanded(body)
        return Reply(200, self.headers, body, at=NOW, peer=self.peer)

    def _expanded(self, body: bytes) -> bytes:
        document = json.loads(body)
        members = document.get("Members") if isinstance(document, dict) else None
        for n, member in enumerate(members if isinstance(members, list) else []):
            try:
                full = json.loads(self.tree.get(uris.key(member["@odata.id"]), b"null"))
            except (ValueError, TypeError, LookupError, AttributeError):
                full = None
            if isinstance(full, dict):
                left_out = ("Version", "BootOptionReference") if self.expand == "poor" else ()
                document["Members"][n] = {k: v for k, v in full.items() if k not in left_out}
        return json.dumps(document).encode()

    def edit(self, uri: str, change: Callable[[Any], Any]) -> None:
        """`change` gets the document, and returns another or edits it."""
        document = json.loads(self.tree[uris.key(uri)])
        changed = change(document)
        self.tree[uris.key(uri)] = json.dumps(document if changed is None else changed).encode()

    def walk(
        self,
        want: Want | None = None,
        memory: Memory | None = None,
        known: MakeKey | None = None,
        target: Target | None = None,
    ) -> Snapshot:
        self.asked.clear()
        return drive(walk(target or Target(), want, memory, known=known, now=lambda: NOW), self.fetch)


def from_zip(path: Path) -> Recorded:
    tree = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("index.json"):
                tree[uris.key("/" + name.removesuffix("index.json"))] = archive.read(name)
    return Recorded(tree)


def from_documents(*documents: dict[str, Any]) -> Recorded:
    return Recorded({uris.key(d["@odata.id"]): json.dumps(d).encode() for d in documents})


def link(*parts: str) -> dict[str, str]:
    return {"@odata.id": "/".join((V1, *parts))}


def collection(path: str, *members: str) -> dict[str, Any]:
    return link(path) | {"Members": [link(path, m) for m in members], "Members@odata.count": len(members)}


def small(vendor: str = "Contoso", items: int = 3) -> Recorded:
    """A machine whose BMC offers `$expand`; `items` firmware items."""
    names = ["BIOS", "BMC", *(f"NIC{n}" for n in range(1, items - 1))][:items]
    return from_documents(
        link() | {
            "RedfishVersion": "1.15.0", "Vendor": vendor, "Systems": link("Systems"), "Managers": link("Managers"),
            "UpdateService": link("UpdateService"), "AccountService": link("AccountService"), "Tasks": link("TaskService"),
            "ProtocolFeaturesSupported": {"ExpandQuery": {"Levels": True, "NoLinks": True, "MaxLevels": 1}},
        },
        collection("Systems", "1"),
        link("Systems", "1") | {
            "Id": "1", "Manufacturer": vendor, "Model": "S1", "SerialNumber": "SN000001", "PowerState": "On",
            "BiosVersion": "1.0", "Bios": link("Systems", "1", "Bios"), "SecureBoot": link("Systems", "1", "SecureBoot"),
            "Status": {"Health": "OK", "HealthRollup": "Warning"},
            "Boot": {
                "BootOrder": ["Boot0001", "Boot0000"], "BootOptions": link("Systems", "1", "BootOptions"),
                "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideMode": "UEFI",
            },
            "Links": {"ManagedBy": [link("Managers", "1")]},
        },
        link("Systems", "1", "Bios") | {
            "Attributes": {"Turbo": "On", "Cores": 8, "Sriov": True, "SetupPassword": None, "Url": None},
            "@Redfish.Settings": {"SettingsObject": link("Systems", "1", "Bios", "SD")},
            "AttributeRegistry": "Reg.v1_0_0",
        },
        link("Systems", "1", "Bios", "SD") | {"Attributes": {"Turbo": "Off", "Cores": 8, "SetupPassword": "hunter2"}},
        link("Systems", "1", "SecureBoot") | {"SecureBootEnable": True, "SecureBootMode": "UserMode"},
        collection("Systems/1/BootOptions", "Boot0000", "Boot0001"),
        link("Systems/1/BootOptions", "Boot0000") | {"BootOptionReference": "Boot0000", "DisplayName": "UEFI PXEv4 (MAC:001122334455)"},
        link("Systems/1/BootOptions", "Boot0001") | {"BootOptionReference": "Boot0001", "DisplayName": "Debian"},
        collection("Managers", "1"),
        link("Managers", "1") | {
            "Id": "1", "FirmwareVersion": "2.0", "Model": "B1", "DateTime": "2027-01-15T08:00:00Z",
            "NetworkProtocol": link("Managers", "1", "NetworkProtocol"),
            "EthernetInterfaces": link("Managers", "1", "EthernetInterfaces"),
        },
        link("Managers", "1", "NetworkProtocol") | {
            "SSH": {"ProtocolEnabled": True, "Port": 22}, "IPMI": {"ProtocolEnabled": False},
            "NTP": {"ProtocolEnabled": True, "NTPServers": ["10.0.0.1", "", "10.0.0.1", "10.0.0.2"]},
            "HTTPS": {"ProtocolEnabled": True, "Certificates": link("Managers/1/NetworkProtocol/HTTPS/Certificates")},
        },
        collection("Managers/1/NetworkProtocol/HTTPS/Certificates", "1"),
        link("Managers/1/NetworkProtocol/HTTPS/Certificates/1") | {
            "ValidNotAfter": "2030-01-01T01:00:00+01:00", "Issuer": {"CommonName": "CA", "Organization": "Contoso"},
        },
        collection("Managers/1/EthernetInterfaces", "ToHost", "eth0"),
        link("Managers/1/EthernetInterfaces/ToHost") | {"NameServers": ["169.254.0.1"]},
        link("Managers/1/EthernetInterfaces/eth0") | {"NameServers": ["::", "10.0.0.53"]},
        link("UpdateService") | {"FirmwareInventory": link("UpdateService", "FirmwareInventory")},
        collection("UpdateService/FirmwareInventory", *names),
        *(
            link("UpdateService/FirmwareInventory", n) | {
                "Id": n, "Name": n, "Version": {"BIOS": "1.0", "BMC": "2.0"}.get(n, "3.1"), "Updateable": True,
            }
            for n in names
        ),
        link("AccountService") | {"Accounts": link("AccountService", "Accounts")},
        collection("AccountService/Accounts", "1", "2", "3"),
        link("AccountService/Accounts/1") | {"UserName": "admin", "Enabled": True, "RoleId": "Administrator"},
        link("AccountService/Accounts/2") | {"UserName": "", "Enabled": True, "RoleId": "None"},
        link("AccountService/Accounts/3") | {"UserName": "old", "Enabled": False, "RoleId": "Operator"},
        link("TaskService") | {"Tasks": link("TaskService", "Tasks")},
        collection("TaskService/Tasks", "1", "2"),
        link("TaskService/Tasks/1") | {"Id": "1", "Name": "Update firmware", "TaskState": "Completed"},
        link("TaskService/Tasks/2") | {
            "Id": "2", "Name": "BIOS settings", "TaskState": "New", "PercentComplete": 5,
        },
    )  # fmt: skip
