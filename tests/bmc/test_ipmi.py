"""The IPMI driver against Debian's ipmi_sim, recordings of real machines in it, and pyghmi's own server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipmi_rig import PASSWORD, USER, Tap, free_port, ipmi_sim, recordings
from pyghmi.ipmi.private.constants import payload_types

from metalimmu.bmc import credentials
from metalimmu.bmc.connect import Address, connect
from metalimmu.bmc.ipmi import ALL, IpmiBmc, parse
from metalimmu.bmc.ipmi_guard import READING, READS, TYPING, VIEWING, WRITES, WRITING, NotAllowed, Session
from metalimmu.bmc.ipmi_snapshot import ipmi_snapshot, snapshot
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.errors import BmcLoginRefused, BmcReadOnly, BmcUnreachable, BmcUnsupported, UsageError
from metalimmu.observed.types import (
    BootEnabled,
    BootMode,
    BootTarget,
    MediaSlot,
    PowerAction,
    PowerState,
    Reason,
    Unknown,
)

LOGIN = credentials.make(USER, PASSWORD)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[int]:
    with ipmi_sim(tmp_path) as port:
        yield port


def open_(port: int, password: str = PASSWORD, *, user: str = USER, seconds: float = 30.0, **more: Any) -> IpmiBmc:
    more.setdefault("ledger", MemoryLedger())
    return IpmiBmc(f"ipmi://127.0.0.1:{port}", credentials.make(user, password), seconds=seconds, **more)


def power_of(port: int, password: str = PASSWORD, **more: Any) -> PowerState:
    with open_(port, password, **more) as bmc:
        return bmc.power_state()


def test_a_bmc_without_anything_more_than_itself(sim: int) -> None:
    with open_(sim) as bmc:
        found = bmc.inventory()
        assert bmc.power_state() is PowerState.off
        assert bmc.identity().manufacturer == "Dell Inc."
    assert found.bmc == {"firmware": "2.30", "ipmi": "2.0", "vendor": "Dell Inc.", "product": "256"}
    assert found.power is PowerState.off
    for name in ("media", "processors", "memory", "disks", "nics", "bios"):
        value = getattr(found, name)
        assert isinstance(value, Unknown), name
        assert value.reason is Reason.not_modelled
        assert value.detail


def test_by_address(sim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIM_USERNAME", USER)
    monkeypatch.setenv("SIM_PASSWORD", PASSWORD)
    with connect(Address(bmc=f"ipmi://127.0.0.1:{sim}", credentials="env:SIM"), ledger=MemoryLedger()) as bmc:
        assert bmc.driver == "ipmi"
        assert bmc.power_state() is PowerState.off


def test_no_write_is_sent_in_read_only_mode(sim: int) -> None:
    slot = MediaSlot("CD", "", ("CD",), False, None, by_action=True, can_eject=True)
    with Tap(sim) as tap, open_(tap.port) as bmc:
        for act in (
            lambda: bmc.set_power(PowerAction.force_off),
            lambda: bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi),
            lambda: bmc.set_identify(True),
        ):
            with pytest.raises(BmcReadOnly, match="not sent"):
                act()
        for beyond in (
            lambda: bmc.insert_media(slot, "http://127.0.0.1/x.iso"),
            lambda: bmc.eject_media(slot),
            bmc.media,
        ):
            with pytest.raises(BmcUnsupported, match="no virtual media") as caught:
                beyond()
            assert "PXE" in caught.value.hint
        assert bmc.sent() == []
        assert tap.packets == []


def test_a_wrong_password_is_tried_once(sim: int) -> None:
    ledger = MemoryLedger()
    with Tap(sim) as tap:
        for _ in range(3):
            with pytest.raises(BmcLoginRefused):
                power_of(tap.port, "guessed", ledger=ledger)
        with open_(tap.port, "guessed", ledger=ledger) as bmc:
            found = bmc.inventory()
        assert isinstance(found.power, Unknown)
        assert tap.payloads().count(0x12) == 1  # RAKP message 1
        assert tap.payloads().count(0x14) == 0
        assert power_of(tap.port, ledger=ledger) is PowerState.off  # other credentials are another version


def test_an_unknown_user_is_a_refusal(sim: int) -> None:
    ledger = MemoryLedger()
    with open_(sim, user="nobody", ledger=ledger) as bmc, pytest.raises(BmcLoginRefused, match="nobody"):
        bmc.power_state()
    assert ledger.refused(bmc.base, credentials.make("nobody", PASSWORD).version)


def test_without_credentials_nothing_is_sent(sim: int) -> None:
    with Tap(sim) as tap:
        with pytest.raises(BmcLoginRefused, match="no credentials"):
            IpmiBmc(f"ipmi://127.0.0.1:{tap.port}", None).power_state()
        assert tap.packets == []


def test_nobody_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with open_(silent.getsockname()[1], seconds=2) as bmc:
            with pytest.raises(BmcUnreachable):
                bmc.power_state()
            assert time.monotonic() - began < 15
            found = bmc.inventory()
        assert isinstance(found.identity, Unknown)
        assert found.identity.reason in (Reason.unreachable, Reason.timeout)


def test_the_session_asks_for_user_rights_only(sim: int) -> None:
    with Tap(sim) as tap:
        power_of(tap.port)
        rakp1 = next(p for p in tap.packets if p[4] == 6 and p[5] & 0x3F == 0x12)
        assert rakp1[16 + 24] & 0x0F == 2  # requested maximum privilege level: User


def test_the_session_is_closed(tmp_path: Path) -> None:
    """ipmi_sim has room for few sessions: twenty in a row do not fill it."""
    with ipmi_sim(tmp_path) as port:
        for _ in range(20):
            assert power_of(port) is PowerState.off


@pytest.fixture
def pybmc() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).parent / "ipmi_pybmc.py"), str(port), USER, PASSWORD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield port, process
        finally:
            process.kill()


def test_sha1_in_answer_to_sha256_and_what_the_bmc_was_given(pybmc: tuple[int, subprocess.Popen[str]]) -> None:
    """Stock pyghmi fails with struct.error here. The BMC tells every command that it received."""
    port, process = pybmc
    with open_(port) as bmc:
        assert bmc.power_state() is PowerState.on
        found = bmc.inventory()
    assert found.power is PowerState.on
    process.kill()
    assert process.stdout
    commands = {(int(n, 16), int(c, 16)) for n, c in (line.split() for line in process.stdout)}
    assert (0x00, 0x01) in commands
    assert commands <= READING.commands


def test_the_lists() -> None:
    """Each entry against the specification's own names (IPMI 2.0, appendix G)."""
    assert all(name.startswith(("Get ", "Read ", "Reserve SDR")) for name in READS.values())
    assert set(WRITES.values()) == {"Chassis Control", "Chassis Identify", "Set System Boot Options"}
    for netfn, command in (
        (0x00, 0x02),
        (0x00, 0x08),
        (0x0A, 0x12),
        (0x0A, 0x47),
        (0x06, 0x02),
        (0x06, 0x47),
        (6, 0x48),
    ):
        with pytest.raises(NotAllowed, match="not on the list of read commands"):
            READING.command(netfn, command, (5,))
    for netfn, command in ((0x06, 0x02), (0x06, 0x47), (0x00, 0x06), (0x0A, 0x47), (0x2E, 0x00), (0x06, 0x48)):
        with pytest.raises(NotAllowed, match="read and write"):
            WRITING.command(netfn, command)
    for gate in (READING, WRITING, VIEWING, TYPING):
        with pytest.raises(NotAllowed, match="bridge"):
            gate.command(0x06, 0x38, (), {"addr": 0x2C})
    WRITING.command(0x00, 0x08, (5, 0x80, 4, 0, 0, 0))
    for data in ((), (7, 1), (0, 1), (0x85, 0)):  # the boot initiator's mailbox, set-in-progress, the lock bit
        with pytest.raises(NotAllowed, match="system boot option"):
            WRITING.command(0x00, 0x08, data)


def test_who_looks_at_a_console_sends_acknowledgements_only() -> None:
    sol = payload_types["sol"]
    VIEWING.payload(sol, bytes((0, 3, 20, 0)))
    TYPING.payload(sol, b"\x01\0\0\0reboot\n")
    for packet in (b"\x01\0\0\0reboot\n", b"\x01\0\0\0", bytes((0, 0, 0, 0x10)), b"\0\0\0\0x"):
        with pytest.raises(NotAllowed, match="characters"):
            VIEWING.payload(sol, packet)
    for gate in (READING, WRITING):
        with pytest.raises(NotAllowed, match="payload type 1"):
            gate.payload(sol, bytes((0, 3, 20, 0)))


def test_the_gate_stands_before_the_socket() -> None:
    """A session that would send anything at all fails this test: it has no socket."""
    session = object.__new__(Session)
    session.last_payload_type = payload_types["ipmi"]
    with pytest.raises(NotAllowed):
        session._send_ipmi_net_payload(0x00, 0x02, (0,))
    with pytest.raises(NotAllowed):
        session.send_payload(b"x", payload_type=payload_types["sol"])


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("ipmi://10.0.0.1", ("10.0.0.1", 623)),
        ("ipmi://10.0.0.1:1623/", ("10.0.0.1", 1623)),
        ("ipmi://[fd00::1]:624", ("fd00::1", 624)),
    ],
)
def test_addresses(address: str, wanted: tuple[str, int]) -> None:
    assert parse(address) == wanted


@pytest.mark.parametrize("address", ["ipmi://", "ipmi://x:port", "ipmi://root:pw@10.0.0.1", "ipmi://10.0.0.1/x"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(address)
    assert "pw" not in str(caught.value)


def test_no_udp_through_a_proxy() -> None:
    with pytest.raises(BmcUnsupported, match="proxy") as caught:
        connect(Address(bmc="ipmi://10.0.0.1", proxy="socks5://bastion:1080"))
    assert "direct" in caught.value.hint


# recordings


@pytest.mark.parametrize("script", recordings(), ids=lambda p: p.stem)
def test_recordings(script: Path, tmp_path: Path) -> None:
    with ipmi_sim(tmp_path, script) as port, open_(port) as bmc:
        seen = ipmi_snapshot(bmc, "host-1")
        found = bmc.inventory()
        events = bmc.events()
        sensors = bmc.sensors()
    assert not isinstance(seen.identity, Unknown)
    wanted = {
        "dell_r630": ("DELL", "95SF082", "2.30"),
        "quanta_d51": ("Quanta Computer Inc", "QTFCJ052806D1", "3.26"),
    }[script.stem]
    shown = (seen.identity.manufacturer, seen.identity.serial, seen.settings["firmware.bmc"])
    assert shown == wanted
    assert seen.settings["hardware.health"] == {"dell_r630": "OK", "quanta_d51": "Critical"}[script.stem]
    assert seen.power is PowerState.off
    assert found.identity == seen.identity
    assert len(events) > 3
    assert len(sensors) > 20
    assert {"bios", "boot", "secure_boot", "cabling"} <= set(seen.unknown)
    assert seen.why_unknown("bios.SriovGlobalEnable").reason is Reason.not_modelled  # type: ignore[union-attr]
    if script.stem == "dell_r630":
        assert not isinstance(found.power_supplies, Unknown)
        assert [p.serial for p in found.power_supplies] == ["CN1797259N1M5K", "CN179725AJ24E2"]
    else:
        assert seen.identity.model == "D51B-2U (dual 1G LoM)"


@pytest.mark.parametrize("script", recordings(), ids=lambda p: p.stem)
def test_the_same_machine_twice_is_the_same_snapshot(script: Path, tmp_path: Path) -> None:
    with ipmi_sim(tmp_path, script) as port, open_(port) as bmc:
        one, two = (ipmi_snapshot(bmc, "host-1", now=1.0) for _ in range(2))
    volatile = {"bmc.clock"}
    assert {k: v for k, v in one.settings.items() if k not in volatile} == {
        k: v for k, v in two.settings.items() if k not in volatile
    }
    assert one.unknown == two.unknown


def test_a_snapshot_of_what_could_not_be_read() -> None:
    late = Unknown(Reason.timeout, "not read in time")
    seen = snapshot(dict.fromkeys(ALL, late), "host-1", "ipmi://10.0.0.1", at=1.0)
    assert seen.identity.reason is Reason.timeout  # type: ignore[union-attr]
    assert seen.settings == {}
    assert seen.why_unknown("firmware.bmc") == late
    assert seen.why_unknown("hardware.health") == late
