"""A fleet of Dell-like BMCs in one process, for the scan benchmarks: as cheap as a TLS server in Python can be, and no cheaper.

`python -m benchmarks.scan_server [--latency SECONDS] [--processes N]` prints its port and the path of its certificate,
and serves until standard input ends. It listens for all of 127.0.0.0/8, so that every BMC has an address of its own.

One system with 250 BIOS attributes and 22 firmware items: 28 requests to read (root, Systems, system, Bios,
UpdateService, FirmwareInventory, 22 items), 6 with `$expand`. Everything but the root wants a session or Basic. One BMC
in ten has another value of `ProcCStates`, one in twenty another firmware version of its first NIC: found by who compares.
`GET /count` tells how often each address was asked, how many sessions are open, and its own CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = "/redfish/v1"
SYSTEM = f"{ROOT}/Systems/System.Embedded.1"
MANAGER = f"{ROOT}/Managers/iDRAC.Embedded.1"
ITEMS = f"{ROOT}/UpdateService/FirmwareInventory"
SESSIONS = f"{ROOT}/SessionService/Sessions"
USER, PASSWORD = "scanner", "fleet-bench-9"
BASIC = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
ATTRIBUTES, FIRMWARE, REQUESTS = 250, 22, 28


def number(address: str) -> int:
    """127.1.0.0 is BMC 0."""
    return int(ipaddress.IPv4Address(address)) - int(ipaddress.IPv4Address("127.1.0.0"))


def address(number: int) -> str:
    return str(ipaddress.IPv4Address("127.1.0.0") + number)


def attributes(number: int) -> dict[str, Any]:
    """As long as real ones: names of 8 to 24 characters, words and numbers."""
    found: dict[str, Any] = {}
    for i in range(ATTRIBUTES - 1):
        value: Any = ("Enabled", "Disabled", "Auto", "OptimizedPower", i * 7)[i % 5]
        found[f"{('Proc', 'Mem', 'Nvme', 'Boot', 'Sriov')[i % 5]}Setting{i:03d}{'Long' * (i % 3)}"] = value
    found["ProcCStates"] = "Enabled" if number % 10 == 3 else "Disabled"
    return found


def firmware(number: int) -> dict[str, str]:
    """Version by name."""
    found = {f"{_device(i)}": f"{i}.{i * 3 % 17}.{i * 5 % 23}" for i in range(FIRMWARE)}
    if number % 20 == 7:
        found[_device(4)] = "1.0.0"
    return found


def _device(i: int) -> str:
    return (
        ("BIOS", "Integrated Dell Remote Access Controller")[i]
        if i < 2
        else f"Broadcom Adv. Dual 25Gb Ethernet - {i:02X}"
    )


def _id(i: int, version: str) -> str:
    device = ("BIOS.Setup.1-1", "iDRAC.Embedded.1-1")[i] if i < 2 else f"NIC.Slot.{i}-1-1"
    return f"Installed-{159 + i}-{version}__{device}"


def link(uri: str) -> dict[str, str]:
    return {"@odata.id": uri}


def tree(number: int) -> dict[str, Any]:
    """Documents by URI."""
    items = [
        {
            "@odata.context": "/redfish/v1/$metadata#SoftwareInventory.SoftwareInventory",
            "@odata.id": f"{ITEMS}/{_id(i, version)}",
            "@odata.type": "#SoftwareInventory.v1_2_3.SoftwareInventory",
            "Description": "Represents Firmware Inventory",
            "Id": _id(i, version),
            "Name": name,
            "Oem": {
                "Dell": {
                    "@odata.type": "#DellSoftwareInventory.v1_1_0.DellSoftwareInventory",
                    "DellSoftwareInventory": {
                        "BuildNumber": 0,
                        "Classifications": ["Firmware"],
                        "DeviceID": f"{i:04X}",
                        "ElementName": name,
                        "HashValue": "3f" * 20,
                        "IdentityInfoValue": [f"DCIM:firmware:{i:04X}:14E4:1028:09D4"],
                        "InstallationDate": "2026-02-11T18:08:43Z",
                        "IsEntity": True,
                        "MajorVersion": i,
                        "Status": "Installed",
                    },
                }
            },
            "RelatedItem": [link(SYSTEM)],
            "RelatedItem@odata.count": 1,
            "ReleaseDate": "2022-09-14T00:00:00Z",
            "SoftwareId": f"{159 + i}",
            "Status": {"Health": "OK", "State": "Enabled"},
            "Updateable": True,
            "Version": version,
        }
        for i, (name, version) in enumerate(firmware(number).items())
    ]
    documents: list[dict[str, Any]] = [
        {
            "@odata.id": f"{ROOT}/",
            "@odata.type": "#ServiceRoot.v1_11_0.ServiceRoot",
            "Id": "RootService",
            "Name": "Root Service",
            "Product": "Integrated Dell Remote Access Controller",
            "RedfishVersion": "1.13.0",
            "Vendor": "Dell",
            "ProtocolFeaturesSupported": {
                "ExpandQuery": {"ExpandAll": True, "Levels": True, "Links": True, "MaxLevels": 1, "NoLinks": True}
            },
            "Systems": link(f"{ROOT}/Systems"),
            "Managers": link(f"{ROOT}/Managers"),
            "Chassis": link(f"{ROOT}/Chassis"),
            "SessionService": link(f"{ROOT}/SessionService"),
            "UpdateService": link(f"{ROOT}/UpdateService"),
            "Links": {"Sessions": link(SESSIONS)},
        },
        {"@odata.id": f"{ROOT}/SessionService", "Id": "SessionService", "Name": "S", "Sessions": link(SESSIONS), "SessionTimeout": 1800},
        collection("Systems", SYSTEM),
        collection("Managers", MANAGER),
        collection("Chassis"),
        {
            "@odata.id": SYSTEM,
            "@odata.type": "#ComputerSystem.v1_16_0.ComputerSystem",
            "Id": "System.Embedded.1",
            "Name": "System",
            "Manufacturer": "Dell Inc.",
            "Model": "PowerEdge R750",
            "SKU": f"BM{number:05d}",
            "SerialNumber": f"CN{number:09d}",
            "UUID": f"4c4c4544-0000-1000-8000-{number:012x}",
            "PowerState": "On",
            "BiosVersion": firmware(number)["BIOS"],
            "Bios": link(f"{SYSTEM}/Bios"),
            "Boot": {
                "BootOrder": ["NIC.PxeDevice.1-1", "Disk.Bay.0"],
                "BootSourceOverrideEnabled": "Disabled",
                "BootSourceOverrideMode": "UEFI",
                "BootSourceOverrideTarget": "None",
            },
            "Status": {"Health": "OK", "HealthRollup": "OK", "State": "Enabled"},
            "Links": {"ManagedBy": [link(MANAGER)]},
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": f"{SYSTEM}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart"],
                }
            },
        },
        {
            "@odata.id": f"{SYSTEM}/Bios",
            "@odata.type": "#Bios.v1_2_0.Bios",
            "Id": "Bios",
            "Name": "BIOS Configuration Current Settings",
            "AttributeRegistry": "BiosAttributeRegistry.v1_0_0",
            "@Redfish.Settings": {"SettingsObject": link(f"{SYSTEM}/Bios/Settings")},
            "Attributes": attributes(number),
        },
        {"@odata.id": f"{SYSTEM}/Bios/Settings", "Id": "Settings", "Name": "BIOS Configuration Pending Settings", "Attributes": {}},
        {
            "@odata.id": MANAGER,
            "Id": "iDRAC.Embedded.1",
            "Name": "Manager",
            "FirmwareVersion": "6.10.00.00",
            "Model": "16G Monolithic",
            "Links": {"ManagerForServers": [link(SYSTEM)]},
        },
        {"@odata.id": f"{ROOT}/UpdateService", "Id": "UpdateService", "Name": "Update", "FirmwareInventory": link(ITEMS), "ServiceEnabled": True,
         "Actions": {"#UpdateService.SimpleUpdate": {"target": f"{ROOT}/UpdateService/Actions/UpdateService.SimpleUpdate"}}},
        collection("UpdateService/FirmwareInventory", *(str(i["@odata.id"]) for i in items)),
        *items,
    ]  # fmt: skip
    return {str(d["@odata.id"]).rstrip("/"): d for d in documents}


def collection(path: str, *members: str) -> dict[str, Any]:
    return {
        "@odata.id": f"{ROOT}/{path}",
        "@odata.type": "#Collection.Collection",
        "Name": path,
        "Members": [link(m) for m in members],
        "Members@odata.count": len(members),
    }


def answers(number: int) -> dict[bytes, bytes]:
    """Whole HTTP answers by request target."""
    documents = tree(number)
    found = {uri.encode(): _answer(document) for uri, document in documents.items()}
    for uri, document in documents.items():
        if "Members" in document:
            whole = {**document, "Members": [documents[m["@odata.id"]] for m in document["Members"]]}
            found[f"{uri}?$expand=.($levels=1)".encode()] = _answer(whole)
    return found


def _answer(document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = (
        "HTTP/1.1 200 OK\r\nDate: Fri, 20 Nov 2026 10:00:00 GMT\r\nServer: Apache\r\nOData-Version: 4.0\r\n"
        "Cache-Control: no-cache\r\nX-Frame-Options: DENY\r\nStrict-Transport-Security: max-age=63072000\r\n"
        "Keep-Alive: timeout=60, max=199\r\nConnection: Keep-Alive\r\n"
        f"Content-Type: application/json;odata.metadata=minimal;charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


REFUSED = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nWWW-Authenticate: Basic realm="R"\r\n\r\n{}'
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
GONE = b"HTTP/1.1 204 No Content\r\n\r\n"
KINDS = 20  # `attributes` and `firmware` repeat after so many; serial numbers are those of the first


class Fleet:
    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.answers = [answers(i) for i in range(KINDS)]
        self.requests: Counter[str] = Counter()
        self.sessions = 0
        self.connections = 0

    def answer(self, peer: str, target: bytes, head: bytes, body: bytes) -> bytes:
        method, _, uri = target.partition(b" ")
        if uri == b"/count":
            seen = {"requests": dict(self.requests), "sessions": self.sessions, "connections": self.connections}
            return _answer({**seen, "cpu": time.process_time()})
        self.requests[peer] += 1
        path = uri.rstrip(b"/")
        if method == b"POST":
            given = json.loads(body)
            if (given.get("UserName"), given.get("Password")) != (USER, PASSWORD):
                return REFUSED
            self.sessions += 1
            uri_of = f"{SESSIONS}/{number(peer)}"
            made = json.dumps({"@odata.id": uri_of, "Id": "1"})
            return (
                f"HTTP/1.1 201 Created\r\nLocation: {uri_of}\r\nX-Auth-Token: token-{peer}\r\n"
                f"Content-Length: {len(made)}\r\n\r\n{made}"
            ).encode()
        if path != b"/redfish/v1" and f"token-{peer}".encode() not in head and BASIC not in head:
            return REFUSED
        if method == b"DELETE":
            self.sessions -= 1
            return GONE
        return self.answers[number(peer) % KINDS].get(path, ABSENT)


class Connection(asyncio.Protocol):
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.rest = b""
        self.closing = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.fleet.connections += 1
        self.peer = transport.get_extra_info("sockname")[0]

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while True:
            head, found, rest = self.rest.partition(b"\r\n\r\n")
            if not found:
                return
            size = 0
            lower = head.lower()
            at = lower.find(b"content-length:")
            if at >= 0:
                size = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(rest) < size:
                return
            self.rest = rest[size:]
            target = head[: head.index(b" HTTP/")]
            answer = self.fleet.answer(self.peer, target, head, rest[:size])
            if b"connection: close" in lower:  # as every web server does; sushy asks for it
                answer = answer.replace(b"Connection: Keep-Alive", b"Connection: close", 1)
                self.closing = True
            if self.fleet.latency:
                asyncio.get_running_loop().call_later(self.fleet.latency, self._write, answer)
            else:
                self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            if self.closing:
                self.transport.close()


async def serve(context: ssl.SSLContext, port: int, latency: float) -> None:
    loop = asyncio.get_running_loop()
    fleet = Fleet(latency)
    server = await loop.create_server(
        lambda: Connection(fleet), "0.0.0.0", port, ssl=context, reuse_port=True, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(
        sys.stdin.fileno(), lambda: ended.done() or (not sys.stdin.buffer.read1(1 << 16) and ended.set_result(None))
    )
    await ended


def certificate(folder: Path) -> tuple[Path, Path]:
    """RSA of 2048 bits, as most BMCs have."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bmc")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .sign(private, hashes.SHA256())
    )
    pem, key = folder / "bmc.pem", folder / "bmc.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return pem, key


@contextmanager
def fleet(latency: float = 0.0) -> Iterator[int]:
    """A server in a process of its own; its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scan_server", "--latency", str(latency)],
        cwd=Path(__file__).resolve().parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    assert process.stdin
    try:
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise RuntimeError("the fleet did not start")
        yield int(line)
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def count(port: int) -> dict[str, Any]:
    """What a running fleet has seen."""
    import http.client

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    asking = http.client.HTTPSConnection(address(0), port, context=context, timeout=30)
    try:
        asking.request("GET", "/count")
        return json.load(asking.getresponse())  # type: ignore[no-any-return]
    finally:
        asking.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan_server", description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    _room_for_connections()
    with tempfile.TemporaryDirectory() as folder:
        pem, key = certificate(Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        asyncio.run(serve(context, asked.port, asked.latency))


def _room_for_connections() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    main()
