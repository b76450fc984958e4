"""Serial over LAN: against the lab's BMC and against Debian's ipmi_sim, over a serial line that answers in capitals."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ipmi_rig import PASSWORD, USER, Machine, Tap, ipmi_sim, lab_bmc, serial_port

from metalimmu.bmc.connect import Address
from metalimmu.bmc.ipmi_console import IpmiConsole
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.errors import BmcBusy, BmcLoginNotTried, BmcLoginRefused, BmcUnreachable, BmcUnsupported
from metalimmu_emulator import faults
from metalimmu_emulator.ipmi import IpmiBmc as LabBmc
from metalimmu_emulator.ipmi_sol import Sol


@pytest.fixture(autouse=True)
def _logins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, password in (("SIM", PASSWORD), ("WRONG", "guessed")):
        monkeypatch.setenv(f"{name}_USERNAME", USER)
        monkeypatch.setenv(f"{name}_PASSWORD", password)


def open_(port: int, *, view: bool = False, ref: str = "env:SIM", ledger: MemoryLedger | None = None) -> IpmiConsole:
    target = Address(bmc=f"ipmi://127.0.0.1:{port}", credentials=ref)
    return IpmiConsole.open(target, view=view, ledger=ledger or MemoryLedger())


def hear(console: IpmiConsole, until: bytes, seconds: float = 15.0) -> bytes:
    data, deadline = b"", time.monotonic() + seconds
    while until not in data:
        left = deadline - time.monotonic()
        assert left > 0, f"heard {data[-200:]!r}"
        assert select.select([console], (), (), left)[0], f"heard {data[-200:]!r}"
        more = console.read()
        assert more, console.ended
        data += more
    return data


def wait(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


def unix_socket(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(folder / "serial.sock"))
    sock.listen()
    return sock


@contextmanager
def of_lab(folder: Path) -> Iterator[tuple[int, list[bytes]]]:
    with serial_port(unix_socket(folder), log=folder / "console.log") as heard, lab_bmc(folder) as (server, _):
        yield server.port, heard


@contextmanager
def of_ipmi_sim(folder: Path) -> Iterator[tuple[int, list[bytes]]]:
    sock = socket.create_server(("127.0.0.1", 0))
    port = int(sock.getsockname()[1])
    with serial_port(sock) as heard, ipmi_sim(folder, serial=port) as bmc:
        yield bmc, heard


@pytest.fixture(params=[of_lab, of_ipmi_sim], ids=["lab", "ipmi_sim"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, list[bytes]]]:
    with request.param(tmp_path) as found:
        yield found


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[LabBmc, Machine, list[bytes]]]:
    with (
        serial_port(unix_socket(tmp_path), log=tmp_path / "console.log") as heard,
        lab_bmc(tmp_path) as (server, machine),
    ):
        yield server, machine, heard


def test_characters_go_in_and_come_out(line: tuple[int, list[bytes]]) -> None:
    port, heard = line
    with open_(port) as console:
        console.write(b"uname -a\r")
        hear(console, b"UNAME -A\r")
        text = b"0123456789abcdef" * 400  # more than a packet, and more than a frame
        console.write(text)
        wait(lambda: b"".join(heard).endswith(text))
    assert b"".join(heard) == b"uname -a\r" + text, "each once, in order"


def test_one_at_a_time_and_given_back(line: tuple[int, list[bytes]]) -> None:
    port, _ = line
    with open_(port), pytest.raises(BmcBusy, match="another session has the console") as caught:
        open_(port)
    assert "sol deactivate" in caught.value.hint
    for _ in range(3):
        with open_(port) as console:
            console.write(b"x")  # ipmi_sim may take the first packet for a repetition of the one before
            console.write(b"y")
            hear(console, b"Y")


def test_who_only_looks_sends_nothing(line: tuple[int, list[bytes]]) -> None:
    port, heard = line
    with open_(port, view=True) as console:
        with pytest.raises(BmcUnsupported, match="looked at only"):
            console.write(b"reboot\r")
        with pytest.raises(BmcUnsupported):
            console.send_break()
        console._process.stdin.write(b"d\0\x04halt")  # type: ignore[union-attr]  # past our own check: the process has one
        assert not select.select([console], (), (), 1.0)[0] or b"HALT" not in console.read()
    assert heard == []


def test_behind_a_forwarded_port(lab: tuple[LabBmc, Machine, list[bytes]]) -> None:
    """The BMC names its own port. Only 623 is taken for the same one behind another number."""
    with Tap(lab[0].port) as tap, pytest.raises(BmcUnsupported, match="not on that of the session"):
        open_(tap.port)
    wait(lambda: not lab[0].sessions)


def test_the_least_rights_that_the_bmc_wants(lab: tuple[LabBmc, Machine, list[bytes]]) -> None:
    server, machine, _ = lab
    with open_(server.port, view=True):
        assert [s.clientpriv for s in server.sessions] == [3], "User was not enough, Operator is"
    from metalimmu_emulator.ipmi import commands

    tried = [c["rights"] for c in commands(machine.folder) if (c["netfn"], c["command"]) == (0x06, 0x48)]
    assert tried == [2, 3]


def test_a_break(lab: tuple[LabBmc, Machine, list[bytes]]) -> None:
    server, machine, _ = lab
    with open_(server.port) as console:
        console.send_break()
        wait(lambda: machine.breaks == 1)


def test_no_serial_over_lan_says_so(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path) as port, pytest.raises(BmcUnsupported, match="serial over LAN"):
        open_(port)


def test_a_wrong_password_is_tried_once(lab: tuple[LabBmc, Machine, list[bytes]]) -> None:
    ledger = MemoryLedger()
    with pytest.raises(BmcLoginRefused):
        open_(lab[0].port, ref="env:WRONG", ledger=ledger)
    with pytest.raises(BmcLoginNotTried):
        open_(lab[0].port, ref="env:WRONG", ledger=ledger)
    assert lab[0].logins == 1


def test_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(BmcUnreachable):
            open_(silent.getsockname()[1])


def test_a_bmc_that_goes_away_ends_the_console(lab: tuple[LabBmc, Machine, list[bytes]]) -> None:
    server, machine, _ = lab
    with open_(server.port) as console:
        hear(console, b"login: ")
        faults.set_fault(machine.folder, "reboot", seconds=60)
        console.write(b"x")
        assert select.select([console], (), (), 40)[0]
        assert console.read() == b""
        assert console.ended


def test_a_machine_that_starts_again_is_heard_again(tmp_path: Path) -> None:
    with lab_bmc(tmp_path) as (server, _), open_(server.port) as console:  # the machine is off
        with serial_port(unix_socket(tmp_path), b"first boot\n", log=tmp_path / "console.log"):
            hear(console, b"first boot")
        (tmp_path / "serial.sock").unlink()
        with serial_port(unix_socket(tmp_path), b"second boot\n", log=tmp_path / "console.log"):
            hear(console, b"second boot")


def test_a_killed_controller_gives_the_console_back(lab: tuple[LabBmc, Machine, list[bytes]]) -> None:
    server, _, _ = lab
    console = open_(server.port)
    assert console._process.stdin
    console._process.stdin.close()
    wait(lambda: not server.sessions)
    console.close()


# the lab's side, packet by packet


class Wire:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.heard = b""
        self.breaks = 0
        self.sol = Sol(lambda p: self.sent.append(bytes(p)), self._heard, self._broke)

    def _heard(self, data: bytes) -> None:
        self.heard += data

    def _broke(self) -> None:
        self.breaks += 1


def test_packets_have_numbers_and_wait_for_receipts() -> None:
    wire = Wire()
    wire.sol.say(b"one")
    wire.sol.say(b"two")
    assert wire.sent == [b"\1\0\0\0one"], "the second waits"
    wire.sol.got(b"\0\1\3\0")
    assert wire.sent[1:] == [b"\2\0\0\0two"]
    wire.sol.got(b"\0\2\1\x40")  # one character was taken
    assert wire.sent[2:] == [b"\3\0\0\0wo"]
    wire.sol.got(b"\0\1\3\0")  # an old receipt
    assert len(wire.sent) == 3


def test_what_comes_twice_is_heard_once() -> None:
    wire = Wire()
    wire.sol.got(b"\1\0\0\0ab")
    wire.sol.got(b"\1\0\0\0ab")
    wire.sol.got(b"\1\0\0\0abc")  # again, with more
    wire.sol.got(b"\2\0\0\x10")
    assert wire.heard == b"abc"
    assert wire.breaks == 1
    assert wire.sent == [b"\0\1\2\0", b"\0\1\2\0", b"\0\1\3\0", b"\0\2\0\0"]
    wire.sol.got(b"\1")
    assert wire.heard == b"abc"


def test_a_client_that_gives_no_receipts_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metalimmu_emulator.ipmi_sol.AGAIN_SECONDS", -1.0)
    wire = Wire()
    wire.sol.say(b"x")
    for _ in range(20):
        wire.sol.tick()
    assert wire.sol.lost
    assert wire.sent == [b"\1\0\0\0x"] * 10


def test_a_machine_that_talks_to_nobody_does_not_fill_memory() -> None:
    wire = Wire()
    for _ in range(100):
        wire.sol.say(b"x" * 65536)
    assert len(wire.sol._out) <= 256 << 10
