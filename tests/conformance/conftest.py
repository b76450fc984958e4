"""The drivers under test, each with a way to look behind it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "bmc"))

import ipmi_rig
from ipmi_rig import RAKP1, Tap, chassis, ipmi_sim, lab_bmc
from redfish_server import PASSWORD, USER, RedfishServer, certificate, small_tree
from subjects import Subject

from metalimmu.bmc import fake_machines
from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ipmi_guard import WRITES as IPMI_WRITES
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcError
from metalimmu.observed.machine import Machine
from metalimmu_emulator.ipmi import commands

MACHINE = Machine(
    power="On",
    serial="SN0001",
    uuid="11111111-2222-3333-4444-555555555555",
    nics=("52:54:00:AA:BB:01",),
    username=USER,
    password=PASSWORD,
)

SERVERS: dict[str, dict[str, Any]] = {
    "redfish": {"tree": small_tree},
    "redfish-basic": {"tree": small_tree, "login": "basic"},
    "redfish-etag": {"tree": small_tree, "etags": "strong"},
    "redfish-weak-etag": {"tree": small_tree, "etags": "weak"},
    "redfish-patch-media": {"tree": lambda: small_tree(media="patch"), "etags": "strong"},
}


WITH_MEDIA = (
    "fake",
    "fake-file",
    *SERVERS,
    "redfish-raw",
    pytest.param("sushy-emulator", marks=pytest.mark.emulator),
)
"""IPMI has none."""
WITH_OVERRIDE = (*WITH_MEDIA, "ipmi")
"""ipmi_sim takes one and does not say that it is valid."""


@pytest.fixture(params=(*WITH_OVERRIDE, "ipmi-sim"))
def subject(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with _subject(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(params=WITH_OVERRIDE)
def overriding(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with _subject(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(params=WITH_MEDIA)
def inserting(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with _subject(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture(params=("ipmi", "ipmi-sim"))
def without_media(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    with _subject(request.param, tmp_path, monkeypatch) as found:
        yield found


@contextmanager
def _subject(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    monkeypatch.setenv("CONFORMANCE_USERNAME", USER)
    monkeypatch.setenv("CONFORMANCE_PASSWORD", PASSWORD)
    monkeypatch.setenv("WRONG_USERNAME", USER)
    monkeypatch.setenv("WRONG_PASSWORD", "guessed wrong")
    if name.startswith("fake"):
        yield _fake(f"fake://{tmp_path}/m.json" if name == "fake-file" else f"fake://{uuid.uuid4()}")
    elif name == "ipmi":
        with lab_bmc(tmp_path, (USER, PASSWORD)) as (server, machine):
            machine.power("On")
            yield Subject(
                f"ipmi://127.0.0.1:{server.port}",
                "env:CONFORMANCE",
                writes=lambda: sum((c["netfn"], c["command"]) in IPMI_WRITES for c in commands(machine.folder)),
                sessions=lambda: len(server.sessions),
                logins=lambda: server.logins,
            )
    elif name == "ipmi-sim":
        program = chassis(tmp_path / "chassis")
        monkeypatch.setenv("SIM_USERNAME", ipmi_rig.USER)
        monkeypatch.setenv("SIM_PASSWORD", ipmi_rig.PASSWORD)
        with ipmi_sim(tmp_path, program=program) as port, Tap(port) as tap:
            yield Subject(
                f"ipmi://127.0.0.1:{tap.port}",
                "env:SIM",
                writes=lambda: len((program.parent / "log").read_text().splitlines()),
                logins=lambda: tap.payloads().count(RAKP1),
            )
    elif name == "sushy-emulator":
        # It fetches the whole image at insert, so there must be one.
        with RedfishServer({"/m/0123456789abcdef/boot.iso": b"an iso"}, login="none") as images:
            port = _free_port()
            with subprocess.Popen(_emulator(port, tmp_path)) as process:
                try:
                    _wait_until_ready(process, port)
                    url = f"http://127.0.0.1:{images.port}/m/0123456789abcdef/boot.iso"
                    # Its fake driver changes power 1 to 11 s late, at random; every override is Continuous.
                    yield Subject(f"redfish+http://127.0.0.1:{port}", None, url=url, boots_for_real=False, patient=30.0)
                finally:
                    process.terminate()
    elif name == "redfish-raw":
        with certificate(tmp_path) as (tls, _, pin), RedfishServer(small_tree(), tls=tls) as server:
            address = server.address.replace("redfish+", "redfish-raw+")
            yield replace(_redfish(server), address=address, tls=Tls(fingerprint=pin))
    else:
        options = dict(SERVERS[name])
        with RedfishServer(options.pop("tree")(), **options) as server:
            yield _redfish(server)


def _redfish(server: RedfishServer) -> Subject:
    return Subject(
        server.address,
        "env:CONFORMANCE",
        writes=lambda: len(server.writes),
        sessions=lambda: len(server.sessions),
        logins=lambda: len(server.logins),
    )


def _fake(address: str) -> Subject:
    store = fake_machines.create(address, MACHINE)
    return Subject(
        address,
        "env:CONFORMANCE",
        sessions=lambda: store.read().sessions,
        logins=lambda: store.read().refused_logins,
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _emulator(port: int, folder: Path) -> list[str]:
    command = Path(sys.executable).parent / "sushy-emulator"
    config = folder / "emulator.conf"
    config.write_text("SUSHY_EMULATOR_FAKE_DRIVER = True\n")
    return [str(command), "--fake", "--interface", "127.0.0.1", "--port", str(port), "--config", str(config)]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "sushy-emulator ended"
        try:
            with connect(Address(bmc=f"redfish+http://127.0.0.1:{port}"), patience=0.1) as bmc:
                bmc.power_state()
        except BmcError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("sushy-emulator is not ready after 60 s")
