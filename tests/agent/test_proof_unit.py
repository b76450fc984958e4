"""The new system's own word: the Python unit and the shell one for small images, against a real TLS server."""

from __future__ import annotations

import base64
import http.server
import importlib.util
import json
import shutil
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from agent_rig import SERIAL, TOKEN, UUID, FakeRoot, make_certificate, put, until

from metalimmu.desired.render import digest
from metalimmu.paths import data
from metalimmu.wire import codec
from metalimmu.wire.messages import SystemReport

PROOF = data("pxe") / "proof"
RELEASE = 'NAME="Debian"\nIMAGE_ID=web\nIMAGE_VERSION="2026.11.3"\n# a comment\nBUILD_ID=b-17\n'


@pytest.fixture(scope="module")
def unit():
    spec = importlib.util.spec_from_file_location("metalimmu_proof", PROOF / "metalimmu-proof.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, self.headers["Authorization"], body))
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, b'{"acknowledged": true}')
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def controller(certificate):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.heard, server.answers = [], []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *args: None  # a client that does not like our certificate
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(controller, certificate) -> dict[str, str]:
    return {
        "url": f"https://127.0.0.1:{controller.server_port}",
        "token": TOKEN,
        "pin": certificate.pin,
        "certificate": certificate.text,
        "config_digest": "c0ffee",
    }


@pytest.fixture
def system(tmp_path) -> Path:
    root = FakeRoot(tmp_path / "system")
    put(root.root / "etc/os-release", RELEASE)
    return root.root


EXPECTED = SystemReport("web", "2026.11.3", "b-17", SERIAL, "5f1f2ab1-0000-4000-8000-000000000001", UUID, "c0ffee")


def test_the_report_is_what_the_controller_reads(unit, controller, settings, system):
    assert unit.post(settings, unit.system_report(system, "c0ffee"))
    path, authorization, body = controller.heard[0]
    assert (path, authorization) == ("/v1/system", f"Bearer {TOKEN}")
    assert codec.decode(SystemReport, body) == EXPECTED


def test_asks_until_acknowledged(unit, controller, settings, system, capsys):
    controller.answers = [(503, b"later"), (200, b'{"acknowledged": false}'), (404, b"?"), (200, b"no JSON")]
    naps = []
    unit.until_acknowledged(settings, {"image_id": "web"}, sleep=naps.append)
    assert len(controller.heard) == 5
    assert naps == [2.0, 3.0, 4.5, 6.75]
    assert TOKEN not in capsys.readouterr().out


def test_the_pauses_grow_to_a_quarter_of_a_minute_and_after_an_hour_to_five(unit):
    now, naps = [0.0], []

    def sleep(seconds):
        naps.append(seconds)
        now[0] += seconds

    def send(settings, report):
        if len(naps) > 300:
            return {"acknowledged": True}
        raise ConnectionRefusedError("away")

    unit.until_acknowledged({}, {}, send=send, sleep=sleep, clock=lambda: now[0])
    assert naps[8] == 15.0
    assert naps[-1] == 300.0
    assert 3600 < sum(n for n in naps if n < 300) < 3700


def test_another_certificate_hears_nothing(unit, controller, settings, tmp_path):
    settings["pin"] = make_certificate(tmp_path, "other").pin
    with pytest.raises(ssl.SSLError, match="certificate has SHA-256"):
        unit.post(settings, {})
    assert controller.heard == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "nonsense"])
def test_only_https(unit, settings, url):
    with pytest.raises(ValueError, match="not https"):
        unit.post(settings | {"url": url}, {})


def test_without_a_seed_it_ends_quietly(unit, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    naps = []
    assert unit.find_settings(tmp_path, sleep=naps.append) == {}
    monkeypatch.setattr(unit, "find_settings", lambda root: {})
    assert unit.main(tmp_path) == 0
    assert capsys.readouterr().out == ""
    assert len(naps) == 4, "a slow disk controller gets its time"


def test_the_seed_is_found_by_its_label_and_mounted_read_only(unit, tmp_path, monkeypatch, settings):
    (tmp_path / "dev/disk/by-label").mkdir(parents=True)
    (tmp_path / "dev/vda3").write_bytes(b"")
    (tmp_path / "dev/disk/by-label/CIDATA").symlink_to("../../vda3")
    calls = []

    def run(args, **more):
        calls.append(args)
        if args[0] == "mount":
            (Path(args[-1]) / "metalimmu.json").write_text(json.dumps(settings))
        else:
            (Path(args[-1]) / "metalimmu.json").unlink()
        return subprocess.CompletedProcess(args, 0, b"", b"")

    monkeypatch.setattr(unit.subprocess, "run", run)
    assert unit.find_settings(tmp_path) == settings
    assert calls[0][:5] == ["mount", "-t", "vfat,iso9660", "-o", "ro,nosuid,nodev,noexec"]
    assert calls[0][5] == str(tmp_path / "dev/vda3")
    assert calls[1][0] == "umount"


@pytest.mark.parametrize("text", ["", "A", "IMAGE_ID='unfinished", 'IMAGE_ID="a b"\n', "IMAGE_ID=\n"])
def test_odd_os_release_files(unit, tmp_path, text):
    put(tmp_path / "etc/os-release", text)
    assert unit.os_release(tmp_path).get("IMAGE_ID", "") in ("", "unfinished", "a b")


def test_imports_nothing_of_ours():
    """It runs in the deployed system, with Debian's python3 alone."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='x'); print([m for m in sys.modules if 'metalimmu' in m])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, PROOF / "metalimmu-proof.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"


def shell(folder: Path, root: Path) -> subprocess.Popen:
    assert shutil.which("openssl"), "the test needs openssl"
    args = ["sh", str(PROOF / "metalimmu-proof.sh"), str(folder), str(root)]
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


MDSTAT = """\
Personalities : [raid1] [raid6]
md127 : active (auto-read-only) raid1 vdb[1] vda[0]
      63488 blocks super 1.0 [2/1] [U_]
      \tresync=PENDING
md5 : active raid6 sda1[0] sdb1[1] sdc1[2] sdd1[3]
      2048 blocks super 1.2 level 6, 512k chunk, algorithm 2 [4/4] [UUUU]
md9 : inactive sde[0](S)
      1000 blocks
unused devices: <none>
"""


def test_software_raid_that_runs_is_told(unit, controller, settings, system, tmp_path):
    put(system / "proc/mdstat", MDSTAT)
    assert unit.system_report(system, "c0ffee")["arrays"] == "md127 raid1 1/2, md5 raid6 4/4"
    put(tmp_path / "seed/metalimmu.json", json.dumps(settings))
    shell(tmp_path / "seed", system).communicate(timeout=60)
    assert codec.decode(SystemReport, controller.heard[0][2]).arrays == "md127 raid1,md5 raid6"


def test_the_shell_unit_reports_the_same(controller, settings, system, tmp_path):
    controller.answers = [(503, b"later")]
    put(tmp_path / "seed/metalimmu.json", json.dumps(settings))
    process = shell(tmp_path / "seed", system)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines() == [
        "metalimmu-proof: not acknowledged: HTTP/1.1 503 Service Unavailable; asking again",
        "metalimmu-proof: acknowledged",
    ]
    path, authorization, body = controller.heard[1]
    assert (path, authorization) == ("/v1/system", f"Bearer {TOKEN}")
    assert codec.decode(SystemReport, body) == EXPECTED


def test_the_shell_unit_reads_compact_json_and_survives_odd_serials(controller, settings, system, tmp_path):
    put(system / "sys/class/dmi/id/product_serial", 'a"b\\c\x01 é')
    put(tmp_path / "seed/metalimmu.json", codec.encode(settings))
    process = shell(tmp_path / "seed", system)
    process.communicate(timeout=60)
    assert codec.decode(SystemReport, controller.heard[0][2]).serial == "abc"


def test_the_shell_unit_trusts_only_the_seeds_certificate(controller, settings, system, tmp_path):
    put(
        tmp_path / "seed/metalimmu.json",
        json.dumps(settings | {"certificate": make_certificate(tmp_path, "other").text}),
    )
    process = shell(tmp_path / "seed", system)
    try:
        assert "not acknowledged" in process.stdout.readline()
        assert controller.heard == []
    finally:
        process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize("content", [None, "{}", '{"url": "https://x"}'])
def test_the_shell_unit_without_settings_ends_quietly(system, tmp_path, content):
    (tmp_path / "seed").mkdir()
    if content is not None:
        put(tmp_path / "seed/metalimmu.json", content)
    process = shell(tmp_path / "seed", system)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 0


def test_the_shell_unit_refuses_plain_http(settings, system, tmp_path):
    put(tmp_path / "seed/metalimmu.json", json.dumps(settings | {"url": "http://127.0.0.1:1"}))
    process = shell(tmp_path / "seed", system)
    assert "not https" in process.communicate(timeout=20)[0]
    assert process.returncode == 1


def test_the_systemd_unit_names_what_exists():
    text = (PROOF / "metalimmu-proof.service").read_text()
    assert "ExecStart=/usr/bin/python3 -I /usr/lib/metalimmu/metalimmu-proof.py\n" in text
    assert "After=network-online.target" in text
    checker = shutil.which("systemd-analyze")
    if checker:
        done = subprocess.run(
            [checker, "verify", "--man=no", PROOF / "metalimmu-proof.service"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "metalimmu-proof" not in done.stderr.replace(
            "/usr/lib/metalimmu/metalimmu-proof.py is not executable", ""
        ), done.stderr


@pytest.mark.parametrize(
    ("wanted", "pause"),
    [(None, 0.0), (0, 0.0), (-5, 0.0), ("60", 0.0), (60, 60.0), (0.5, 1.0), (10**9, 86400.0), (True, 1.0)],
)
def test_the_controller_says_how_often_it_wants_to_hear_again(unit, wanted, pause):
    assert unit.seconds(wanted) == pause


def test_the_system_says_again_that_it_is_there_until_the_controller_has_heard_enough(
    unit, controller, settings, monkeypatch, tmp_path
):
    controller.answers = [
        (200, b'{"acknowledged": true, "again": 60}'),
        (503, b"away"),
        (200, b'{"acknowledged": true, "again": 120}'),
        (200, b'{"acknowledged": true}'),
    ]
    naps = []
    monkeypatch.setattr(unit, "find_settings", lambda root, **_: settings)
    monkeypatch.setattr(unit.time, "sleep", naps.append)
    assert unit.main(tmp_path) == 0
    assert len(controller.heard) == 4
    assert [round(n / 60) for n in naps if n > 1] == [1, 1, 2]  # subprocess naps too, for milliseconds


def test_the_shell_unit_says_it_again(controller, settings, system, tmp_path):
    controller.answers = [(200, b'{"acknowledged": true, "again": 1}')]
    put(tmp_path / "seed/metalimmu.json", json.dumps(settings))
    process = shell(tmp_path / "seed", system)
    try:
        until(lambda: len(controller.heard) > 2, 30)
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_the_digest_is_of_the_files_that_are_on_the_seed(unit, tmp_path, settings):
    for name, text in {"user-data": "u", "meta-data": "m", "metalimmu.json": json.dumps(settings)}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "System Volume Information").mkdir()
    found = unit.seed_settings(tmp_path)
    assert found["config_digest"] == digest({"user-data": "u", "meta-data": "m"})
    (tmp_path / "user-data").write_text("somebody else's")
    assert unit.seed_settings(tmp_path)["config_digest"] != found["config_digest"]
    assert unit.present_digest(tmp_path / "system", found) == found["config_digest"]
    put(tmp_path / "system/var/lib/metalimmu/undo.json", "{}")
    assert unit.present_digest(tmp_path / "system", found) == "", "it is being changed: nothing is proven by it"


def test_a_machine_makes_one_key_and_keeps_it(unit, tmp_path):
    first = unit.public_key(tmp_path)
    assert len(base64.b64decode(first)) == 32
    assert unit.public_key(tmp_path) == first
    assert (tmp_path / "var/lib/metalimmu/host.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "var/lib/metalimmu").stat().st_mode & 0o777 == 0o700
    assert unit.public_key(tmp_path / "other") != first


def test_without_openssl_there_is_no_key_and_the_report_goes_out_all_the_same(unit, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unit.public_key(tmp_path) == ""
    assert "no key of its own" in capsys.readouterr().out
    assert "key" not in unit.system_report(tmp_path, "c0ffee", "")


def test_a_newer_config_is_left_to_the_other_unit(unit, controller, settings, tmp_path):
    put(tmp_path / "run/metalimmu-proof/x", "")
    controller.answers = [
        (200, b'{"acknowledged": false, "config": {"serial": 7, "digest": "d"}}'),
        (200, b'{"acknowledged": true, "config": null}'),
    ]
    unit.until_acknowledged(settings, {}, root=tmp_path, sleep=lambda seconds: None)
    assert (tmp_path / unit.WANTED).exists()
    unit.newer_config({"config": {"serial": 7}}, tmp_path / "nowhere")  # no folder: no harm


def test_a_config_that_failed_is_told(unit, tmp_path):
    put(tmp_path / "var/lib/metalimmu/failed.json", '{"serial": 7, "why": "no such interface"}')
    said = unit.system_report(tmp_path, "c0ffee", "key")
    assert (said["config_failed"], said["config_why"], said["key"]) == (7, "no such interface", "key")
    assert codec.decode(SystemReport, json.dumps(said)).config_failed == 7
    for bad in ("", "[]", '{"serial": "x"}'):
        put(tmp_path / "var/lib/metalimmu/failed.json", bad)
        assert "config_failed" not in unit.system_report(tmp_path, "c0ffee")
