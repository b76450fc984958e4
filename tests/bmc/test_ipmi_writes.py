"""What the IPMI driver changes: against Debian's ipmi_sim and against the lab's BMC, with a tap that sees the packets."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ipmi_rig import PASSWORD, USER, Machine, Tap, chassis, ipmi_sim, lab_bmc, recordings

from metalimmu.bmc import credentials, ipmi_boot
from metalimmu.bmc.ipmi import IpmiBmc
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.errors import BmcBusy, BmcNotPermitted, BmcReadOnly, BmcRefused, BmcUnsupported, LeaseLost
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootOverride,
    BootTarget,
    PowerAction,
    PowerState,
    Unknown,
    WriteRequest,
)
from metalimmu_emulator.faults import set_fault
from metalimmu_emulator.ipmi import IpmiBmc as LabBmc
from metalimmu_emulator.ipmi import commands

OPERATOR = 3


def open_(port: int, *, mode: str = "read-write", seconds: float = 30.0, **more: Any) -> IpmiBmc:
    more.setdefault("ledger", MemoryLedger())
    login = credentials.make(USER, PASSWORD)
    return IpmiBmc(f"ipmi://127.0.0.1:{port}", login, mode=mode, seconds=seconds, **more)  # type: ignore[arg-type]


def wait(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


def rights_asked(tap: Tap) -> list[int]:
    """The privilege level of each login, from RAKP message 1."""
    return [p[40] & 0x0F for p in tap.packets if len(p) > 40 and p[4] == 6 and p[5] & 0x3F == 0x12]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[LabBmc, Machine]]:
    with lab_bmc(tmp_path) as found:
        yield found


# words and bytes


@pytest.mark.parametrize(
    ("target", "enabled", "mode", "sent"),
    [
        (BootTarget.pxe, BootEnabled.once, BootMode.uefi, (0xA0, 1)),
        (BootTarget.pxe, BootEnabled.continuous, BootMode.uefi, (0xE0, 1)),
        (BootTarget.pxe, BootEnabled.once, BootMode.legacy, (0x80, 1)),
        (BootTarget.hdd, BootEnabled.continuous, BootMode.legacy, (0xC0, 2)),
        (BootTarget.cd, BootEnabled.once, BootMode.uefi, (0xA0, 5)),
        (BootTarget.bios_setup, BootEnabled.once, BootMode.uefi, (0xA0, 6)),
        (BootTarget.none, BootEnabled.disabled, BootMode.uefi, (0x20, 0)),
        (BootTarget.pxe, BootEnabled.disabled, BootMode.legacy, (0x00, 0)),
        (BootTarget.none, BootEnabled.once, BootMode.legacy, (0x00, 0)),
    ],
)
def test_flags(target: BootTarget, enabled: BootEnabled, mode: BootMode, sent: tuple[int, int]) -> None:
    assert ipmi_boot.flags(target, enabled, mode) == sent


@pytest.mark.parametrize(
    ("flags", "device", "wanted"),
    [
        (0xA0, 1, BootOverride(BootEnabled.once, "Pxe", BootMode.uefi)),
        (0xC0, 2, BootOverride(BootEnabled.continuous, "Hdd", BootMode.legacy)),
        (0x00, 1, BootOverride(BootEnabled.disabled, "Pxe", BootMode.legacy)),  # stale: ipmi_sim, and BMCs after a boot
        (0x80, 0, BootOverride(BootEnabled.disabled, "None", BootMode.legacy)),
        (0xE0, 8, BootOverride(BootEnabled.continuous, "RemoteCd", BootMode.uefi)),
        (0x80, 13, BootOverride(BootEnabled.once, "device 13", BootMode.legacy)),
    ],
)
def test_flags_read(flags: int, device: int, wanted: BootOverride) -> None:
    found = {"valid": flags & 0x80, "persistent": flags & 0x40, "uefi": flags & 0x20, "device": device}
    assert ipmi_boot.override(found) == wanted


def test_what_ipmi_has_no_word_for(lab: tuple[LabBmc, Machine]) -> None:
    with open_(lab[0].port) as bmc:
        with pytest.raises(BmcUnsupported, match="no power action GracefulRestart") as caught:
            bmc.set_power(PowerAction.graceful_restart)
        assert "ForceRestart" in caught.value.hint
        with pytest.raises(BmcUnsupported, match="no boot device UefiHttp"):
            bmc.set_boot_override(BootTarget.uefi_http, BootEnabled.once, BootMode.uefi)
        assert PowerAction.graceful_restart not in bmc.power_actions()
        assert bmc.sent() == []
    assert lab[0].logins == 0


# Debian's ipmi_sim


@pytest.mark.parametrize("script", [None, *recordings()], ids=lambda p: p.stem if p else "plain")
def test_power_of_an_ipmi_sim(script: Path | None, tmp_path: Path) -> None:
    program = chassis(tmp_path / "chassis")
    with ipmi_sim(tmp_path, script, program=program) as port, open_(port) as bmc:
        assert bmc.power_state() is PowerState.off
        bmc.set_power(PowerAction.on)
        assert bmc.power_state() is PowerState.on
        bmc.set_power(PowerAction.force_restart)
        bmc.set_identify(True)
        bmc.set_identify(False)
        bmc.set_power(PowerAction.graceful_shutdown)
        assert bmc.power_state() is PowerState.off
        said = (program.parent / "log").read_text().splitlines()
        assert said == ["set power 1", "set reset 1", "set identify 0 1", "set identify 0 0", "set shutdown 1"]
        assert bmc.sent() == [
            WriteRequest("IPMI", "chassis/power", {"action": "On"}),
            WriteRequest("IPMI", "chassis/power", {"action": "ForceRestart"}),
            WriteRequest("IPMI", "chassis/identify", {"on": True}),
            WriteRequest("IPMI", "chassis/identify", {"on": False}),
            WriteRequest("IPMI", "chassis/power", {"action": "GracefulShutdown"}),
        ]


@pytest.mark.parametrize("script", [None, *recordings()], ids=lambda p: p.stem if p else "plain")
def test_boot_device_of_an_ipmi_sim(script: Path | None, tmp_path: Path) -> None:
    """It takes the flags and keeps the device alone, never the valid bit: what the driver says of it is that."""
    program = chassis(tmp_path / "chassis")
    with ipmi_sim(tmp_path, script, program=program) as port, open_(port) as bmc:
        bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
        assert (program.parent / "boot").read_text() == "pxe\n"
        found = bmc.boot_override()
        assert (found.target, found.enabled, found.effective) == ("Pxe", BootEnabled.disabled, "None")


def test_a_bmc_that_refuses_says_why_and_nothing_was_sent(tmp_path: Path) -> None:
    """An ipmi_sim without a chassis has none to control."""
    with ipmi_sim(tmp_path) as port, open_(port) as bmc:
        with pytest.raises(BmcRefused, match="chassis/power: Invalid data field"):
            bmc.set_power(PowerAction.on)
        assert bmc.sent() == []


# rights


def test_rights_are_asked_for_when_they_are_needed(tmp_path: Path) -> None:
    with ipmi_sim(tmp_path, program=chassis(tmp_path / "chassis")) as port, Tap(port) as tap, open_(tap.port) as bmc:
        bmc.power_state()
        bmc.identity()
        assert rights_asked(tap) == [2], "one session for all reads, with User rights"
        bmc.set_power(PowerAction.on)
        assert rights_asked(tap) == [2, 3]
        bmc.power_state()
        bmc.boot_override()
        assert rights_asked(tap) == [2, 3], "what is there already is used"


@pytest.mark.parametrize("status", [0x09, 0x0A, 0x0D])
def test_a_user_without_rights_can_read_and_not_write(lab: tuple[LabBmc, Machine], status: int) -> None:
    """BMCs refuse too high rights with three different codes, one of which is also that of an unknown user."""
    server, machine = lab
    server.limit, server.over_limit = 2, status
    with open_(server.port) as bmc:
        assert bmc.power_state() is PowerState.off
        with pytest.raises(BmcNotPermitted, match="no Operator rights") as caught:
            bmc.set_power(PowerAction.on)
        assert "bmc roles ipmi" in caught.value.hint
        assert isinstance(bmc.inventory().boot, Unknown)
        assert bmc.power_state() is PowerState.off, "it was no refusal of the login"
        assert bmc.sent() == []
    assert machine.acts == []


# the fence, the mode, a rehearsal


def test_the_fence_is_asked_after_the_login_and_before_the_write(lab: tuple[LabBmc, Machine]) -> None:
    asked: list[int] = []

    def fence() -> None:
        asked.append(len(lab[0].sessions))
        if len(asked) == 2:
            raise LeaseLost("another worker has this host")

    with open_(lab[0].port, before_write=fence) as bmc:
        bmc.set_power(PowerAction.on)
        with pytest.raises(LeaseLost):
            bmc.set_power(PowerAction.force_off)
        assert asked == [1, 1]
        assert len(bmc.sent()) == 1
        wait(lambda: lab[1].acts == ["On"])


def test_the_gate_holds_also_where_the_driver_does_not(lab: tuple[LabBmc, Machine]) -> None:
    """A driver that forgot the mode would still send nothing: its process has its own list."""
    with open_(lab[0].port, mode="read-only") as bmc:
        line = bmc._lines((), OPERATOR, act=("power", {"control": 1}))["power"]
        assert line["reason"] == "not allowed"
        assert isinstance(bmc._error("power", line), BmcReadOnly)
    assert not [c for c in commands(lab[1].folder) if c["netfn"] == 0 and c["command"] != 1]


def test_a_rehearsal_is_what_is_sent(lab: tuple[LabBmc, Machine]) -> None:
    def act() -> None:
        bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
        bmc.set_power(PowerAction.on)
        bmc.set_boot_override(BootTarget.none, BootEnabled.disabled, None)

    with open_(lab[0].port, mode="read-only") as bmc:
        planned = bmc.rehearse(act)
    assert [c["command"] for c in commands(lab[1].folder) if c["netfn"] == 0 and c["command"] in (2, 8)] == []
    with open_(lab[0].port) as bmc:
        act()
        assert bmc.sent() == planned
    assert planned[0].body == {"device": "Pxe", "enabled": "Once", "mode": "UEFI"}


# the lab's BMC


def test_boot_flags_read_back_raw(lab: tuple[LabBmc, Machine]) -> None:
    server, machine = lab
    with open_(server.port) as bmc:
        assert bmc.boot_override() == BootOverride(BootEnabled.disabled, "None", BootMode.uefi)
        bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
        assert bmc.boot_override() == BootOverride(BootEnabled.once, "Pxe", BootMode.uefi)
        assert (machine.state.override.enabled, machine.state.override.target) == ("Once", "Pxe")
        bmc.set_boot_override(BootTarget.cd, BootEnabled.continuous, BootMode.legacy)
        assert bmc.boot_override() == BootOverride(BootEnabled.continuous, "Cd", BootMode.legacy)
        bmc.set_boot_override(BootTarget.hdd, BootEnabled.once, None)
        assert bmc.boot_override() == BootOverride(BootEnabled.once, "Hdd", BootMode.legacy), "None leaves the mode"
        with pytest.raises(BmcRefused):
            bmc.set_boot_override(BootTarget.bios_setup, BootEnabled.once, None)
    sent = [c["data"] for c in commands(machine.folder) if (c["netfn"], c["command"]) == (0, 8)]
    assert sent[0] == "0308", "first the BMC is asked to keep the flags for longer than a minute"
    assert sent[1] == "05a004000000"


def test_flags_that_nobody_asked_to_keep_are_forgotten(
    lab: tuple[LabBmc, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the specification has it; so the driver asks."""
    server, machine = lab
    monkeypatch.setattr("metalimmu_emulator.ipmi.FLAGS_SECONDS", 0.3)
    server._set_boot(bytes((5, 0xA0, 4, 0, 0, 0)), None)()  # type: ignore[arg-type,operator,misc]
    assert machine.state.override.enabled == "Once"
    wait(lambda: machine.state.override.enabled == "Disabled")
    with open_(server.port) as bmc:
        bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
        assert server._forget_at == 0.0


def test_a_reset_is_never_sent_twice(lab: tuple[LabBmc, Machine]) -> None:
    """A BMC that does not answer a reset may have done it: a second one would use up a one-time override."""
    server, machine = lab
    with Tap(server.port) as tap, open_(tap.port, seconds=30) as bmc:
        bmc.set_power(PowerAction.on)
        wait(lambda: machine.acts == ["On"])
        tap.deaf_to_answers_after = 2  # the session is looked at, twice; the answer to the reset is lost
        began = time.monotonic()
        before = len(tap.packets)
        with pytest.raises(BmcTimeout, match="chassis/power"):
            bmc.set_power(PowerAction.force_restart)
        assert time.monotonic() - began < 25
        assert bmc.sent()[-1].body == {"action": "ForceRestart"}, "it may have been done"
        assert len(tap.packets) - before == 3
        tap.deaf_to_answers_after = None
        wait(lambda: machine.acts == ["On", "ForceRestart"])
        assert bmc.power_state() is PowerState.on, "and the driver goes on"
        assert machine.acts == ["On", "ForceRestart"]


def test_a_bmc_that_has_forgotten_the_session_is_asked_anew(lab: tuple[LabBmc, Machine]) -> None:
    server, machine = lab
    with open_(server.port) as bmc:
        bmc.set_power(PowerAction.on)
        wait(lambda: machine.acts == ["On"])
        server.loop.call(server.drop_sessions)
        wait(lambda: not server.sessions)
        bmc.set_power(PowerAction.force_restart)
        wait(lambda: machine.acts == ["On", "ForceRestart"])


def test_sessions_end_with_the_driver_and_with_its_death(lab: tuple[LabBmc, Machine]) -> None:
    server, _ = lab
    with open_(server.port) as bmc:
        bmc.power_state()
        bmc.set_identify(True)
        assert len(server.sessions) == 1
    wait(lambda: not server.sessions, 2)
    bmc = open_(server.port)
    bmc.power_state()
    process = bmc._process
    assert process
    worker = process._process
    assert worker
    assert worker.stdin
    worker.stdin.close()  # what happens when the controller is killed
    wait(lambda: not server.sessions, 5)
    worker.wait(10)
    bmc.close()


def test_a_session_without_jobs_is_closed(lab: tuple[LabBmc, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IpmiBmc, "idle", 0.3)
    server, _ = lab
    with open_(server.port) as bmc:
        bmc.power_state()
        wait(lambda: not server.sessions)
        assert bmc.power_state() is PowerState.off
        assert server.logins == 2


def test_a_worker_that_dies_is_replaced(lab: tuple[LabBmc, Machine]) -> None:
    server, _ = lab
    with open_(server.port) as bmc:
        bmc.power_state()
        assert bmc._process
        assert bmc._process._process
        bmc._process._process.send_signal(signal.SIGKILL)
        bmc._process._process.wait(10)
        assert bmc.power_state() is PowerState.off


def test_faults_of_the_lab_hold_over_ipmi_too(lab: tuple[LabBmc, Machine]) -> None:
    server, machine = lab
    with open_(server.port) as bmc:
        assert bmc.identity().serial == "LAB0001"
        assert bmc.identity().uuid == machine.spec.uuid
        set_fault(machine.folder, "wrong-serial", serial="WRONG77", uuid="99999999-0000-4000-8000-000000000000")
        assert bmc.identity().serial == "WRONG77"
        assert bmc.identity().uuid.startswith("99999999")
        set_fault(machine.folder, "no-power-effect", times=1)
        bmc.set_power(PowerAction.on)
        bmc.set_power(PowerAction.on)
        wait(lambda: machine.state.power == "On")
        assert machine.acts == ["On"]
        set_fault(machine.folder, "override-ignored")
        bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
        assert bmc.boot_override().enabled is BootEnabled.disabled
        set_fault(machine.folder, "reboot", seconds=1.0)
        assert bmc.power_state() is PowerState.on, "asked again until the BMC is back, with a new session"


def test_slow_power_holds_up_nobody(lab: tuple[LabBmc, Machine]) -> None:
    server, machine = lab
    machine.slow = 1.0
    with open_(server.port) as bmc:
        began = time.monotonic()
        bmc.power_state()
        bmc.set_power(PowerAction.on)
        assert bmc.power_state() is PowerState.off
        assert time.monotonic() - began < 3
        bmc.set_boot_override(
            BootTarget.pxe, BootEnabled.once, BootMode.uefi
        )  # after the power-on that was asked before it
        assert machine.acts == ["On"]
        assert bmc.boot_override().enabled is BootEnabled.once


def test_stock_pyghmi_can_log_in_to_the_labs_bmc(lab: tuple[LabBmc, Machine]) -> None:
    """Which it cannot at its own server: that answers SHA-256 with SHA-1."""
    program = "import sys; from pyghmi.ipmi.command import Command; c = Command(*sys.argv[1:4], port=int(sys.argv[4])); print(c.get_power())"
    command = [sys.executable, "-c", program, "127.0.0.1", USER, PASSWORD, str(lab[0].port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "{'powerstate': 'off'}\n", done.stderr


def test_as_many_sessions_as_there_is_room_for(lab: tuple[LabBmc, Machine]) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(open_(lab[0].port)).power_state()
        with open_(lab[0].port) as bmc, pytest.raises(BmcBusy, match="Insufficient resources"):
            bmc.power_state()
    with open_(lab[0].port) as bmc:
        assert bmc.power_state() is PowerState.off


@pytest.mark.parametrize(
    "noise", [b"", b"\x06\0\xff\x07", b"\x06\0\xff\x07\x06\x10" + bytes(60), bytes(2000), b"\xff" * 300]
)
def test_noise_is_no_end_of_the_labs_bmc(lab: tuple[LabBmc, Machine], noise: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(20):
            sock.sendto(noise, ("127.0.0.1", lab[0].port))
        with open_(lab[0].port) as bmc:
            assert bmc.power_state() is PowerState.off
