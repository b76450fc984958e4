"""The unit that fetches a newer run-time config: against a real TLS server, with real keys, on a folder instead of a seed."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from agent_rig import TOKEN, FakeRoot

from metalimmu.boot.config_api import signed
from metalimmu.paths import data
from metalimmu.wire import codec
from metalimmu.wire.messages import ConfigAsk, ConfigFile, ConfigPackage, SystemReport

PROOF = data("pxe") / "proof"
OLD = {"meta-data": "instance-id: a-d1\n", "user-data": "#cloud-config\nntp: old\n"}
NEW = {
    "meta-data": "instance-id: a-d1\n",
    "user-data": "#cloud-config\nntp: new\npassword: s3cret-planted\n",
    "chrony": "x",
}


class Controller:
    """Answers reports with an offer while it has one, and gives the package to who signs for it."""

    def __init__(self, certificate) -> None:
        self.reports: list[SystemReport] = []
        self.asked: list[ConfigAsk] = []
        self.package: ConfigPackage | None = None
        self.deaf_to = ""  # a digest after which it is out of reach
        self.status = 200
        self.cut = False
        rig = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Authorization"] == f"Bearer {TOKEN}"
                status, answer = rig.answer(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if rig.cut and self.path.endswith("config") else answer)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.pem)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *args: None
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        port = self.server.server_port
        self.settings = {"url": f"https://127.0.0.1:{port}", "token": TOKEN, "pin": certificate.pin, "certificate": "-"}

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/v1/system":
            said = codec.decode(SystemReport, body)
            if said.config_digest == self.deaf_to:
                return 503, b"{}"
            self.reports.append(said)
            open_ = (
                self.package and said.config_digest != self.package.digest and said.config_failed != self.package.serial
            )
            offer = {"serial": self.package.serial, "digest": self.package.digest} if open_ else None
            return 200, json.dumps({"acknowledged": True, "again": 300, "config": offer}).encode()
        self.asked.append(codec.decode(ConfigAsk, body))
        return self.status, codec.encode(self.package)

    def offers(self, unit, texts=None, *, serial=7, apply=("true",), limit=20.0, **changes) -> ConfigPackage:
        content = {k: v.encode() for k, v in (NEW if texts is None else texts).items()}
        named = {k: v for k, v in content.items() if k != "metalimmu.json"}
        told = {"metalimmu.json": json.dumps(self.settings | {"config_digest": "x"}).encode()} | content
        fields = {
            "serial": serial,
            "digest": unit.proof.digest(named),
            "files": tuple(ConfigFile(k, v.decode()) for k, v in told.items()),
            "apply": tuple(apply),
            "limit": limit,
            "secrets": ("s3cret-planted",),
        }
        self.package = ConfigPackage(**(fields | changes))
        return self.package


@pytest.fixture
def unit(monkeypatch):
    spec = importlib.util.spec_from_file_location("metalimmu_config", PROOF / "metalimmu-config.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def controller(certificate):
    made = Controller(certificate)
    yield made
    made.server.shutdown()
    made.server.server_close()


class Machine:
    def __init__(self, unit, controller, folder: Path, monkeypatch) -> None:
        self.unit, self.controller = unit, controller
        self.root = FakeRoot(folder / "system").root
        self.seed = folder / "seed"
        self.seed.mkdir()
        for name, text in {**OLD, "metalimmu.json": json.dumps(controller.settings)}.items():
            (self.seed / name).write_text(text)
        self.work = folder / "run"
        self.work.mkdir()
        self.state = self.root / "var/lib/metalimmu"
        monkeypatch.setattr(unit.proof, "find_settings", lambda root, **_: unit.proof.seed_settings(self.seed))
        monkeypatch.setattr(unit.time, "sleep", lambda seconds: None)
        self.writes = 0

    def files(self) -> dict[str, str]:
        return {p.name: p.read_text() for p in self.seed.iterdir() if p.name != "metalimmu.json"}

    def run(self, *, confirm: float = 5.0) -> int:
        made = self.unit.Unit(self.root, self.work, confirm=confirm)

        @contextlib.contextmanager
        def mounted(mode: str):
            self.writes += mode == "rw"
            yield self.seed

        made.mounted = mounted
        return made.run(wanted=True)

    def remembers(self, name: str) -> dict:
        path = self.state / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture
def machine(unit, controller, tmp_path, monkeypatch):
    assert shutil.which("openssl"), "the test needs openssl"
    return Machine(unit, controller, tmp_path, monkeypatch)


def command(folder: Path, text: str) -> str:
    path = folder / "reconfigure"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_fetched_applied_and_proven(unit, controller, machine, tmp_path):
    program = command(tmp_path, 'cat user-data >"$0.out"; echo "$METALIMMU_CONFIG_SERIAL $1 $PWD" >>"$0.out"')
    controller.offers(unit, apply=(program, "--all"))
    assert machine.run() == 0
    assert machine.files() == NEW
    said = (tmp_path / "reconfigure.out").read_text()
    assert said == f"{NEW['user-data']}7 --all {machine.work / 'files'}\n"
    last = controller.reports[-1]
    assert last.config_digest == controller.package.digest
    assert (last.config_failed, last.config_why) == (0, "")
    assert signed(last.key, controller.asked[0])
    assert machine.remembers("applied") == {"serial": 7}
    assert not machine.remembers("undo")
    assert (machine.state / "host.key").stat().st_mode & 0o777 == 0o600
    assert json.loads((machine.seed / "metalimmu.json").read_text())["token"] == TOKEN


def test_nothing_newer_nothing_done(machine, controller):
    assert machine.run() == 0
    assert controller.asked == []
    assert machine.writes == 0


def test_a_command_that_fails_brings_the_old_one_back_and_its_words_have_no_secrets(
    unit, controller, machine, tmp_path, capsys
):
    program = command(
        tmp_path, 'grep -q "ntp: old" user-data && { echo back >>"$0.out"; exit 0; }; cat user-data; exit 3'
    )
    controller.offers(unit, apply=(program,))
    assert machine.run() == 1
    assert machine.files() == OLD
    last = controller.reports[-1]
    assert last.config_failed == 7
    assert f"{program} ended with 3" in last.config_why
    assert "password: ***" in last.config_why
    assert (tmp_path / "reconfigure.out").read_text() == "back\n", "the old config was applied again"
    assert last.config_digest == unit.proof.digest({k: v.encode() for k, v in OLD.items()})
    assert not machine.remembers("undo")
    assert not machine.remembers("applied")
    kept = "".join(p.read_text() for p in machine.state.glob("*.json")) + capsys.readouterr().out
    assert "s3cret-planted" not in kept


def test_a_failure_is_told_until_something_newer_is_applied(unit, controller, machine):
    controller.offers(unit, apply=("false",))
    assert machine.run() == 1
    controller.reports.clear()
    controller.package = None
    assert machine.run() == 0
    assert controller.reports[-1].config_failed == 7
    controller.offers(unit, serial=8)
    assert machine.remembers("failed")["serial"] == 7
    assert machine.run() == 0
    assert not machine.remembers("failed")


def test_a_command_that_hangs_is_ended(unit, controller, machine, tmp_path):
    program = command(tmp_path, 'grep -q "ntp: old" user-data && exit 0; sleep 600')
    controller.offers(unit, apply=(program,), limit=0.5)
    assert machine.run() == 1
    assert "was not done in time" in controller.reports[-1].config_why
    assert machine.files() == OLD


@pytest.mark.parametrize("program", ["/nowhere/reconfigure", "/etc/hostname"])
def test_a_command_that_is_none(unit, controller, machine, program):
    controller.offers(unit, apply=(program,))
    assert machine.run() == 1
    assert program in controller.reports[-1].config_why
    assert machine.files() == OLD


def test_without_cloud_init_and_without_a_command(unit, controller, machine, monkeypatch):
    monkeypatch.setattr(unit.shutil, "which", lambda name: None)
    controller.offers(unit, apply=())
    assert machine.run() == 1
    assert "no cloud-init here" in controller.reports[-1].config_why


def test_cloud_init_is_run_once_more(unit, controller, machine, tmp_path, monkeypatch):
    for name in ("cloud-init", "netplan"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    controller.offers(unit, apply=())
    assert machine.run() == 0
    assert (tmp_path / "calls").read_text().splitlines() == [" ".join(step) for step in unit.CLOUD_INIT]


def test_a_machine_that_is_cut_off_by_its_new_config_goes_back(unit, controller, machine):
    controller.offers(unit)
    controller.deaf_to = controller.package.digest
    assert machine.run(confirm=0.3) == 1
    assert machine.files() == OLD
    assert "the controller was not reached within 0 s after the change" in controller.reports[-1].config_why
    assert not machine.remembers("applied")


def test_a_machine_that_stopped_in_the_middle_goes_back_at_its_next_boot(unit, controller, machine, monkeypatch):
    controller.offers(unit)

    class Stopped(BaseException):
        pass

    def stops(self, content):
        (machine.seed / "user-data").write_text("half")
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(unit.Unit, "write_seed", stops)
        with pytest.raises(Stopped):
            machine.run()
    assert machine.files()["user-data"] == "half"
    controller.package = None
    assert machine.run() == 0
    assert machine.files() == OLD
    assert "stopped before the new config was proven" in machine.remembers("failed")["why"]


def test_a_machine_that_stopped_right_after_the_proof_stays(unit, controller, machine, monkeypatch):
    controller.offers(unit)
    with monkeypatch.context() as patched:
        patched.setattr(unit.Memory, "forget", lambda self, name: None)
        assert machine.run() == 0
    assert machine.remembers("undo")
    controller.package = None
    assert machine.run() == 0
    assert machine.files() == NEW
    assert not machine.remembers("undo")


def test_nothing_older_than_what_is_applied(unit, controller, machine):
    controller.offers(unit, serial=7)
    assert machine.run() == 0
    controller.offers(unit, OLD, serial=6)
    assert machine.run() == 1
    assert machine.files() == NEW
    assert "config 6 is not newer than 7" in controller.reports[-1].config_why
    assert len(controller.asked) == 1


def test_a_fetch_that_is_cut_or_refused_changes_nothing(unit, controller, machine):
    controller.offers(unit)
    controller.cut = True
    assert machine.run() == 1
    controller.cut, controller.status = False, 403
    assert machine.run() == 1
    assert machine.files() == OLD
    assert machine.writes == 0
    assert not machine.remembers("failed"), "nothing was tried, so it is asked again"
    controller.status = 200
    assert machine.run() == 0


BAD = [
    ({"digest": "0" * 64}, "does not have the digest"),
    ({"files": (ConfigFile("../passwd", "x"),)}, "unusable file names"),
    ({"files": (ConfigFile("a", "x"), ConfigFile("A", "x"))}, "unusable file names"),
    ({"limit": "soon"}, "cannot be read"),
]


@pytest.mark.parametrize(("change", "why"), BAD, ids=[why for _, why in BAD[:2]] + ["twice", "limit"])
def test_packages_that_are_wrong(unit, controller, machine, change, why):
    controller.offers(unit, **change)
    assert machine.run() == 1
    assert why in controller.reports[-1].config_why
    assert machine.files() == OLD


def test_a_controller_with_another_certificate_hears_nothing(unit, controller, machine):
    """A new controller on the old address, without the old one's key."""
    controller.offers(unit)
    text = json.loads((machine.seed / "metalimmu.json").read_text()) | {"pin": "0" * 64}
    (machine.seed / "metalimmu.json").write_text(json.dumps(text))
    assert machine.run() == 0
    assert controller.reports == []
    assert machine.files() == OLD


def test_a_seed_that_is_being_read_is_tried_again(unit, machine, monkeypatch):
    calls = []

    def run(args, **more):
        calls.append(args[0])
        code = 32 if args[0] == "mount" and calls.count("mount") < 4 else 0
        return subprocess.CompletedProcess(args, code, "", "already mounted")

    monkeypatch.setattr(unit.subprocess, "run", run)
    monkeypatch.setattr(unit.proof, "seed_device", lambda root: "/dev/vda3")
    with unit.Unit(machine.root, machine.work).mounted("rw"):
        pass
    assert calls == ["mount"] * 4 + ["umount"]


def test_imports_nothing_of_ours():
    """It runs in the deployed system, with Debian's python3 alone."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='x'); print([m for m in sys.modules if m.startswith('metalimmu.')])"
    argv = ["python3", "-I", "-S", "-c", code, PROOF / "metalimmu-config.py"]
    assert subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout == "[]\n"


def test_the_systemd_units_name_what_exists():
    text = (PROOF / "metalimmu-config.service").read_text()
    assert "ExecStart=/usr/bin/python3 -I /usr/lib/metalimmu/metalimmu-config.py\n" in text
    path = (PROOF / "metalimmu-config.path").read_text()
    assert "PathExists=/run/metalimmu-proof/wanted\n" in path
    assert "RuntimeDirectory=metalimmu-proof\n" in (PROOF / "metalimmu-proof.service").read_text()
    checker = shutil.which("systemd-analyze")
    if checker:
        units = [PROOF / "metalimmu-config.path", PROOF / "metalimmu-config.service"]
        done = subprocess.run(
            [checker, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
        )
        wrong = [
            line for line in done.stderr.splitlines() if "metalimmu-config" in line and "is not executable" not in line
        ]
        assert not wrong, done.stderr
