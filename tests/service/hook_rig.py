"""Programs of a site, servers on this machine that hooks and health checks ask, and a Prometheus of a few answers."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


def script(folder: Path, text: str, name: str = "drain") -> str:
    """An executable of the site; the word for it in documents."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"./{name}"


def gone(pid: int) -> bool:
    """Not there, or a zombie that nobody collects."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """Answers by `answer`, which gets the request and gives (status, body). `asked` has all requests."""

    url: str
    port: int
    asked: list[Asked] = field(default_factory=list)
    answer: Callable[[Asked], tuple[int, bytes]] = lambda _: (200, b"ok\n")
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def service(
    answer: Callable[[Asked], tuple[int, bytes]] = lambda _: (200, b"ok\n"), tls: ssl.SSLContext | None = None
) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            found.asked.append(asked)
            status, said = found.answer(asked)
            self.send_response(status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said)

        def log_message(self, *_args: object) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler.handle_any)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_args: object) -> None:  # clients that hang up
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls else "http"
    found = Service(f"{scheme}://127.0.0.1:{server.server_port}", server.server_port)
    found.answer = answer
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each connection is handed to `talk`: servers that speak no HTTP, or speak it badly."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def one(conn: socket.socket) -> None:
        with conn, suppress(OSError):
            talk(conn)

    def accept() -> None:
        while not stop.is_set():
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(conn,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=10)


class Prometheus:
    """`/api/v1/query` of Prometheus: what the documentation says of its answers. `samples`: by query, labels and values."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[dict[str, str], str]]] = {}
        self.scalars: dict[str, str] = {}

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        parts = urlsplit(asked.path)
        query = parse_qs(parts.query).get("query", [""])[0]
        if parts.path != "/api/v1/query":
            return 404, b"404 page not found\n"
        if query.count("{") != query.count("}"):
            said = {"status": "error", "errorType": "bad_data", "error": "1:4: parse error: unexpected end of input"}
            return 400, json.dumps(said).encode()
        if query in self.scalars:
            return 200, _success("scalar", [1_700_000_000.0, self.scalars[query]])
        found = [{"metric": m, "value": [1_700_000_000.0, v]} for m, v in self.samples.get(query, [])]
        return 200, _success("vector", found)


def _success(kind: str, result: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
