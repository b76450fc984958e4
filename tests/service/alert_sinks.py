"""Receivers of alerts for tests: an HTTP server and a mail server on this machine, and what findings look like."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from metalimmu.desired.alerts import Alert
from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.types import Finding, Word
from metalimmu.store.records import ErrorText
from metalimmu.store.scan_records import FindingRecord, HostScan, Scanned


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self):
        return msgspec.json.decode(self.body)


@dataclass
class Sink:
    """Answers with `statuses` one after the other, then with 200. While `hang` is set, answers wait for it to be cleared."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()


@contextmanager
def http_sink(tls: ssl.SSLContext | None = None) -> Iterator[Sink]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.requests.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            sink.go.wait(60)
            self.send_response(sink.statuses.pop(0) if sink.statuses else 200)
            for name, value in sink.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_args: object) -> None:  # who does not trust our certificate hangs up
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    sink.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.go.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def own_certificate(folder: Path, address: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """A server's context for that address, and the PEM file to trust."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", cert, "-subj", "/CN=sink", "-addext", f"subjectAltName=IP:{address}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


def alert(**fields: object) -> Alert:
    return msgspec.convert({"name": "ops", "slack": {"url": "env:SLACK"}, **fields}, Alert)


def drift(host: str, setting: str = "bios.ProcCStates", actual: str = "Enabled", **fields: object) -> FindingRecord:
    stale = bool(fields.pop("stale", False))
    finding = {"setting": setting, "word": Word.differs, "expected": "Disabled", "actual": actual, "severity": "warning", "host": host}  # fmt: skip
    return FindingRecord(host=host, finding=Finding(**finding | fields), first_seen=1.0, last_seen=2.0, stale=stale)


def silent(host: str, streak: int = 3, code: str = "BmcUnreachable") -> HostScan:
    return HostScan(host=host, streak=streak, failure=ErrorText(code=code, message=f"{host}: no route to host"))


def scanned(host: str, at: float, *findings: Finding, failure: str = "") -> Scanned:
    """As a scan leaves it in the store; with a failure: not read."""
    if failure:
        return Scanned(host=host, at=at, failure=ErrorText(code=failure, message=f"{host} is silent"))
    snapshot = Snapshot(
        host=host,
        at=at,
        identity=Unknown(Reason.timeout),
        bmc={},
        power=Unknown(Reason.timeout),
        settings={"bios.A": "1"},
    )
    return Scanned(host=host, at=at, snapshot=snapshot, findings=findings)
