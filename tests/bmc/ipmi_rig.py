"""BMCs that speak IPMI, for tests: Debian's ipmi_sim with a script or a recording, the lab's over a machine that is not there,
and a tap that sees every packet."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from metalimmu_emulator.faults import Faults
from metalimmu_emulator.ipmi import IpmiBmc, Rack
from metalimmu_emulator.machine import DiskSpec, ServerSpec
from metalimmu_emulator.qemu import Override, State, WrongState

USER, PASSWORD = "operator", "secret99"  # no space: ipmi_sim's configuration has no way to write one
RAKP1 = 0x12
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
  {more}
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


CHASSIS = """#!/bin/sh
# ipmi_sim's chassis: each value is a file. `ADDRESS get NAME...` or `ADDRESS set NAME VALUE`
cd "$(dirname "$0")"
shift
operation=$1
shift
case $operation in
get) for name in "$@"; do echo "$name:$(cat "$name")"; done ;;
set) echo "set $*" >> log; echo "$2" > "$1"; [ "$1" != shutdown ] || echo 0 > power ;;
esac
"""


def chassis(folder: Path) -> Path:
    """A program that plays the chassis behind ipmi_sim; beside it `power` (0, 1), `boot`, `identify`, and `log` of all sets."""
    folder.mkdir()
    program = folder / "chassis"
    program.write_text(CHASSIS)
    program.chmod(0o755)
    for name, value in (("power", "0"), ("boot", "none"), ("log", "")):
        (folder / name).write_text(value)
    return program


@contextmanager
def ipmi_sim(
    folder: Path,
    script: Path | None = None,
    *,
    program: Path | None = None,
    serial: int | None = None,
) -> Iterator[int]:
    """Its UDP port. `program`: see `chassis`. `serial`: a TCP port that is the machine's serial port."""
    simulator = shutil.which("ipmi_sim")
    assert simulator, "ipmi_sim is missing: apt-get install openipmi"
    port = free_port()
    config = folder / f"lan-{port}.conf"
    more = f'chassis_control "{program} 0x20"\n' if program else ""
    more += f'  sol "tcp:127.0.0.1:{serial}" 115200\n' if serial else ""
    config.write_text(CONFIG.format(port=port, user=USER, password=PASSWORD, more=more))
    state = folder / f"state-{port}"
    state.mkdir()
    if script is None:
        script = folder / "sim.emu"
        script.write_text(SCRIPT)
    command = [simulator, "-c", str(config), "-f", str(script), "-s", str(state), "-n"]
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
        self.deaf_to_answers_after: int | None = None  # how many answers still pass
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
                if self.deaf_to_answers_after is not None:
                    self.deaf_to_answers_after -= 1
                if client and (self.deaf_to_answers_after is None or self.deaf_to_answers_after >= 0):
                    self._sock.sendto(data, client)
            else:
                client = sender
                self.packets.append(data)
                self._sock.sendto(data, self._bmc)

    def payloads(self) -> list[int]:
        """RMCP+ payload types of what clients sent: 0x10 open session, 0x12 RAKP 1, 0x14 RAKP 3."""
        return [p[5] & 0x3F for p in self.packets if len(p) > 5 and p[3] == 7 and p[4] == 6]


class Machine:
    """In the place of a lab's Vm: its states, and a serial port that answers what it hears in capitals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = ServerSpec(
            name="node-1",
            uuid="11111111-2222-4333-8444-555555555555",
            serial="LAB0001",
            mac="52:54:00:00:00:01",
            disks=(DiskSpec(1 << 21, "DISK0"),),
        )
        self.state = State(override=Override())
        self.acts: list[str] = []
        self.breaks = 0
        self.slow = 0.0

    def power(self, action: str) -> None:
        time.sleep(self.slow)
        self.acts.append(action)
        on = action not in ("ForceOff", "GracefulShutdown")
        if not on and self.state.power == "Off" and action != "ForceOff":
            raise WrongState("it is off")
        override = self.state.override
        if on and override.enabled == "Once":
            override = replace(override, enabled="Disabled", target="None")
        self.state = replace(self.state, power="On" if on else "Off", override=override)

    def set_override(self, override: Override) -> None:
        self.state = replace(self.state, override=override)

    def send_break(self) -> None:
        self.breaks += 1


@contextmanager
def lab_bmc(folder: Path, login: tuple[str, str] = (USER, PASSWORD)) -> Iterator[tuple[IpmiBmc, Machine]]:
    machine: Any = Machine(folder)
    rack = Rack(*login)
    bmc = rack.add(machine, Faults(folder))
    rack.start()
    try:
        yield bmc, machine
    finally:
        rack.close()


@contextmanager
def serial_port(sock: socket.socket, banner: bytes = b"login: ", *, log: Path | None = None) -> Iterator[list[bytes]]:
    """A listening socket plays a machine's serial line: it greets each who connects, and answers in capitals. What it heard.

    `log`: what it says is there too, as QEMU writes it.
    """
    heard: list[bytes] = []
    stop = threading.Event()
    sock.settimeout(0.05)

    def say(line: socket.socket, data: bytes) -> None:
        if log and data:
            with log.open("ab") as file:
                file.write(data)
        line.sendall(data)

    def run() -> None:
        while not stop.is_set():
            try:
                line, _ = sock.accept()
            except TimeoutError:
                continue
            with line:
                line.settimeout(0.05)
                greeting = banner
                while not stop.is_set():
                    try:
                        say(line, greeting)
                        greeting = b""
                        data = line.recv(4000)
                        heard.extend([data] if data else [])
                        say(line, data.upper())
                    except TimeoutError:
                        continue
                    except OSError:
                        break
                    if not data:
                        break

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join(10)
        sock.close()
