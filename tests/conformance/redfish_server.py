"""A small Redfish service for tests: a tree of documents over HTTP, with what a BMC does when it is written to.

It keeps what a test must count: requests, writes, login attempts, sessions, TCP connections. Faults are functions put
in front of requests. It serves hand-written trees and recordings of real machines alike.
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import itertools
import json
import socket
import ssl
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

USER, PASSWORD = "operator", "correct horse"
ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"

Fault = Callable[["Handler"], bool]
"""True: the fault has dealt with the request (or broken the connection)."""


def key(path: str) -> str:
    return "/" + "/".join(p for p in path.partition("?")[0].lower().split("/") if p)


@dataclass
class Planned:
    method: str
    part: str
    act: Fault
    times: int

    def fits(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in (method, "*") and self.part in path


@dataclass
class RedfishServer:
    tree: dict[str, Any]  # key(path) -> document, or bytes served as they are
    session_user: str = USER
    login: str = "session"  # session | basic | none
    tls: ssl.SSLContext | None = None
    etags: str = ""  # strong | weak: demanded in If-Match by PATCH
    consume_once: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    writes: list[tuple[str, str, Any]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)  # token -> uri
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    boots: list[str] = field(default_factory=list)
    faults: list[Planned] = field(default_factory=list)
    _serial: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    release: threading.Event = field(default_factory=threading.Event)
    host: str = "127.0.0.1"  # 0.0.0.0: all of 127.0.0.0/8, each address another BMC

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.http = _Http((self.host, 0), Handler)
        self.http.service = self
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(10)

    @property
    def port(self) -> int:
        return int(self.http.server_address[1])

    @property
    def address(self) -> str:
        return f"redfish+{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def fault(self, method: str, part: str, act: Fault, *, times: int = 10**9) -> None:
        with self.lock:
            self.faults.append(Planned(method, part, act, times))

    def restart_bmc(self) -> None:
        """The BMC itself restarts: it forgets sessions. Faults stand for the time in which it is away."""
        with self.lock:
            self.sessions.clear()

    def doc(self, path: str) -> Any:
        return self.tree[key(path)]

    # what a BMC does when written to

    def post(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        resource, _, action = path.partition("/Actions/")
        target = self.tree.get(key(resource))
        if target is None:
            return refusal(404, "Base.1.8.ResourceMissingAtURI", "no such resource")
        if action == "ComputerSystem.Reset":
            return self._reset(target, (body or {}).get("ResetType"))
        if action == "VirtualMedia.InsertMedia":
            if target.get("Inserted"):
                return refusal(400, "Base.1.8.ResourceInUse", "media are inserted already")
            target.update(Image=body["Image"], Inserted=True, ConnectedVia="URI")
            return 204, {}, None
        if action == "VirtualMedia.EjectMedia":
            if not target.get("Inserted"):
                return refusal(500, "IDRAC.2.5.VRM0009", "no media are inserted")
            target.update(Image=None, Inserted=False, ConnectedVia="NotConnected")
            return 204, {}, None
        return refusal(405, "Base.1.8.ActionNotSupported", f"no action {action}")

    def _reset(self, system: dict[str, Any], word: str | None) -> tuple[int, dict[str, str], Any]:
        allowed = system["Actions"]["#ComputerSystem.Reset"].get("ResetType@Redfish.AllowableValues")
        if allowed and word not in allowed:
            return refusal(400, "Base.1.8.ActionParameterNotSupported", f"ResetType {word}")
        if word in ("ForceOff", "GracefulShutdown"):
            system["PowerState"] = "Off"
            return 204, {}, None
        if word in ("On", "ForceOn") and system["PowerState"] == "On":
            return 204, {}, None
        system["PowerState"] = "On"
        boot = system.get("Boot", {})
        self.boots.append(boot.get("BootSourceOverrideTarget", "None") if _active(boot) else "Hdd")
        if boot.get("BootSourceOverrideEnabled") == "Once" and self.consume_once:
            boot.update(BootSourceOverrideEnabled="Disabled", BootSourceOverrideTarget="None")
        return 204, {}, None

    def patch(self, path: str, body: Any, if_match: str) -> tuple[int, dict[str, str], Any]:
        target = self.tree.get(key(path))
        if target is None:
            return refusal(404, "Base.1.8.ResourceMissingAtURI", "no such resource")
        if self.etags and if_match not in (self.etag(target), "*"):
            return refusal(412, "Base.1.8.PreconditionFailed", "the ETag is not the current one")
        if "VirtualMedia" in path and "InsertMedia" in json.dumps(target.get("Actions") or {}):
            return refusal(405, "Base.1.8.OperationNotAllowed", "use the action")
        merge(target, body)
        return 204, {}, None

    def etag(self, document: Any) -> str:
        tag = f'"{abs(hash(json.dumps(document, sort_keys=True))):x}"'
        return f"W/{tag}" if self.etags == "weak" else tag

    def create_session(self, body: Any) -> tuple[int, dict[str, str], Any]:
        self.logins.append((body.get("UserName"), body.get("Password")))
        if (body.get("UserName"), body.get("Password")) != (USER, PASSWORD):
            return refusal(401, "Base.1.8.AccessDenied", "wrong user name or password")
        number = next(self._serial)
        uri, token = f"{SESSIONS}/{number}", f"token-{number}-{id(self)}"
        self.sessions[token] = uri
        document = {"@odata.id": uri, "Id": str(number), "Name": "Session", "UserName": USER}
        return 201, {"X-Auth-Token": token, "Location": uri}, document


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    service: RedfishServer

    def get_request(self) -> tuple[Any, Any]:
        sock, address = super().get_request()
        sock.settimeout(60)
        self.service.connections += 1
        return sock, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a slow handshake must not hold up the others."""
        if not self.service.tls:
            super().finish_request(request, client_address)
            return
        with self.service.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Http

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        self.service = self.server.service
        super().setup()

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(size)) if size else None
        service = self.service
        with service.lock:
            service.requests.append((method, self.path))
            service.headers.append(dict(self.headers))
            fault = next((f for f in service.faults if f.fits(method, self.path)), None)
            if fault:
                fault.times -= 1
        if fault and fault.act(self):
            return
        with service.lock:
            answer = self._answer(method)
        self.reply(*answer)

    def _answer(self, method: str) -> tuple[int, dict[str, str], Any]:
        service = self.service
        if method == "POST" and key(self.path) == key(SESSIONS):
            if service.login != "session":
                return refusal(404, "Base.1.8.ResourceMissingAtURI", "no sessions here")
            return service.create_session(self.body)
        public = key(self.path) == ROOT or key(self.path) == "/redfish"
        if not public and not self._authenticated():
            return refusal(401, "Base.1.8.NoValidSession", "log in first")
        if method == "DELETE":
            token = next((t for t, u in service.sessions.items() if key(u) == key(self.path)), None)
            service.sessions.pop(token or "", None)
            return (204, {}, None) if token else refusal(404, "Base.1.8.ResourceMissingAtURI", "no such session")
        if method in ("POST", "PATCH"):
            service.writes.append((method, self.path, self.body))
            if method == "POST":
                return service.post(self.path, self.body)
            return service.patch(self.path, self.body, self.headers.get("If-Match", ""))
        document = service.tree.get(key(self.path))
        if any(key(u) == key(self.path) for u in service.sessions.values()):
            document = {"@odata.id": self.path, "Id": self.path.rpartition("/")[2], "UserName": service.session_user}
        if document is None:
            return refusal(404, "Base.1.8.ResourceMissingAtURI", "no such resource")
        return 200, {"ETag": service.etag(document)} if service.etags else {}, document

    def _authenticated(self) -> bool:
        service = self.service
        if service.login == "none":
            return True
        if self.headers.get("X-Auth-Token") in service.sessions:
            return True
        given = self.headers.get("Authorization", "")
        if not given.startswith("Basic "):
            return False
        user, _, password = base64.b64decode(given[6:]).decode().partition(":")
        if service.login == "basic":
            service.logins.append((user, password))
        return (user, password) == (USER, PASSWORD)

    def reply(self, status: int, headers: dict[str, str], document: Any) -> None:
        body = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)


# faults


def status(code: int, headers: dict[str, str] | None = None, document: Any = None) -> Fault:
    def act(handler: Handler) -> bool:
        handler.reply(
            code, headers or {}, document if document is not None else refusal(code, "Base.1.8.X", "fault")[2]
        )
        return True

    return act


def reset(handler: Handler) -> bool:
    """Connection reset by peer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
    return True


def silent(handler: Handler) -> bool:
    """Accepts, reads, never answers."""
    handler.service.release.wait(30)
    handler.close_connection = True
    return True


def drip(handler: Handler) -> bool:
    """One byte at a time, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.close_connection = True
    while not handler.service.release.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()
    return True


def drip_headers(handler: Handler) -> bool:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.service.release.wait(0.05):
        handler.wfile.write(b"z")
        handler.wfile.flush()
    return True


def truncated(handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"PowerState": "Off"')
    handler.close_connection = True
    return True


def chunked(handler: Handler) -> bool:
    body = json.dumps(handler.service.doc(handler.path)).encode()
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for i in range(0, len(body), 100):
        part = body[i : i + 100]
        handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")
    return True


def gzipped(handler: Handler) -> bool:
    if "gzip" not in handler.headers.get("Accept-Encoding", ""):
        return status(406)(handler)
    document = handler.service.doc(handler.path)
    body = gzip.compress(document if isinstance(document, bytes) else json.dumps(document).encode(), 1)
    handler.reply(200, {"Content-Encoding": "gzip"}, body)
    return True


def huge(size: int) -> Fault:
    def act(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.close_connection = True
        block = b"[" * (1 << 16)
        for _ in range(size // len(block)):
            handler.wfile.write(block)
        return True

    return act


def then(effect: Callable[[RedfishServer], None]) -> Fault:
    """Something happens to the BMC, and the request goes on."""

    def act(handler: Handler) -> bool:
        with handler.service.lock:
            effect(handler.service)
        return False

    return act


def refusal(code: int, message_id: str, message: str) -> tuple[int, dict[str, str], Any]:
    info = [{"MessageId": message_id, "Message": message, "Severity": "Critical"}]
    return code, {}, {"error": {"code": "Base.1.8.GeneralError", "message": message, "@Message.ExtendedInfo": info}}


def merge(target: dict[str, Any], change: dict[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = value


def _active(boot: dict[str, Any]) -> bool:
    return boot.get("BootSourceOverrideEnabled", "Disabled") != "Disabled"


# trees


def link(*parts: str) -> dict[str, str]:
    return {"@odata.id": "/".join((ROOT, *parts))}


def collection(path: str, *members: str) -> dict[str, Any]:
    return {
        "@odata.id": f"{ROOT}/{path}",
        "Name": path,
        "Members": [link(path, m) for m in members],
        "Members@odata.count": len(members),
    }


def small_tree(*, media: str = "action") -> dict[str, Any]:
    """One server with one manager. `media`: action, or patch (Lenovo's way)."""
    drive: dict[str, Any] = {"Id": "CD1", "Name": "CD", "MediaTypes": ["CD", "DVD"], "Inserted": False, "Image": None}
    floppy = drive | {"Id": "FD1", "Name": "Floppy", "MediaTypes": ["Floppy", "USBStick"]}
    for d in (drive, floppy):
        uri = f"{ROOT}/Managers/BMC/VirtualMedia/{d['Id']}"
        d["@odata.id"] = uri
        if media == "action":
            d["Actions"] = {
                f"#VirtualMedia.{verb}Media": {"target": f"{uri}/Actions/VirtualMedia.{verb}Media"}
                for verb in ("Insert", "Eject")
            }
    documents = [
        {
            "@odata.id": ROOT,
            "Id": "RootService",
            "Name": "Root",
            "RedfishVersion": "1.15.0",
            "Vendor": "Contoso",
            "Product": "Test BMC",
            "Systems": link("Systems"),
            "Managers": link("Managers"),
            "SessionService": link("SessionService"),
            "UpdateService": link("UpdateService"),
            "Links": {"Sessions": link("SessionService", "Sessions")},
        },
        collection("Systems", "1"),
        collection("Managers", "BMC"),
        system("1"),
        {
            "@odata.id": f"{ROOT}/Managers/BMC",
            "Id": "BMC",
            "Name": "BMC",
            "Model": "TestBMC",
            "FirmwareVersion": "1.0",
            "VirtualMedia": link("Managers", "BMC", "VirtualMedia"),
        },
        collection("Managers/BMC/VirtualMedia", "FD1", "CD1"),
        drive,
        floppy,
        {"@odata.id": f"{ROOT}/Systems/1/Bios", "Id": "Bios", "Name": "Bios", "Attributes": {"ProcTurbo": "Enabled"}},
        collection("Systems/1/EthernetInterfaces", "NIC1"),
        {
            "@odata.id": f"{ROOT}/Systems/1/EthernetInterfaces/NIC1",
            "Id": "NIC1",
            "Name": "NIC 1",
            "MACAddress": "52:54:00:AA:BB:01",
            "LinkStatus": "LinkUp",
            "SpeedMbps": 1000,
        },
        {
            "@odata.id": f"{ROOT}/UpdateService",
            "Id": "UpdateService",
            "Name": "Update",
            "FirmwareInventory": link("UpdateService", "FirmwareInventory"),
        },
        collection("UpdateService/FirmwareInventory", "BIOS", "BMC"),
        *(
            {
                "@odata.id": f"{ROOT}/UpdateService/FirmwareInventory/{name}",
                "Id": name,
                "Name": name,
                "Version": "1.0",
            }
            for name in ("BIOS", "BMC")
        ),
    ]
    return {key(str(d["@odata.id"])): d for d in documents}


def system(ident: str) -> dict[str, Any]:
    uri = f"{ROOT}/Systems/{ident}"
    return {
        "@odata.id": uri,
        "Id": ident,
        "Name": "System",
        "Manufacturer": "Contoso",
        "Model": "Server 3000",
        "SerialNumber": "SN0001",
        "UUID": "11111111-2222-3333-4444-555555555555",
        "PowerState": "On",
        "BiosVersion": "1.2.3",
        "Bios": link("Systems", ident, "Bios"),
        "EthernetInterfaces": link("Systems", ident, "EthernetInterfaces"),
        "Boot": {
            "BootSourceOverrideEnabled": "Disabled",
            "BootSourceOverrideTarget": "None",
            "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd", "UefiHttp"],
        },
        "Actions": {
            "#ComputerSystem.Reset": {
                "target": f"{uri}/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues": [
                    "On",
                    "ForceOff",
                    "GracefulShutdown",
                    "GracefulRestart",
                    "ForceRestart",
                    "PowerCycle",
                ],
            }
        },
        "Links": {"ManagedBy": [link("Managers", "BMC")]},
    }


def recording(path: Path) -> dict[str, Any]:
    """A recording's tree. Files that are no JSON (there are truncated ones) are served as they are."""
    tree: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("index.json"):
                continue
            where = key(name[: name.index("index.json")])
            content = archive.read(name)
            try:
                tree[where] = json.loads(content)
            except ValueError:
                tree[where] = content
    return tree


# certificates


@contextmanager
def certificate(folder: Path, *, name: str = "127.0.0.1") -> Iterator[tuple[ssl.SSLContext, Path, str]]:
    """(server context, CA file, SHA-256 fingerprint) of a self-signed certificate for `name`."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_file)
    yield context, pem, made.fingerprint(hashes.SHA256()).hex()
