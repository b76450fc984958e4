"""The small parts of simulated machines; whole deployments are in tests/boot/test_http_simulated.py."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.boot.media import slot
from metalimmu.observed.machine import Fault, Machine
from metalimmu.observed.types import PowerAction
from metalimmu.wire.messages import Boot
from metalimmu_emulator.simulated import SimulatedMachine, inject, read_header, system_header
from metalimmu_emulator.simulated_agent import find_boot
from metalimmu_emulator.simulated_state import FileState

BOOT = Boot("https://10.0.2.2:8443", "t" * 32, "a" * 64, "d-1", {"mac": "52:54:00:00:00:01"})


@given(before=st.integers(0, 5000), block=st.integers(512, 100_000), noise=st.binary(max_size=50))
def test_boot_data_is_found_wherever_it_lies_and_however_it_is_read(before, block, noise):
    """Another file may have the same name in its text."""
    decoy = b"070701 metalimmu/boot.json\0" + noise
    media = bytes(before // 2) + decoy + bytes(before // 2 + (-len(decoy)) % 4) + slot(BOOT, 8192) + bytes(200_000)
    pieces = (media[i : i + block] for i in range(0, len(media), block))
    assert find_boot(pieces) == BOOT


def test_media_is_read_no_further_than_needed():
    read = []

    def pieces():
        for i, piece in enumerate((bytes(1000), slot(BOOT, 8192), bytes(10**6))):
            read.append(i)
            yield piece

    assert find_boot(pieces()) == BOOT
    assert read == [0, 1]


def test_media_without_boot_data():
    assert find_boot([bytes(100_000)]) is None
    assert find_boot([]) is None


def test_an_image_says_which_system_it_is():
    data = system_header("web", "1", "b-1") + bytes(1000)
    assert read_header(data) == {"image_id": "web", "image_version": "1", "build_id": "b-1"}
    with pytest.raises(ValueError, match="no system"):
        read_header(b"\x55\xaa" * 100)


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "n1.json"
    path.write_bytes(Machine(serial="SN1").to_json())
    return FileState(path)


def test_both_sides_of_a_file_change_it_whole(state):
    def add() -> None:
        for _ in range(50):
            state.update(lambda m: m.powered(PowerAction.force_restart))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert state.read().generation == 200
    assert sorted(p.name for p in state._path.parent.iterdir()) == ["n1.json", "n1.json.lock"]


def test_injected_faults_are_used_up_and_leave_the_bmc_s_alone(state):
    state.update(lambda m: Machine(faults=(Fault("*", "BmcBusy", None),)))
    machine = SimulatedMachine(state, no_report="", crash="")
    inject(state, "wrong-serial", "X1", times=2)
    assert [machine.fault("wrong-serial") for _ in range(3)] == ["X1", "X1", None]
    assert [machine.fault("crash") for _ in range(2)] == ["", None]
    assert [machine.fault("no-report") for _ in range(3)] == ["", "", ""]
    assert machine.fault("unread") is None
    assert state.read().faults[0] == Fault("*", "BmcBusy", None)


def test_a_machine_without_anything_to_boot_says_so(state):
    with SimulatedMachine(state, pace=0.05) as machine:
        state.update(lambda m: m.powered(PowerAction.on))
        for _ in range(200):
            if machine.log:
                break
            threading.Event().wait(0.05)
    assert machine.log == ["nothing to boot on the disk"]
