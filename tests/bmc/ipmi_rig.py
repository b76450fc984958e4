"""BMCs that speak IPMI, for tests: Debian's ipmi_sim with a script or a recording, and a tap that sees every packet."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

USER, PASSWORD = "operator", "secret99"  # no space: ipmi_sim's configuration has no way to write one
PING = bytes.fromhex("0600ff06000011be80010000")

SCRIPT = """
mc_setbmc 0x20
mc_add 0x20 32 no-device-sdrs 0x1 2 48 0x9f 0x2a2 0x100 dynsens
mc_enable 0x20
sel_enable 0x20 1000 0x0a
"""

CONFIG = """
name "sim"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  user 1 true "" "none" user 10 none md2 md5 straight
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""


def recordings() -> list[Path]:
    """As for Redfish: the project has no copy, and CI must have them."""
    folder = os.environ.get("METALIMMU_RECORDINGS")
    found = sorted(Path(folder, "ipmi").glob("*.emu")) if folder else []
    if not found and os.environ.get("CI"):
        raise pytest.UsageError("METALIMMU_RECORDINGS has no ipmi/*.emu, and CI must have them")
    return found


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def ipmi_sim(folder: Path, script: Path | None = None) -> Iterator[int]:
    """Its UDP port."""
    program = shutil.which("ipmi_sim")
    assert program, "ipmi_sim is missing: apt-get install openipmi"
    port = free_port()
    config = folder / f"lan-{port}.conf"
    config.write_text(CONFIG.format(port=port, user=USER, password=PASSWORD))
    state = folder / f"state-{port}"
    state.mkdir()
    if script is None:
        script = folder / "sim.emu"
        script.write_text(SCRIPT)
    command = [program, "-c", str(config), "-f", str(script), "-s", str(state), "-n"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            _until_it_answers(process, port)
            yield port
        finally:
            process.kill()


def _until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 20
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < deadline:
            assert process.poll() is None, "ipmi_sim ended"
            try:
                sock.send(PING)
                sock.recv(100)
            except OSError:
                time.sleep(0.02)
            else:
                return
    raise AssertionError("ipmi_sim does not answer")


class Tap:
    """Forwards UDP to a BMC and keeps what clients sent."""

    def __init__(self, port: int) -> None:
        self.packets: list[bytes] = []
        self._bmc = ("127.0.0.1", port)
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self._sock.settimeout(0.05)
        self.port = int(self._sock.getsockname()[1])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._sock.close()

    def _run(self) -> None:
        client = None
        while not self._stop.is_set():
            try:
                data, sender = self._sock.recvfrom(4000)
            except TimeoutError:
                continue
            if sender == self._bmc:
                if client:
                    self._sock.sendto(data, client)
            else:
                client = sender
                self.packets.append(data)
                self._sock.sendto(data, self._bmc)

    def payloads(self) -> list[int]:
        """RMCP+ payload types of what clients sent: 0x10 open session, 0x12 RAKP 1, 0x14 RAKP 3."""
        return [p[5] & 0x3F for p in self.packets if len(p) > 5 and p[3] == 7 and p[4] == 6]
