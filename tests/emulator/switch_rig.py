"""A lab's switches as a test drives them: what they fetch, and what they say over SSH."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from metalimmu_emulator.lab import Lab

T = TypeVar("T")
PATIENCE = 240.0


@dataclass
class Asked:
    path: str
    headers: dict[str, str]

    @property
    def serial(self) -> str:
        return self.headers.get("onie-serial-number") or self.headers.get("serial-number", "")

    @property
    def by_ztp(self) -> bool:
        return self.headers["user-agent"] == "SONiC-ZTP/0.1"


@dataclass
class Source:
    """What a controller would answer: installers by serial number, each given out as often as it stands there; 404 otherwise."""

    port: int
    installers: dict[str, list[bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # host name by serial, in ZTP's config
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> bytes | None:
        with self.lock:
            self.asked.append(asked)
            if not asked.by_ztp:
                waiting = self.installers.get(asked.serial, [])
                return waiting.pop(0) if waiting and asked.path == "/switch" else None
            name = self.names.get(asked.serial)
            return self._ztp(asked.path, name) if name else None

    def _ztp(self, path: str, name: str) -> bytes | None:
        base = f"http://10.0.2.2:{self.port}"
        config = {"DEVICE_METADATA": {"localhost": {"hostname": name}}, "PORTCHANNEL": {"bond1": {}, "bond2": {}}}
        target = {"source": f"{base}/config_db.json", "destination": "/etc/sonic/config_db.json"}
        ztp = {"90-report": {"plugin": {"url": f"{base}/report.sh"}}, "01-configdb-json": {"url": target}}
        return {
            "/switch": json.dumps({"ztp": ztp}, indent=2).encode(),
            "/config_db.json": json.dumps(config).encode(),
            "/report.sh": b"test -s /etc/sonic/config_db.json && echo reported >/host/reported\n",
        }.get(path)

    def of(self, serial: str, *, ztp: bool = False) -> list[Asked]:
        with self.lock:
            return [a for a in self.asked if a.serial == serial and a.by_ztp == ztp]


def serve(source: Source) -> ThreadingHTTPServer:
    """In a thread of its own until `shutdown`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = source.answer(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", source.port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class Switch:
    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.spec = lab.server(name)
        assert self.spec.switch is not None
        self.switch = self.spec.switch
        self.key = lab.folder / "switch_key"

    def power(self, action: str) -> None:
        import requests

        status = next(s for s in self.lab.status() if s.name == self.name)
        base = status.bmc.removeprefix("redfish+")
        answer = requests.post(
            f"{base}/redfish/v1/Systems/{self.spec.uuid}/Actions/ComputerSystem.Reset",
            json={"ResetType": action},
            auth=(self.lab.spec.user, self.lab.spec.password),
            verify=str(self.lab.folder / "bmc.pem"),
            timeout=60,
        )
        assert answer.status_code == 204, answer.text

    def console(self) -> str:
        path = self.lab.console(self.name)
        return path.read_text(errors="replace") if path.exists() else ""

    def try_ssh(self, command: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=20"]
        return subprocess.run(
            [
                *("ssh", "-q", "-i", str(self.key), "-p", str(self.switch.ssh_port)),
                *(part for option in options for part in ("-o", option)),
                *("root@127.0.0.1", command),
            ],
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def ssh(self, command: str, *, stdin: bytes = b"") -> str:
        done = self.try_ssh(command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout!r} {done.stderr!r}\n{self.tail()}"
        return done.stdout.decode()

    def reboot(self) -> None:
        self.try_ssh("reboot")

    def tail(self) -> str:
        return "\n".join(self.console().splitlines()[-40:])

    def until(self, condition: Callable[[], T], what: str, *, seconds: float = PATIENCE) -> T:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{self.name}: {what}: not within {seconds:g} s\n{self.tail()}"
            time.sleep(0.2)
        return found

    def until_said(self, words: str, *, times: int = 1) -> None:
        self.until(lambda: self.console().count(words) >= times, f"{words!r} said {times} times")


def installer(parts: Path, version: str) -> bytes:
    return (parts / f"lab-nos-{version}.bin").read_bytes()
