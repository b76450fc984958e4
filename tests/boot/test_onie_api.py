"""The boot service as switches meet it: one image for one switch, once; nothing for anybody else."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boot_rig import Rig, until

from metalimmu.boot import limits
from metalimmu.boot.http import BootService
from metalimmu.boot.media_api import BLOCK
from metalimmu.boot.syslog import Syslog
from metalimmu.boot.tokens import hashed
from metalimmu.desired.types import Listen
from metalimmu.errors import ListenError
from metalimmu.store.switch_records import SwitchRecord

PLATFORM = "x86_64-kvm_x86_64-r0"
IMAGE = bytes(range(256)) * 5000
HEADERS = {
    "ONIE-SERIAL-NUMBER": "LAB1",
    "ONIE-ETH-ADDR": "52:54:00:10:00:01",
    "ONIE-MACHINE": "kvm_x86_64",
    "ONIE-MACHINE-REV": "0",
    "ONIE-ARCH": "x86_64",
    "ONIE-OPERATION": "os-install",
}
ZTP = {
    "User-Agent": "SONiC-ZTP/0.1",
    "PRODUCT-NAME": PLATFORM,
    "SERIAL-NUMBER": "LAB1",
    "BASE-MAC-ADDRESS": "52:54:00:10:00:01",
}


class Bytes:
    size = len(IMAGE)

    def pread(self, offset: int, length: int) -> bytes:
        return IMAGE[offset : offset + length]

    def close(self) -> None: ...


class Switches(Rig):
    """The rig with switches: SwitchContent."""

    def new_service(self, **limits: float) -> BootService:
        self.said: list[tuple[str, str]] = []
        return BootService(
            self.urls,
            Listen(bmc=f"127.0.0.1:{self.bmc_port}", machines=f"127.0.0.1:{self.machines_port}"),
            tls=self.tls,
            key=self.key,
            deployments=self.store,
            images=self.images,
            content=self,
            switches=self,
            **limits,
        )

    def switches(self):
        return self.store.switches

    def nos_image(self, _deployment) -> Bytes:
        return Bytes()

    def ztp_file(self, _deployment, name: str):
        return {"ztp.json": ('{"ztp": {}}', "application/json"), "config_db.json": ("{}", "application/json")}.get(name)

    def switch_said(self, deployment, kind: str, text: str) -> None:
        self.said.append((kind, text))

    def secret(self, run: str = "r1") -> str:
        return self.key.secret("switch", run)

    def assign(self, run: str = "r1", **fields) -> SwitchRecord:
        given = {"method": "onie", "armed": True, "serial": "LAB1", "base_mac": "52:54:00:10:00:01", **fields}
        return self.store.switches.add(
            SwitchRecord(
                id=run, run=run, host="leaf-1", secret_hash=hashed(self.secret(run)), image="lab@1", digest="d", size=len(IMAGE),
                mgmt_mac="52:54:00:10:00:02", platform=PLATFORM, fence=1, installs=2, **given,
            )
        )  # fmt: skip

    def get(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes = b""
    ) -> tuple[int, bytes]:
        link = http.client.HTTPConnection("127.0.0.1", self.bmc_port, timeout=10)
        try:
            link.request(method, path, body=body or None, headers=HEADERS if headers is None else headers)
            answer = link.getresponse()
            return answer.status, answer.read()
        finally:
            link.close()

    def record(self, run: str = "r1") -> SwitchRecord:
        return self.store.switches.get(run)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Switches]:
    made = Switches(tmp_path)
    made.service.start()
    yield made
    made.close()


def test_installers_keep_the_limit_of_their_rack(tmp_path: Path) -> None:
    rig = Switches(tmp_path)
    rate = 1_000_000.0
    rig.service = rig.new_service(per_rack=rate)
    try:
        rig.service.start()
        rig.assign()
        began = time.monotonic()
        assert rig.get(f"/onie/{rig.secret()}/onie-installer") == (200, IMAGE)
        assert time.monotonic() - began >= len(IMAGE) / rate - limits.BURST - limits.PIECE / rate
    finally:
        rig.close()


PATHS = ("/onie/{}/onie-installer", "/onie-installer-x86_64-kvm_x86_64-r0", "/onie-installer.bin", "/switch")


@pytest.mark.parametrize("path", PATHS)
def test_the_image_goes_once_to_the_one_switch(rig: Switches, path: str) -> None:
    rig.assign()
    path = path.format(rig.secret())
    status, body = rig.get(path)
    assert (status, body == IMAGE) == (200, True)
    until(lambda: rig.record().delivered == 1)
    found = rig.record()
    assert (found.armed, found.bytes, found.asked, found.failures) == (False, len(IMAGE), 1, 0)
    assert found.asked_from == "127.0.0.1"
    assert rig.get(path) == (404, b"")
    until(lambda: rig.record().failures == 1)  # it has tried to install it, and asks again
    assert ("installer", "leaf-1 asks for its installer again: it failed 1 times") in rig.said
    rig.get(path)
    assert rig.record().failures == 1  # however often it asks: one failure for one delivery
    rig.store.switches.update("r1", armed=True)
    assert rig.get(path)[0] == 200
    until(lambda: rig.record().delivered == 2)


@pytest.mark.parametrize("path", PATHS)
def test_nobody_else_gets_it(rig: Switches, path: str) -> None:
    path = path.format(rig.secret())
    assert rig.get(path) == (404, b"")  # no assignment at all
    rig.assign()
    for header, value in (
        ("ONIE-SERIAL-NUMBER", "LAB2"), ("ONIE-ETH-ADDR", "52:54:00:10:00:02"), ("ONIE-MACHINE", "other"), ("ONIE-OPERATION", "onie-update"),
    ):  # fmt: skip
        assert rig.get(path, {**HEADERS, header: value}) == (404, b""), header
    assert rig.get(path, {}) == (404, b"")
    assert rig.record().asked == 0
    assert "127.0.0.1: it" in rig.record().refused  # what the operator looks for
    rig.store.switches.update("r1", ended=1.0)
    assert rig.get(path) == (404, b"")


def test_names_of_others_and_updaters_are_no_names(rig: Switches) -> None:
    rig.assign()
    for name in ("onie-installer-arm64", "onie-updater", "onie-updater-x86_64", "onie-installer-x86_64-other_box-r0"):
        assert rig.get(f"/{name}") == (404, b""), name
    assert rig.get(f"/onie/{'a' * 32}/onie-installer") == (404, b"")
    assert rig.get(f"/onie/{'a' * 500}/x") == (404, b"")
    assert rig.get(f"/nos/{rig.secret()}/image", {}) == (404, b"")  # this one goes through ONIE


def test_a_transfer_that_breaks_off_is_no_delivery(rig: Switches) -> None:
    rig.assign()
    with socket.create_connection(("127.0.0.1", rig.bmc_port)) as link:
        lines = "".join(f"{k}: {v}\r\n" for k, v in HEADERS.items())
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.sendall(f"GET /switch HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        link.recv(2000)
    until(lambda: rig.record().asked == 1)
    assert rig.get("/switch")[0] == 200
    until(lambda: rig.record().delivered == 1)
    found = rig.record()
    assert found.failures == 0
    assert found.bytes <= 2 * len(IMAGE) + BLOCK


def test_a_slot_image_needs_its_secret_and_nothing_else(rig: Switches) -> None:
    rig.assign(method="two-slot")
    assert rig.get("/switch") == (404, b"")
    assert rig.get(f"/nos/{rig.secret()}/image", {})[1] == IMAGE
    until(lambda: rig.record().delivered == 1)
    assert rig.get(f"/nos/{rig.secret()}/image", {}) == (404, b"")
    # Its secret is in the arguments of commands: it opens nothing else, and above all no config.
    assert rig.get(f"/ztp/{rig.secret()}/ztp.json", {}) == (404, b"")
    assert rig.get(f"/ztp/{rig.secret()}/config_db.json", {}) == (404, b"")
    assert rig.get(f"/ztp/{rig.secret()}/report", {}, "POST", b"serial=LAB1\n") == (404, b"")
    assert rig.record().reported_at is None


def test_ztp_comes_after_the_installer_and_before_the_report(rig: Switches) -> None:
    rig.assign()
    assert rig.get("/switch", ZTP) == (404, b"")  # nothing was installed yet: whoever asks is not our new system
    assert rig.get("/switch")[0] == 200
    until(lambda: rig.record().delivered == 1)
    assert rig.get("/switch", {**ZTP, "SERIAL-NUMBER": "LAB2"}) == (404, b"")
    assert rig.get("/switch", ZTP) == (200, b'{"ztp": {}}')
    assert rig.get(f"/ztp/{rig.secret()}/config_db.json", {}) == (200, b"{}")
    assert rig.get(f"/ztp/{rig.secret()}/passwd", {}) == (404, b"")
    key = f"ssh-ed25519 {'A' * 68}"
    said = f"serial=LAB1\nversion=2\nhost_key={key} x\n".encode()
    assert rig.get(f"/ztp/{rig.secret()}/report", {}, "POST", said)[0] == 200
    found = rig.record()
    assert found.reported == {"serial": "LAB1", "version": "2", "host_keys": [key]}
    assert None not in (found.ztp_at, found.config_at, found.reported_at)
    assert rig.get("/switch", ZTP) == (404, b"")
    assert rig.get(f"/ztp/{'b' * 32}/report", {}, "POST", said) == (404, b"")


def test_syslog_is_kept_from_the_switch_that_has_the_installer(rig: Switches) -> None:
    rig.assign()
    heard = Syslog("127.0.0.1:0", rig)
    heard.start()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            to = ("127.0.0.1", heard.port)
            sender.sendto(b"<134>Nov 20 14:00:00 onie os-install: too early", to)  # nobody has asked yet
            until(lambda: heard._known[0] > 0)  # it was looked at
            rig.store.switches.update("r1", asked_from="127.0.0.1")

            def heard_of(word: str) -> bool:
                sender.sendto(f"<134>os-install: {word}".encode(), to)
                return ("onie", f"os-install: {word}") in rig.said

            until(lambda: heard_of("begin"))
            for line in (
                b"<134>Nov 20 14:00:01 onie os-install: Verifying\x1b[2J image checksum ... OK.\n",
                b"<134>onie: no success",
                b"<134>Nov 20 14:00:01 host sshd[3]: somebody else",
                b"\xff\xfe not syslog",
            ):
                sender.sendto(line, to)
                found = [("onie", "os-install: Verifying [2J image checksum ... OK."), ("onie", "onie: no success")]

            until(lambda: heard_of("end"))
            assert [
                s for s in rig.said if s[0] == "onie" and s[1] not in ("os-install: begin", "os-install: end")
            ] == found
            for _ in range(400):
                sender.sendto(b"<134>os-install: flood", to)
    finally:
        heard.stop()
    assert len(rig.said) <= 300


def test_a_port_that_is_taken_is_said(rig: Switches) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ListenError, match=r"listen\.syslog"):
            Syslog(f"127.0.0.1:{taken.getsockname()[1]}", rig).start()
