"""Burn-in: what it measures, what it finds wrong, and that it leaves the disks as they were."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace

import pytest
from agent_rig import MIB, log_text, put, until
from test_agent_run import check_disk

from metalimmu.agent import burnin
from metalimmu.agent.link import Log
from metalimmu.errors import BurnInFailed
from metalimmu.wire.messages import BurnIn, Disk

SHORT = BurnIn(cpu=0.05, memory=0.05, disk=0.05, network=0.05)


class Quiet:
    def __init__(self) -> None:
        self.stop, self.log = threading.Event(), Log(lambda _: None)

    def phase(self, *_):
        pass

    def advance(self, *_):
        pass

    def check(self):
        pass


@pytest.fixture
def disk(root):
    """Sparse: an old system at its beginning, nothing behind."""
    return root.disk("vda", 64 * MIB, content=b"old system! " * 50_000, serial="disk-1")


@pytest.fixture
def machine(root):
    put(root.root / "proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 50000 kB")
    return root


@pytest.fixture
def test(machine, image, disk):
    def run(**fields):
        wanted = replace(BurnIn(), **fields)
        made = burnin.BurnInTest(machine.root, wanted, Quiet())
        return made.run(Disk(str(disk), 64 * MIB, serial="d"), image.manifest, lambda _: pytest.fail("no network here"))

    return run


def test_a_good_machine_passes_and_its_numbers_are_reported(fake, machine, disk, start):
    before = disk.read_bytes()
    states = []
    fake.orders = None
    fake.assignment = replace(fake.assignment, burn_in=SHORT)
    fake.fault = lambda _: states.append(disk.read_bytes() == before) and False
    agent = start(fake)
    agent.finish()
    check_disk(fake, disk)
    measured = fake.reports[0].burn_in
    assert measured["cpu"] > 1e6
    assert measured["memory"] > 1e6
    assert measured["disk"] > 0
    assert measured["network"] > 0
    assert (measured["cpu_errors"], measured["memory_errors"], measured["nic_errors"]) == (0, 0, 0)
    assert states[0], "the disk was as it was while it was tested"
    assert "burn-in: memory_bytes" in log_text(fake, agent)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"min_bytes": 2 * 10**9}, "1.0 GB of memory, 2.0 GB wanted"),
        ({"min_cpus": 4096}, "CPUs, 4096 wanted"),
        ({"cpu": 0.02, "min_cpu": 1e15}, "cpu "),
        ({"memory": 0.02, "min_memory": 1e15}, "memory "),
        ({"disk": 0.02, "min_disk": 1e15}, "MB/s wanted"),
    ],
)
def test_below_a_threshold(test, fields, text):
    with pytest.raises(BurnInFailed) as raised:
        test(**fields)
    assert text in raised.value.message


def test_all_that_is_wrong_is_said_at_once(test):
    with pytest.raises(BurnInFailed) as raised:
        test(min_bytes=2 * 10**9, min_cpus=4096)
    assert raised.value.message.count(";") == 1


def test_a_sixteenth_less_memory_is_what_firmware_takes(test):
    assert test(min_bytes=1_050_000_000)["memory_bytes"] == 1_024_000_000


def test_a_cpu_that_miscalculates(test, monkeypatch):
    real, turn = hashlib.sha256, iter(range(10**9))
    monkeypatch.setattr(burnin.hashlib, "sha256", lambda data: real(b"x" if next(turn) == 3 else data))
    with pytest.raises(BurnInFailed, match="calculations on the CPUs were wrong"):
        test(cpu=0.2)


def test_memory_that_forgets(test, monkeypatch):
    real = burnin._differing
    monkeypatch.setattr(
        burnin, "_differing", lambda base, *more: (burnin._libc.memset(base + 12345, 7, 1), real(base, *more))[1]
    )
    with pytest.raises(BurnInFailed, match="did not keep what was written"):
        test(memory=0.02)


def test_a_disk_that_cannot_be_read(machine, image, tmp_path):
    made = burnin.BurnInTest(machine.root, BurnIn(disk=0.05), Quiet())
    with pytest.raises(BurnInFailed, match="cannot be read at byte 0"):
        made.run(Disk(str(tmp_path / "gone"), MIB), image.manifest, lambda _: None)


def test_errors_that_the_hardware_counts_meanwhile(machine, test, monkeypatch):
    """ECC and NIC counters: only what came during the tests."""
    mc, nic = "sys/devices/system/edac/mc/mc0", "sys/class/net/eth0/statistics"
    for name, value in {f"{mc}/ce_count": 5, f"{mc}/ue_count": 1, f"{nic}/rx_crc_errors": 9}.items():
        put(machine.root / name, str(value))
    assert test(max_corrected=0)["ecc_corrected"] == 0
    for name, value in {f"{mc}/ce_count": 8, f"{mc}/ue_count": 2, f"{nic}/rx_crc_errors": 11}.items():
        monkeypatch.setattr(burnin.BurnInTest, "_sizes", _later(machine, burnin.BurnInTest._sizes, name, value))
    with pytest.raises(BurnInFailed) as raised:
        test(max_corrected=2, max_nic_errors=1)
    for text in (
        "1 memory errors that ECC could not correct",
        "3 corrected memory errors, 2",
        "2 errors of the NICs, 1",
    ):
        assert text in raised.value.message


def _later(machine, before, name, value):
    def sizes(self):
        before(self)
        put(machine.root / name, str(value))

    return sizes


def test_a_machine_that_fails_is_not_written(fake, machine, disk, start):
    before = disk.read_bytes()
    fake.assignment = replace(fake.assignment, burn_in=replace(SHORT, min_network=1e15))
    start(fake)
    until(lambda: fake.failures)
    assert (fake.failures[0].code, fake.failures[0].phase) == ("BurnInFailed", "burn-in")
    assert "network" in fake.failures[0].message
    assert disk.read_bytes() == before
