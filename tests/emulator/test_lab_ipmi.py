"""Every lab server speaks IPMI too: the same machine, the same override, its serial line as a console."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_media
from emulator_rig import MediaServer, wait_until

from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ipmi_console import IpmiConsole
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.ports import Bmc
from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve
from metalimmu.desired.types import Tls
from metalimmu.observed.types import BootEnabled, BootMode, BootOverride, BootTarget, PowerAction, PowerState
from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.emulator
SECONDS = 60


@pytest.fixture(autouse=True)
def _login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_USERNAME", "admin")


def opened(lab: Lab, monkeypatch: pytest.MonkeyPatch, protocol: str, number: int = 0) -> Bmc:
    monkeypatch.setenv("LAB_PASSWORD", lab.spec.password)
    status = lab.status()[number]
    address = status.ipmi if protocol == "ipmi" else status.bmc
    tls = Tls(fingerprint=lab.fingerprint())
    target = Address(bmc=address, credentials="env:LAB", mode="read-write", tls=tls)
    return connect(target, ledger=MemoryLedger())


def test_status_and_site(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up(servers=2, protocol="ipmi")
    addresses = [s.ipmi for s in lab.status()]
    assert len(set(addresses)) == 2
    assert all(a.startswith("ipmi://127.0.0.1:") for a in addresses)
    specs = [resolve(load(lab.site), f"node-{n}", root=lab.site) for n in (1, 2)]
    assert [s.bmc for s in specs] == addresses


def test_both_protocols_see_one_state(lab_up: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_up()
    server = lab.spec.servers[0]
    with opened(lab, monkeypatch, "ipmi") as ipmi, opened(lab, monkeypatch, "redfish") as redfish:
        assert (ipmi.identity().serial, ipmi.identity().uuid) == (server.serial, server.uuid)
        assert redfish.identity().serial == server.serial
        ipmi.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.legacy)
        assert redfish.boot_override().effective == "Pxe"
        assert redfish.boot_override().enabled is BootEnabled.once
        redfish.set_boot_override(BootTarget.cd, BootEnabled.continuous, BootMode.uefi)
        assert ipmi.boot_override() == BootOverride(BootEnabled.continuous, "Cd", BootMode.uefi)
        assert lab.status()[0].boot == "Continuous Cd"
    told = {(c["netfn"], c["command"]) for c in lab.commands("node-1")}
    assert (0x00, 0x08) in told


def test_it_is_found_and_down_leaves_nothing(lab_up: Callable[..., Lab]) -> None:
    from test_lab_processes import processes_of

    from metalimmu.bmc.ipmi import parse

    lab = lab_up()
    host, port = parse(lab.status()[0].ipmi)
    assert _answers(host, port)
    lab.down()
    assert not _answers(host, port)
    assert processes_of(lab.folder) == []
    assert not lab.folder.exists()


def _answers(host: str, port: int) -> bool:
    import asyncio
    import socket

    from metalimmu.bmc.presence import Presence

    async def ask() -> bool:
        presence = await Presence.open(socket.AF_INET)
        try:
            seen = await presence.ask(host, port, seconds=0.5)
        finally:
            presence.close()
        return seen is not None

    return asyncio.run(ask())


def test_ports_stay_the_same_after_a_crash(lab_up: Callable[..., Lab]) -> None:
    from metalimmu_emulator import processes

    lab = lab_up()
    before = lab.spec.ipmi_ports
    supervisor = lab.supervisor()
    assert supervisor
    processes.end(supervisor, grace=10)
    assert lab_up().spec.ipmi_ports == before


# a machine


@pytest.fixture
def booting(
    lab_up: Callable[..., Lab], tmp_path: Path, media_server: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Lab, Callable[[bytes], int]]:
    """A lab whose disk says DISK and whose CD says CD, then resets."""
    lab = lab_up(firmware="bios")
    tiny_media.bios_disk(lab.disk("node-1"), "DISK")
    (tmp_path / "cd").mkdir()
    tiny_media.bios_cd(media_server.folder / "cd.iso", tmp_path / "cd", "CD")
    with opened(lab, monkeypatch, "redfish") as bmc:
        bmc.insert_media(next(slot for slot in bmc.media() if slot.takes_cd), f"{media_server.url}/cd.iso")

    def said(word: bytes) -> int:
        path = lab.console("node-1")
        return path.read_bytes().count(word) if path.exists() else 0

    return lab, said


@pytest.mark.e2e
def test_power_boot_device_and_console_of_a_machine(
    booting: tuple[Lab, Callable[[bytes], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, said = booting
    monkeypatch.setenv("LAB_PASSWORD", lab.spec.password)
    target = Address(bmc=lab.status()[0].ipmi, credentials="env:LAB")
    with opened(lab, monkeypatch, "ipmi") as bmc, IpmiConsole.open(target, view=False) as console:
        bmc.set_boot_override(BootTarget.cd, BootEnabled.once, BootMode.legacy)
        bmc.set_power(PowerAction.on)
        heard = _hear(console, b"DISK\r\n")
        assert b"SeaBIOS" in heard
        assert (said(b"CD\r\n"), said(b"DISK\r\n")) == (1, 1), "the CD once, then its own reset lands on the disk"
        assert bmc.power_state() is PowerState.on
        assert bmc.boot_override().enabled is BootEnabled.disabled, "used up by the boot"
        bmc.set_power(PowerAction.force_restart)
        wait_until(lambda: said(b"DISK\r\n") == 2, SECONDS, "the disk again")
        assert said(b"CD\r\n") == 1
        _hear(console, b"DISK\r\n")
        bmc.set_power(PowerAction.force_off)
        wait_until(lambda: bmc.power_state() is PowerState.off, SECONDS, "power off")
        bmc.set_boot_override(BootTarget.cd, BootEnabled.continuous, BootMode.legacy)
        bmc.set_power(PowerAction.on)
        _hear(console, b"CD\r\n")  # the console came back by itself with the new process
        wait_until(lambda: said(b"CD\r\n") >= 3, SECONDS, "the CD again and again")
        assert bmc.boot_override().enabled is BootEnabled.continuous
        bmc.set_power(PowerAction.force_off)


def _hear(console: IpmiConsole, word: bytes) -> bytes:
    data, deadline = b"", time.monotonic() + SECONDS
    while word not in data:
        left = deadline - time.monotonic()
        assert left > 0, f"heard {data[-300:]!r}"
        if select.select([console], (), (), left)[0]:
            more = console.read()
            assert more, console.ended
            data += more
    return data


@pytest.mark.e2e
def test_the_command_joins_a_lab_server(booting: tuple[Lab, Callable[[bytes], int]], tmp_path: Path) -> None:
    """What a person types: SeaBIOS answers a key, and a second person looks on."""
    lab, said = booting
    command = [sys.executable, "-m", "metalimmu", "--site", str(lab.site)]
    typing = subprocess.Popen(
        [*command, "console", "node-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with typing:
        assert typing.stderr
        assert b"console of node-1" in typing.stderr.readline()
        done = subprocess.run([*command, "power", "on", "node-1"], check=False, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: said(b"DISK\r\n") >= 1, SECONDS, "the disk")
        looking = subprocess.Popen([*command, "console", "node-1", "--read-only"], stdout=subprocess.PIPE)
        with looking:
            assert looking.stdout
            line = b""
            while b"DISK" not in line:
                line = looking.stdout.readline()
                assert line
            looking.terminate()
        out, err = typing.communicate(b"\r~.", timeout=60)
    assert b"DISK" in out
    assert typing.returncode == 0, err
