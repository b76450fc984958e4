"""What a booted image talks to: a seed on its disk, and a controller that hears its report."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from metalimmu.wire import codec
from metalimmu.wire.manifest import Extent
from metalimmu.wire.messages import SystemReport


def write_seed(disk: Path, seed: Extent, folder: Path, files: Mapping[str, str]) -> None:
    """A FAT labelled CIDATA with these files, where the image keeps its place for it."""
    fat = folder / "seed"
    with fat.open("wb") as out:
        out.truncate(seed.length)
    subprocess.run(["mkfs.fat", "-n", "CIDATA", fat], check=True, capture_output=True)
    for name, text in files.items():
        subprocess.run(["mcopy", "-i", fat, "-", f"::/{name}"], input=text.encode(), check=True)
    with disk.open("r+b") as out:
        out.seek(seed.offset)
        out.write(fat.read_bytes())


class Controller:
    """TLS with a certificate of its own that ended last year: dates must not matter. Refuses the first report."""

    token = "t0ken-of-this-deployment"

    def __init__(self, folder: Path) -> None:
        self.reports: list[SystemReport] = []
        self.heard = threading.Event()
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "metalimmu")])
        past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        builder = x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), past, past.replace(year=2021)
        )
        certificate = builder.sign(key, hashes.SHA256())
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.pin = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        (folder / "cert.pem").write_text(self.pem)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "key.pem").write_bytes(private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                wanted = self.path == "/v1/system" and self.headers["Authorization"] == f"Bearer {controller.token}"
                if wanted:
                    controller.reports.append(codec.decode(SystemReport, body))
                ready = wanted and len(controller.reports) > 1
                answer = json.dumps({"acknowledged": True} if ready else {"code": "later"}).encode()
                self.send_response(200 if ready else 503)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                if ready:
                    controller.heard.set()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def seed_file(self) -> str:
        """metalimmu.json; with QEMU's user networking the guest sees this machine as 10.0.2.2."""
        url = f"https://10.0.2.2:{self.server.server_address[1]}"
        return json.dumps(
            {"url": url, "token": self.token, "pin": self.pin, "certificate": self.pem, "config_digest": "c" * 64}
        )


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[Controller]:
    controller = Controller(folder)
    thread = threading.Thread(target=controller.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield controller
    finally:
        controller.server.shutdown()
        controller.server.server_close()
        thread.join(10)
