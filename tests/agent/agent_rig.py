"""A machine in a folder and a controller in a thread, for the agent's tests."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from metalimmu.agent import gpt, seed
from metalimmu.agent.link import Log
from metalimmu.agent.machine import Machine
from metalimmu.agent.run import Agent
from metalimmu.wire import codec
from metalimmu.wire.manifest import CHUNK, Extent, Manifest
from metalimmu.wire.messages import (
    Assignment,
    Boot,
    CheckIn,
    ConfigFile,
    Failure,
    Orders,
    Progress,
    Refusal,
    Report,
    RootDisk,
    RunTimeConfig,
)

MIB = 1 << 20
TOKEN = "token-that-nobody-may-log"
SERIAL = "7XK2P13"
UUID = "4c4c4544-0058-4b10-8032-b7c04f503133"
MAC = "b8:ca:3a:00:00:01"


def until(condition: Callable[[], object], seconds: float = 120.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or condition}"
        time.sleep(0.01)


# --- certificate ---------------------------------------------------------------------------------------------------


@dataclass
class Certificate:
    """Self-signed and long expired: neither may matter."""

    pem: Path  # with the key
    text: str
    pin: str


def make_certificate(folder: Path, name: str = "controller") -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2001, 1, 1))
        .not_valid_after(datetime.datetime(2002, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    pem = folder / f"{name}.pem"
    pem.write_bytes(
        text.encode()
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(pem, text, hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest())


# --- images --------------------------------------------------------------------------------------------------------


@dataclass
class Image:
    data: bytes
    manifest: Manifest
    frames: dict[str, bytes]

    @property
    def digest(self) -> str:
        return self.manifest.digest


def as_image(data: bytes, *, checksum: bool = True, **fields) -> Image:
    chunks, frames = [], {}
    pack = zstandard.ZstdCompressor(level=1, write_checksum=checksum)
    for at in range(0, len(data), CHUNK):
        part = data[at : at + CHUNK]
        if not any(part):
            chunks.append(None)
            continue
        sha = hashlib.sha256(part).hexdigest()
        chunks.append(sha)
        frames[sha] = pack.compress(part)
    fields = {"kind": "disk", "architecture": os.uname().machine, "partition_table": "gpt"} | fields
    return Image(data, Manifest(size=len(data), chunks=tuple(chunks), **fields), frames)


def partitioned(folder: Path, size: int, sector: int = 512, *, seed: bool = False) -> bytearray:
    """A disk image with ESP and root partition made by other people's programs."""
    file = folder / f"table-{size}-{sector}.img"
    with file.open("wb") as f:
        f.truncate(size)
    if sector != 512:
        return _native_4k(size, sector)
    script = "label: gpt\nlabel-id: 11111111-2222-3333-4444-555555555555\n"
    script += (
        f"start={2 * MIB // sector}, size={4 * MIB // sector}, type=U, uuid=22222222-2222-3333-4444-555555555555\n"
    )
    if seed:
        script += f"start={6 * MIB // sector}, size={1 * MIB // sector}, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n"
    script += "type=L, uuid=33333333-2222-3333-4444-555555555555\n"
    subprocess.run(["sfdisk", "-q", str(file)], input=script, text=True, check=True, capture_output=True, timeout=60)
    data = bytearray(file.read_bytes())
    file.unlink()
    return data


def _native_4k(size: int, sector: int) -> bytearray:
    """Debian 12's sfdisk makes tables for 512 only."""
    usable = size // sector - 2 - 4
    guid = uuid.UUID("11111111-2222-3333-4444-555555555555")
    table = gpt.Table(sector, guid, size // sector - 1, 6, usable, 2, 128, bytes(128 * 128))
    table = gpt.add(table, gpt.Partition(0, gpt.ESP, uuid.uuid5(guid, "esp"), 512, 1535))
    data = bytearray(size)
    for at, piece in (gpt.primary(table) | gpt.backup(table)).items():
        data[at : at + len(piece)] = piece
    return data


def fill(data: bytearray, chunks: range | list[int], salt: int = 0) -> bytearray:
    """Make these chunks different from all others; they compress, but not to nothing."""
    for i in chunks:
        noise = random.Random(i * 1000 + salt).randbytes(20_000)
        data[i * CHUNK + 4096 : i * CHUNK + 4096 + len(noise)] = noise
    return data


# --- the controller ------------------------------------------------------------------------------------------------


def run_time_config(files: dict[str, str] | None = None) -> RunTimeConfig:
    files = {"user-data": "#cloud-config\n", "meta-data": "instance-id: x\n"} if files is None else files
    return RunTimeConfig(
        tuple(ConfigFile(k, v) for k, v in files.items()), seed.digest({k: v.encode() for k, v in files.items()})
    )


class Chunk:
    """What a fault may do with one chunk request: look at it, and answer differently."""

    def __init__(self, handler: BaseHTTPRequestHandler, sha: str, frame: bytes, nth: int) -> None:
        self.handler, self.sha, self.frame, self.nth = handler, sha, frame, nth

    def answer(self, status: int, body: bytes, length: int | None = None) -> bool:
        self.handler.send_response(status)
        self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        self.handler.wfile.write(body)
        return True

    def cut(self, after: int) -> bool:
        """Promise the whole frame, send a part, and hang up."""
        self.answer(200, self.frame[:after], len(self.frame))
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)
        return True


@dataclass
class FakeController:
    certificate: Certificate
    image: Image
    assignment: Assignment
    config: RunTimeConfig = field(default_factory=run_time_config)
    images: list[Image] = field(default_factory=list)
    fault: Callable[[Chunk], bool] | None = None  # True: answered
    orders: Callable[[Progress], Orders] | None = None
    refusal: tuple[int, Refusal] | None = None  # at check-in
    slow: float = 0.0  # seconds per chunk
    plain: bool = False  # chunks without TLS
    check_ins: list[CheckIn] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    asked: Counter = field(default_factory=Counter)  # chunk requests by SHA-256
    tokens: set[str] = field(default_factory=set)
    salvaged: dict[str, bytes] = field(default_factory=dict)  # archives that came whole, by name
    salvage_limit: int = 1 << 30  # bytes of an archive; more is refused
    salvage_breaks: int = 0  # so many archives break off before
    salvage_room: bool = True
    port: int = 0
    chunk_port: int = 0

    def start(self) -> FakeController:
        self.servers = [self._serve(self.port, tls=True)]
        self.port = self.servers[0].server_port
        if self.plain:
            self.servers.append(self._serve(self.chunk_port, tls=False))
            self.chunk_port = self.servers[1].server_port
        base = f"http://127.0.0.1:{self.chunk_port}/c/xyz" if self.plain else f"{self.url}/c/xyz"
        self.assignment = replace(self.assignment, chunk_base=base)
        return self

    def _serve(self, port: int, *, tls: bool) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", port), _Handler)
        server.fake = self
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.pem)
            server.tls = context
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def stop(self) -> None:
        """As a killed process: all connections break."""
        for server in self.servers:
            server.shutdown()
            server.server_close()
            server.hang_up()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def boot(self) -> Boot:
        return Boot(self.url, TOKEN, self.certificate.pin, self.assignment.deployment)

    def give_orders(self, progress: Progress | None) -> Orders:
        if self.orders and progress is not None:
            return self.orders(progress)
        return Orders(
            self.assignment.fence, go=bool(self.reports) and progress is not None and progress.phase == "wait"
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    fake: FakeController
    tls: ssl.SSLContext | None = None

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.open: set[socket.socket] = set()

    def finish_request(self, request, client_address) -> None:
        request.settimeout(20)
        try:
            if self.tls:
                request = self.tls.wrap_socket(request, server_side=True)
            self.open.add(request)
            super().finish_request(request, client_address)
        except OSError:
            pass  # the agent hung up
        finally:
            self.open.discard(request)
            request.close()

    def hang_up(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args) -> None:
        pass

    def reply(self, message: object, status: int = 200) -> None:
        body = message if isinstance(message, bytes) else codec.encode(message)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        fake = self.server.fake
        kind, _, name = self.path.strip("/").rpartition("/")
        known = {i.digest.removeprefix("sha256:"): i for i in (fake.image, *fake.images)}
        if kind == "c/xyz":
            self._chunk(fake, name)
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply(Refusal("AgentRefused", "who are you?"), 401)
        elif kind == "v1/manifest" and name in known:
            self.reply(known[name].manifest.encode())
        elif self.path == "/v1/config":
            self.reply(fake.config)
        else:
            self.reply(Refusal("NotFound", self.path), 404)

    def _chunk(self, fake: FakeController, sha: str) -> None:
        frames = {k: v for i in (fake.image, *fake.images) for k, v in i.frames.items()}
        fake.asked[sha] += 1
        fake.tokens.add(self.headers["Authorization"] or "")
        if fake.slow:
            time.sleep(fake.slow)
        chunk = Chunk(self, sha, frames.get(sha, b""), fake.asked[sha])
        if fake.fault and fake.fault(chunk):
            return
        chunk.answer(*((200, frames[sha]) if sha in frames else (404, b"")))

    def do_PUT(self) -> None:
        fake = self.server.fake
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply(Refusal("AgentRefused", "who are you?"), 401)
            return
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
            if fake.salvage_breaks:
                fake.salvage_breaks -= 1
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if len(content) > fake.salvage_limit:
                self.reply(Refusal("SalvageFailed", "too much"), 413)
                self.close_connection = True
                return
        self.rfile.readline()
        fake.salvaged[self.path.rpartition("/")[2]] = content
        self.reply(fake.give_orders(None))

    def do_POST(self) -> None:
        fake = self.server.fake
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply(Refusal("AgentRefused", "who are you?"), 401)
        elif self.path == "/v1/check-in":
            fake.check_ins.append(codec.decode(CheckIn, body))
            if fake.refusal:
                self.reply(fake.refusal[1], fake.refusal[0])
            else:
                self.reply(fake.assignment)
        elif self.path == "/v1/progress":
            fake.progress.append(codec.decode(Progress, body))
            self.reply(fake.give_orders(fake.progress[-1]))
        elif self.path == "/v1/report":
            fake.reports.append(codec.decode(Report, body))
            self.reply(fake.give_orders(None))
        elif self.path.startswith("/v1/salvage/"):
            if fake.salvage_room:
                self.reply(fake.give_orders(None))
            else:
                self.reply(Refusal("SalvageFailed", "no room here"), 413)
        elif self.path == "/v1/failure":
            fake.failures.append(codec.decode(Failure, body))
            self.reply(fake.give_orders(None))
        else:
            self.reply(Refusal("NotFound", self.path), 404)


def assignment(image: Image, **fields) -> Assignment:
    usual = {
        "deployment": "d1",
        "fence": 7,
        "stage": "write",
        "image": "web@1",
        "digest": image.digest,
        "chunk_base": "",
        "serial": SERIAL,
        "uuid": UUID,
        "nics": (MAC,),
        "root_disk": RootDisk(),
        "host": "node-1",
        "efi_label": "metalimmu web@1",
        "parallel": 3,
    }
    return Assignment(**(usual | fields))


# --- the machine ---------------------------------------------------------------------------------------------------


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())


class FakeRoot:
    """/sys, /proc and /dev of a machine, in a folder; its disks are files."""

    def __init__(self, root: Path, *, uefi: bool = True) -> None:
        self.root = root
        put(root / "sys/class/dmi/id/product_serial", SERIAL)
        put(root / "sys/class/dmi/id/product_uuid", UUID.upper())
        put(root / "sys/class/dmi/id/sys_vendor", "Dell Inc.")
        put(root / "sys/class/dmi/id/product_name", "PowerEdge R750")
        put(root / "proc/sys/kernel/random/boot_id", "5f1f2ab1-0000-4000-8000-000000000001")
        put(root / "proc/meminfo", "MemTotal:        1000000 kB\nMemFree: 1 kB")
        (root / "sys/block").mkdir(parents=True)
        (root / "dev").mkdir()
        if uefi:
            (root / "sys/firmware/efi/efivars").mkdir(parents=True)
        self.nic("eth0", MAC)

    def nic(self, name: str, mac: str, *, physical: bool = True) -> None:
        folder = self.root / "sys/class/net" / name
        put(folder / "address", mac)
        if physical:
            put(folder / "device/vendor", "0x1af4")
            put(folder / "carrier", "1")
            put(folder / "speed", "10000")

    def disk(
        self,
        name: str,
        size: int,
        *,
        where: str = "pci0000:00/0000:00:04.0/virtio1/block",
        content: bytes = b"",
        sector: int = 512,
        **attributes: str | bytes,
    ) -> Path:
        """`attributes`: file below the block device (`__` is /) -> content."""
        folder = self.root / "sys/devices" / where / name
        defaults = {
            "size": str(size // 512),
            "ro": "0",
            "removable": "0",
            "queue__logical_block_size": str(sector),
            "queue__physical_block_size": str(sector),
            "queue__rotational": "0",
        }
        for key, value in (defaults | attributes).items():
            put(folder / key.replace("__", "/"), value)
        (self.root / "sys/block" / name).symlink_to(folder)
        device = self.root / "dev" / name
        with device.open("wb") as f:
            f.write(content)
            f.truncate(size)
        return device


@dataclass
class RecordedMachine(Machine):
    """Reboots are counted, not done."""

    reboots: int = 0
    clocks: list[float] = field(default_factory=list)

    def set_clock(self, wanted: float) -> str:
        self.clocks.append(wanted)
        return ""

    def reboot(self) -> None:
        self.reboots += 1


class RunningAgent:
    """The agent in a thread, its naps cut short."""

    def __init__(
        self, fake: FakeController, root: FakeRoot, boot: Boot | None = None, fence: int = 0, state: Path | None = None
    ) -> None:
        self.lines: list[str] = []
        self.machine = RecordedMachine(root.root)
        self.naps = 0
        self.agent = Agent(boot or fake.boot, self.machine, log=Log(self.lines.append), state=state, sleep=self._nap)
        self.agent.fence.accepts(fence)
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _nap(self, seconds: float) -> None:
        self.naps += 1
        if self.ended.wait(min(seconds, 0.05)):
            raise SystemExit

    def _run(self) -> None:
        try:
            self.agent.run()
        except SystemExit:
            pass
        except BaseException as exc:
            self.error = exc
        finally:
            self.ended.set()

    def start(self) -> RunningAgent:
        self.thread.start()
        return self

    def finish(self, seconds: float = 30.0) -> None:
        """Until it has rebooted."""
        if not self.ended.wait(seconds):
            frame = sys._current_frames().get(self.thread.ident or 0)
            raise AssertionError("\n".join([*self.lines, "it is here:", *traceback.format_stack(frame)]))
        if self.error:
            raise self.error

    def end(self) -> None:
        """Give up on it: at its next nap."""
        self.ended.set()
        self.thread.join(20)


def seed_extent(manifest: Manifest, report: Report) -> Extent | None:
    for line in report.changed:
        where, _, what = line.partition(" ")
        if what == "seed":
            at, _, length = where.partition("+")
            return Extent(int(at), int(length))
    return None


def log_text(fake: FakeController, agent: RunningAgent) -> str:
    return "\n".join([*agent.lines, *(line for p in fake.progress for line in p.log)])


def dump(value: object) -> str:
    return json.dumps(codec.encode(value).decode())
