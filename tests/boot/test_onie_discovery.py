"""Every case of ONIE's compliance list (contrib/oce/config/onie-tests.json of opencomputeproject/onie) as requests to our server.

The list plays a server to a switch that is tested. Here the server is tested: what a switch asks for in each of the 110
cases is answered with the image that is assigned to it, once, or with nothing at all.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from boot_rig import Rig, until

from metalimmu.boot import loaders, onie
from metalimmu.boot.http import BootService
from metalimmu.boot.tokens import hashed
from metalimmu.desired.types import Listen
from metalimmu.store.switch_records import SwitchRecord
from metalimmu_emulator import switch as lab_switch

IMAGE = b"#!/bin/sh\n" + bytes(range(256)) * 2000
ARCH, MACHINE, REVISION = "x86_64", "kvm_x86_64", "0"
PLATFORM = f"{ARCH}-{MACHINE}-r{REVISION}"
SERIAL, BASE_MAC = "LABC0FFEE", "52:54:00:aa:bb:01"
ADDRESS = "C0A80A17"  # 192.168.10.23

# The five names of the list, the most specific first. ({arch}-{asic} came later than the list.)
NAMES = (PLATFORM, f"{ARCH}-{MACHINE}", MACHINE, ARCH, "")


def name(number: int, action: str) -> str:
    rest = NAMES[number - 1]
    return f"onie-{action}-{rest}" if rest else f"onie-{action}"


@dataclass(frozen=True)
class Case:
    number: int
    title: str
    way: str  # idle | by hand | disk | url | http | tftp
    action: str = "installer"
    file: str = ""
    server: str = "10.0.0.1"  # whom the switch believes to talk to

    def __str__(self) -> str:
        return f"{self.number}-{self.title.replace(' ', '')}"


def five(first: int, title: str, way: str, action: str = "installer", server: str = "10.0.0.1") -> list[Case]:
    return [Case(first + i - 1, f"{title} - Name {i}", way, action, name(i, action), server) for i in (1, 2, 3, 4, 5)]


def dhcp(first: int, action: str, prefix: str) -> list[Case]:
    """The middle of the list, the same for installers and updaters."""
    inexact = f"{prefix}DHCP Inexact"
    return [
        Case(first, f"{prefix}DHCP Exact - VIVSO", "url", action),
        Case(first + 1, f"{prefix}DHCP Exact - Default URL", "url", action),
        Case(first + 2, f"{prefix}DHCP Exact - TFTP Server IP + TFTP Bootfile", "tftp", action, "lab-nos.bin"),
        Case(first + 3, f"{prefix}DHCP Exact - TFTP Server name + TFTP Bootfile", "tftp", action, "lab-nos.bin"),
        Case(first + 4, f"{inexact} - TFTP Bootfile", "tftp", action, "lab-nos.bin"),
        *five(first + 5, f"{inexact} - HTTP Server IP", "http", action),
        *five(first + 10, f"{inexact} - TFTP Server IP", "tftp", action),
        *five(first + 15, f"{inexact} - DHCP Server IP", "http", action, "10.0.0.254"),
        *five(first + 20, f"{prefix}IPv6 Neighbor", "http", action, "[fe80::1]"),
        *five(first + 25, f"{prefix}TFTP Waterfall", "tftp", action),
    ]


def late(first: int, action: str, prefix: str) -> list[Case]:
    return [
        *five(first, f"{prefix}DHCP Inexact - Server Name - HTTP", "http", action, "onie-server"),
        *five(first + 5, f"{prefix}DHCP Inexact - Server Name - TFTP", "tftp", action),
    ]


CASES = (
    Case(0, "Cold Boot", "idle"),
    Case(1, "Warm Boot", "idle"),
    Case(2, "Static Loader", "by hand"),
    *five(3, "USB", "disk"),
    *dhcp(8, "installer", ""),
    Case(38, "ONIE Update - Static Loader", "by hand", "updater"),
    *five(39, "ONIE Update - USB", "disk", "updater"),
    *dhcp(44, "updater", "ONIE Update - "),
    Case(74, "Uninstall from UBoot", "idle"),
    Case(75, "Uninstall from ONIE", "idle"),
    Case(76, "Uninstall from NOS", "idle"),
    Case(77, "Rescue from UBoot", "idle"),
    Case(78, "Rescue from ONIE", "idle"),
    Case(79, "Rescue from NOS", "idle"),
    *late(80, "installer", ""),
    *five(90, "ONIE - IPv4 RFC 3927", "http", server="169.254.7.7"),
    *late(95, "updater", "ONIE Update - "),
    *five(105, "ONIE Update - IPv4 RFC 3927", "http", "updater", "169.254.7.7"),
)


class File:
    size = len(IMAGE)

    def pread(self, offset: int, length: int) -> bytes:
        return IMAGE[offset : offset + length]

    def close(self) -> None:
        pass


class Server:
    """Our boot service, and one switch that may have an assignment."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.count = 0
        self.service = BootService(
            rig.urls,
            Listen(bmc=f"127.0.0.1:{rig.bmc_port}", machines=f"127.0.0.1:{rig.machines_port}"),
            tls=rig.tls,
            key=rig.key,
            deployments=rig.store,
            images=rig.images,
            content=rig,
            switches=self,
        )

    # SwitchContent

    def switches(self):
        return self.rig.store.switches

    def nos_image(self, deployment: object) -> File:
        return File()

    def ztp_file(self, deployment: object, name: str) -> None:
        return None

    def switch_said(self, deployment: object, kind: str, text: str) -> None:
        pass

    # what the tests do

    def assign(self) -> SwitchRecord:
        self.count += 1
        made = f"run-{self.count}"
        secret = self.rig.key.secret("switch", made)
        return self.switches().add(
            SwitchRecord(
                id=made,
                run=made,
                host="sw-1",
                secret_hash=hashed(secret),
                method="onie",
                image="lab-nos@1",
                digest="d" * 64,
                size=len(IMAGE),
                serial=SERIAL,
                base_mac=BASE_MAC,
                mgmt_mac="52:54:00:aa:bb:02",
                platform=PLATFORM,
                fence=1,
                installs=2,
                armed=True,
                created=float(self.count),
            )
        )

    def url(self, record: SwitchRecord) -> str:
        return self.service.switch_url("/onie/{}/onie-installer", record.id).removeprefix(self.rig.urls.bmc)

    def get(self, path: str, action: str = "installer", host: str = "10.0.0.1", **other: str) -> tuple[int, bytes]:
        who = {"serial": SERIAL, "mac": BASE_MAC, "machine": MACHINE} | other
        status, _, body = self.rig.get(
            path,
            headers={
                "Host": host,
                "User-Agent": "onie/1.0 (Linux 5.4.86-onie+2025.02; BusyBox v1.25.1)",
                "ONIE-SERIAL-NUMBER": who["serial"],
                "ONIE-ETH-ADDR": who["mac"],
                "ONIE-VENDOR-ID": "42623",
                "ONIE-MACHINE": who["machine"],
                "ONIE-MACHINE-REV": REVISION,
                "ONIE-ARCH": ARCH,
                "ONIE-SECURITY-KEY": "",
                "ONIE-OPERATION": "onie-update" if action == "updater" else "os-install",
                "ONIE-VERSION": "2025.02",
            },
        )
        return status, body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    rig = Rig(tmp_path_factory.mktemp("onie"))
    made = Server(rig)
    made.service.start()
    yield made
    made.service.stop()
    rig.close()


@pytest.fixture
def assigned(server: Server) -> Iterator[SwitchRecord]:
    record = server.assign()
    yield record
    server.switches().update(record.id, ended=1.0)


@pytest.fixture(scope="module")
def looked_for() -> dict[str, list[str]]:
    """The names that the lab's ONIE looks for, by what it looks for: the shell's own words, run here."""
    functions = (lab_switch.FILES / "onie" / "lib" / "onie" / "functions").read_text()
    found = re.search(r"^default_names\(\) \{\n.*?^\}$", functions, re.MULTILINE | re.DOTALL)
    assert found
    names = {}
    for action in ("installer", "updater"):
        variables = (
            f"onie_prefix=onie-{action} onie_platform={PLATFORM} onie_arch={ARCH} onie_machine={MACHINE} "
            "onie_switch_asic=qemu"
        )
        done = subprocess.run(
            [shutil.which("sh") or "/bin/sh", "-c", f"{variables}\n{found[0]}\ndefault_names"],
            capture_output=True,
            text=True,
            check=True,
        )
        names[action] = done.stdout.split()
    return names


def paths(case: Case, record: SwitchRecord, server: Server) -> list[str]:
    """What the switch asks of an HTTP server in this case, until something is there."""
    if case.way in ("by hand", "url"):
        return [server.url(record)]
    if case.way == "http":
        return [f"/{case.file}", f"/{case.file}.bin"]
    return []


def test_the_list_is_whole() -> None:
    assert [c.number for c in CASES] == list(range(110))
    assert len({c.title for c in CASES}) == 110


@pytest.mark.parametrize("case", CASES, ids=str)
def test_discovery(case: Case, server: Server, assigned: SwitchRecord, looked_for: dict[str, list[str]]) -> None:
    asked = paths(case, assigned, server)
    if case.way == "idle":
        # Nobody said that it shall be installed: neither a name nor an address of before is anything.
        server.switches().update(assigned.id, ended=1.0)
        for path in ["/switch", server.url(assigned), *(f"/{n}" for n in looked_for["installer"])]:
            assert server.get(path) == (404, b""), path
        return
    if case.way == "disk":
        # Read off a stick, and nobody is asked: the lab's ONIE looks for this name, in this order.
        plain = [n for n in looked_for[case.action] if not n.endswith(".bin") and "qemu" not in n]
        assert plain[case.number - (3 if case.action == "installer" else 39)] == case.file
        return
    if case.way == "tftp":
        # TFTP cannot say who asks, and ONIE runs what it gets: there is none of these names, whatever the folder.
        for path in (
            case.file,
            f"52-54-00-aa-bb-02/{case.file}",
            *(f"{ADDRESS[:n]}/{case.file}" for n in range(8, 0, -1)),
        ):
            assert Path(path).name not in loaders.FILES
            if "/" in path or case.file == "lab-nos.bin":
                assert server.get(f"/{path}", case.action) == (404, b""), path
        return
    if case.action == "updater":
        # Never ours to give, by no name; and it costs the switch nothing of what it may have.
        for path in asked:
            assert server.get(path, "updater", case.server) == (404, b""), path
        after = server.switches().get(assigned.id)
        assert (after.armed, after.delivered, after.bytes) == (True, 0, 0)
        return
    for path in asked:
        for other in ({"serial": "LABOTHER"}, {"mac": "52:54:00:aa:bb:09"}, {"machine": "accton_as7712_32x"}):
            assert server.get(path, host=case.server, **other) == (404, b""), (path, other)
    for count, path in enumerate(asked, start=1):
        server.switches().update(assigned.id, armed=True)
        assert server.get(path, host=case.server) == (200, IMAGE), path
        # Delivered is what the switch has acknowledged: a moment after its last byte.
        until(lambda count=count: server.switches().get(assigned.id).delivered == count, what="delivered")
        assert server.get(path, host=case.server) == (404, b""), f"{path} again"
    after = server.switches().get(assigned.id)
    assert (after.delivered, after.bytes, after.armed) == (len(asked), len(asked) * len(IMAGE), False)
    assert after.failures > 0  # who asks again has failed


def test_client_and_server_know_the_same_names(looked_for: dict[str, list[str]]) -> None:
    assert all(onie.named(n, PLATFORM) for n in looked_for["installer"])
    assert not any(onie.named(n, PLATFORM) for n in looked_for["updater"])
    assert [n for n in looked_for["installer"] if "qemu" not in n] == list(onie.names(PLATFORM))
