"""Golden text of what ships for installers, and its programs run in a real shell."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import yaml

from metalimmu.desired.answers import COMMON, FAMILIES, with_answers
from metalimmu.desired.render import render
from metalimmu.desired.types import HostSpec
from metalimmu.errors import TemplateError

GOLDEN = Path(__file__).parent / "golden-install"
CONTROLLER = {
    "url": "https://10.1.0.5:8443",
    "deployment": "d1",
    "phone_home": "http://10.1.0.5:8080/p/abc",
    "answers": "http://10.1.0.5:8080/i/def/",
}
SPEC: dict[str, Any] = {
    "name": "r12-u07.example.net", "bmc": "fake://node-1", "system": None, "serial": "7XK2P13", "credentials": None, "tls": {}, "proxy": None,
    "connect_timeout": 10.0, "read_timeout": 60.0, "mode": "read-write", "nics": ["b8:ca:3a:00:00:01"],
    "network": {"address": "10.1.12.7/24", "gateway": "10.1.12.1", "dns": ["10.1.0.53", "10.2.0.53"]}, "role": "web", "pool": None,
    "image": "web@2", "digest": None, "held": None, "boot": "auto", "firmware": "uefi", "ramdisk": "lab",
    "root_disk": {"serial": "S5 X'1", "wwn": None, "model": None, "min_size": 100_000_000_000, "max_size": None, "rotational": False, "by_path": None},
    "wipe_signatures": False, "proof": {}, "templates": {}, "labels": {}, "protected": False, "limits": {},
    "vars": {"ssh_authorized_keys": ["ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"], "packages": ["tmux"], "timezone": "Europe/Berlin",
             "esxi_disk": "naa.5000", "esxi_root_password": "$6$x"},
}  # fmt: skip


def spec(**fields: Any) -> HostSpec:
    return msgspec.convert({**SPEC, **fields}, HostSpec)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f])
def test_answers_that_ship(family: str) -> None:
    files = render(with_answers(spec(), family), controller=CONTROLLER)
    for name in FAMILIES[family].files:
        if name not in COMMON:
            assert files[name] == (GOLDEN / f"{family}-{name}").read_text(), f"{family}-{name}"


def test_programs_that_ship() -> None:
    files = render(with_answers(spec(root_disk={}), ""), controller=CONTROLLER)
    for name in COMMON:
        assert files[name] == (GOLDEN / name).read_text(), name
        subprocess.run(["sh", "-n"], input=files[name].encode(), check=True)


def test_a_bare_host_gets_answers_too() -> None:
    bare = spec(vars={}, network={}, nics=[], root_disk={})
    for family in ("preseed", "kickstart", "autoinstall"):
        files = render(with_answers(bare, family), controller=CONTROLLER)
        assert "None" not in files[FAMILIES[family].main]
    with pytest.raises(TemplateError, match="esxi_disk"):
        render(with_answers(bare, "esxi"), controller=CONTROLLER)


def test_one_key_as_text_is_one_key() -> None:
    made = with_answers(spec(vars={"ssh_authorized_keys": "ssh-ed25519 AAAA a"}), "autoinstall")
    document = yaml.safe_load(render(made, controller=CONTROLLER)["user-data"])
    assert document["autoinstall"]["ssh"]["authorized-keys"] == ["ssh-ed25519 AAAA a"]


def test_a_template_of_the_role_is_taken_instead() -> None:
    own = spec(templates={"preseed.cfg": "mine {{ controller.answers }}\n"})
    files = render(with_answers(own, "preseed"), controller=CONTROLLER)
    assert files["preseed.cfg"] == "mine http://10.1.0.5:8080/i/def/\n"
    assert "say/begin" in files["begin"]


# the programs, run


class Controller(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200 if self.server.refusals <= 0 else 409)
        self.server.refusals -= 1
        self.end_headers()
        self.wfile.write(b"#!/bin/sh\n" if self.path.endswith("phone-home") else b"go\n")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(f"{self.path} {body}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def controller() -> Iterator[Any]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Controller)
    server.asked, server.refusals = [], 0
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    server.base = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def program(controller: Any, name: str, **fields: Any) -> str:
    about = {**CONTROLLER, "phone_home": f"{controller.base}/p/abc", "answers": f"{controller.base}/i/def/"}
    return render(with_answers(spec(**fields), ""), controller=about)[name]


def run(text: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-s", *args], input=text, capture_output=True, text=True, timeout=20, check=False, env={"PATH": "/usr/bin:/bin", **env}
    )  # fmt: skip


def disk(sys: Path, name: str, *, serial: str = "", vpd: bytes = b"", nvme: str = "", **files: str) -> None:
    folder = sys / name
    (folder / "device").mkdir(parents=True)
    (folder / "queue").mkdir()
    (folder / "size").write_text(files.pop("size", "2000000000"))
    (folder / "queue/rotational").write_text(files.pop("rotational", "0"))
    for file, text in {**files, "serial": serial, "device/serial": nvme}.items():
        if text:
            (folder / file).write_text(text)
    if vpd:
        (folder / "device/vpd_pg80").write_bytes(b"\0\x80\0\x08" + vpd)


def hints(**fields: Any) -> dict[str, Any]:
    return {**dict.fromkeys(SPEC["root_disk"]), **fields}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"serial": "VIRTIO1"}, "/dev/vda"),
        ({"serial": "scsi 9"}, "/dev/sda"),
        ({"serial": "nvme-3"}, "/dev/nvme0n1"),
        ({"wwn": "0x5000C500A"}, "/dev/sda"),
        ({"model": "big disk"}, "/dev/nvme0n1"),
        ({"rotational": True}, "/dev/sda"),
        ({"max_size": 600_000_000}, "/dev/vda"),
    ],
)
def test_the_root_disk_is_the_one_that_fits(
    controller: Any, tmp_path: Path, wanted: dict[str, Any], found: str
) -> None:
    disk(tmp_path, "vda", serial="virtio1", size="1000000")
    disk(tmp_path, "sda", vpd=b"SCSI 9  ", rotational="1", **{"device/wwid": "naa.5000c500a\n"})
    disk(tmp_path, "nvme0n1", nvme="NVME-3 \n", **{"device/model": "BIG DISK   \n"})
    disk(tmp_path, "sdb", vpd=b"SCSI 9  ", removable="1")
    disk(tmp_path, "sr0", serial="virtio1")
    disk(tmp_path, "vda1", serial="virtio1", partition="1")
    done = run(program(controller, "root-disk", root_disk=hints(**wanted)), str(tmp_path))
    assert (done.stdout, controller.asked) == (f"{found}\n", [])


@pytest.mark.parametrize(("wanted", "says"), [({"serial": "none"}, "0 disks"), ({}, "2 disks")])
def test_none_or_several_disks_are_said_and_nothing_goes_on(
    controller: Any, tmp_path: Path, wanted: dict[str, Any], says: str
) -> None:
    disk(tmp_path, "vda", serial="A&B")
    disk(tmp_path, "vdb", serial="B")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            ["sh", "-s", str(tmp_path)], input=program(controller, "root-disk", root_disk=hints(**wanted)).encode(), timeout=2, check=False,
            capture_output=True,
        )  # fmt: skip
    (path,) = controller.asked
    why = parse_qs(urlsplit(path).query)["why"][0]
    assert says in why
    assert "vda(a&b)" in why


def test_begin_says_who_the_machine_is_and_goes_on_when_it_may(controller: Any) -> None:
    done = run(program(controller, "begin"))
    assert done.returncode == 0
    (path,) = controller.asked
    assert path.startswith("/i/def/say/begin?serial=")
    assert "this is r12-u07" in done.stderr


def test_finish_puts_the_unit_in_place_and_waits_for_go(controller: Any, tmp_path: Path) -> None:
    done = run(program(controller, "finish"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    units = tmp_path / "etc/systemd/system"
    assert (units / "multi-user.target.wants/metalimmu-phone-home.service").resolve().is_file()
    assert (tmp_path / "usr/local/sbin/metalimmu-phone-home").stat().st_mode & 0o777 == 0o700
    assert controller.asked == ["/i/def/phone-home", "/i/def/say/finished"]


@pytest.mark.parametrize("tools", ["curl", "none"])
def test_phone_home(controller: Any, tmp_path: Path, tools: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "sed", "cat", "wc", "touch", "sleep", *(() if tools == "none" else (tools,))):
        (folder / name).symlink_to(Path("/usr/bin") / name)
    done = subprocess.run(
        ["/bin/sh", "-s", str(tmp_path / "heard")], input=program(controller, "phone-home"), capture_output=True, text=True, timeout=20, check=False,
        env={"PATH": str(folder)},
    )  # fmt: skip
    assert done.stdout == "metalimmu: heard\n", done.stderr
    (asked,) = controller.asked
    form = parse_qs(asked.partition(" ")[2], keep_blank_values=True)
    assert asked.startswith("/p/abc ")
    assert form["instance_id"] == ["r12-u07.example.net-d1"]
    assert form["hostname"][0]
    assert (tmp_path / "heard").exists()
