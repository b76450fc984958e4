"""`metalimmu console`: keys, a terminal that is mended whatever happens, and hosts without a console."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent / "bmc"))

from ipmi_rig import PASSWORD, USER, lab_bmc, serial_port

from metalimmu.cli import cli
from metalimmu.cli.terminal import Escape
from metalimmu.errors import BmcUnsupported, NotFound, ReadOnlyMode
from metalimmu.service.site import OpenSite
from metalimmu_emulator.ipmi import IpmiBmc as LabBmc


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ([b"ls\r"], [("send", b"ls\r")]),
        ([b"~."], [("end", b"")]),
        ([b"a~."], [("send", b"a~.")]),
        ([b"a\r~."], [("send", b"a\r"), ("end", b"")]),
        ([b"\r", b"~", b"."], [("send", b"\r"), ("end", b"")]),
        ([b"\r~~."], [("send", b"\r~.")]),
        ([b"\n~Bx"], [("send", b"\n"), ("break", b""), ("send", b"x")]),
        ([b"~?~."], [("help", b""), ("end", b"")]),
        ([b"~x"], [("send", b"~x")]),
        ([b"~\r~."], [("send", b"~\r"), ("end", b"")]),
        ([bytes(range(256))], [("send", bytes(range(256)))]),
    ],
)
def test_escapes(typed: list[bytes], wanted: list[tuple[str, bytes]]) -> None:
    escape = Escape()
    assert [order for data in typed for order in escape.feed(data)] == wanted


def wait(what: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


@dataclass
class Bench:
    server: LabBmc
    heard: list[bytes]
    site: Path

    def hosts(self, text: str) -> None:
        (self.site / "hosts/all.yaml").write_text(text)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("LAB_USERNAME", USER)
    monkeypatch.setenv("LAB_PASSWORD", PASSWORD)
    site = tmp_path / "site"
    (site / "hosts").mkdir(parents=True)
    (site / "pools").mkdir()
    (site / "pools/work.yaml").write_text("mode: read-write\n")
    (site / "site.yaml").write_text(
        'name: t\nurls: {bmc: "http://127.0.0.1:1", machines: "https://127.0.0.1:2"}\ncredentials: [{ref: "env:LAB"}]\n'
    )
    line = socket.socket(socket.AF_UNIX)
    line.bind(str(tmp_path / "serial.sock"))
    line.listen()
    with serial_port(line, log=tmp_path / "console.log") as heard, lab_bmc(tmp_path) as (server, _):
        found = Bench(server, heard, site)
        address = f"ipmi://127.0.0.1:{server.port}"
        found.hosts(
            f'- {{name: web, bmc: "{address}", pool: work}}\n- {{name: shy, bmc: "ipmi://127.0.0.1:1"}}\n'
            '- {name: new, bmc: "redfish+https://10.0.0.1", pool: work}\n'
        )
        yield found


class Person:
    """Somebody at a terminal with a command running in it."""

    def __init__(self, *arguments: str) -> None:
        self.screen = b""
        self.master, slave = pty.openpty()
        self.slave = slave  # stays open: its settings are looked at when the command has gone
        self.before = termios.tcgetattr(slave)
        command = [
            "setsid",
            "--ctty",
            sys.executable,
            "-m",
            "metalimmu",
            *arguments,
        ]  # util-linux; its terminal for Ctrl-C
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def see(self, text: bytes, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.screen!r}"
            if select.select([self.master], (), (), left)[0]:
                self.screen += os.read(self.master, 4096)

    def settings(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    with contextlib.ExitStack() as stack:

        def make(*arguments: str) -> Person:
            found = Person(*arguments)
            stack.callback(found.end)
            return found

        yield make


def test_a_person_types_and_ends_it(bench: Bench, person: Callable[..., Person], tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    somebody = person("--site", str(bench.site), "console", "web", "--log", str(log))
    somebody.see(b"login: ")
    assert somebody.settings() != somebody.before, "raw: keys go through as they are"
    somebody.type(b"root\x03\x1b[A\r")
    somebody.see(b"ROOT\x03\x1b[A\r")
    somebody.type(b"~?")
    somebody.see(b"~B  break")
    somebody.type(b"~.")
    somebody.see(b"ended by you")
    assert somebody.process.wait(15) == 0
    assert somebody.settings() == somebody.before
    assert b"".join(bench.heard) == b"root\x03\x1b[A\r"
    assert log.read_bytes() == b"login: ROOT\x03\x1b[A\r"
    assert log.stat().st_mode & 0o777 == 0o600
    wait(lambda: not bench.server.sessions)
    site = OpenSite(bench.site)
    (event,) = site.store.history("web", kind="console")
    assert "console opened by" in event.text
    site.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_terminal_is_mended_when_it_is_told_to_end(
    bench: Bench, person: Callable[..., Person], number: signal.Signals
) -> None:
    somebody = person("--site", str(bench.site), "console", "web")
    somebody.see(b"login: ")
    assert somebody.settings() != somebody.before
    somebody.process.send_signal(number)
    assert somebody.process.wait(15) in (0, 128 + number)
    assert somebody.settings() == somebody.before
    wait(lambda: not bench.server.sessions)


def test_the_terminal_is_mended_when_the_console_ends(bench: Bench, person: Callable[..., Person]) -> None:
    somebody = person("--site", str(bench.site), "console", "web")
    somebody.see(b"login: ")
    bench.server.loop.call(bench.server.drop_sessions)
    wait(lambda: not bench.server.sessions)
    somebody.type(b"x")
    somebody.see(b"console of web: ", 45)
    assert somebody.process.wait(15) == 0
    assert somebody.settings() == somebody.before


def test_looking_types_nothing(bench: Bench, person: Callable[..., Person]) -> None:
    bench.hosts(f'- {{name: web, bmc: "ipmi://127.0.0.1:{bench.server.port}"}}\n')  # read-only, as a site begins
    somebody = person("--site", str(bench.site), "console", "web", "--read-only")
    somebody.see(b"login: ")
    assert somebody.settings() == somebody.before
    somebody.type(b"reboot\r")
    somebody.type(b"\x03")  # Ctrl-C is the terminal's
    somebody.see(b"ended by you")
    assert somebody.process.wait(15) == 0
    assert bench.heard == []
    wait(lambda: not bench.server.sessions)


def test_keys_from_a_pipe(bench: Bench) -> None:
    command = [sys.executable, "-m", "metalimmu", "--site", str(bench.site), "console", "web"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        err = process.communicate(b"date\r~.", timeout=60)[1]
    assert process.returncode == 0, err
    wait(lambda: b"".join(bench.heard) == b"date\r")


def refused(bench: Bench, *arguments: str) -> Exception:
    result = CliRunner().invoke(cli, ["--site", str(bench.site), "console", *arguments])
    assert isinstance(result.exception, Exception), result.output
    return result.exception


def test_hosts_without_a_console(bench: Bench) -> None:
    exc = refused(bench, "new")
    assert isinstance(exc, BmcUnsupported)
    assert "spoken to by redfish+https" in exc.message
    assert "--via ipmi://ADDRESS" in exc.hint
    exc = refused(bench, "shy")
    assert isinstance(exc, ReadOnlyMode)
    assert "--read-only looks" in exc.hint
    assert isinstance(refused(bench, "nobody"), NotFound)
    assert bench.server.logins == 0


def test_a_redfish_host_by_its_ipmi_address(bench: Bench, person: Callable[..., Person]) -> None:
    somebody = person("--site", str(bench.site), "console", "new", "--via", f"ipmi://127.0.0.1:{bench.server.port}")
    somebody.see(b"login: ")
    somebody.type(b"~.")
    assert somebody.process.wait(15) == 0
