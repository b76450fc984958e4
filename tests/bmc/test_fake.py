"""The fake BMC where it differs from what all drivers do: its file, its faults, its login."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from metalimmu.bmc import fake_machines
from metalimmu.bmc.credentials import make
from metalimmu.bmc.fake import FakeBmc
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.errors import BmcBroken, BmcBusy, BmcLoginRefused, BmcUnreachable, BmcUnsupported
from metalimmu.observed.machine import Fault, Machine
from metalimmu.observed.types import BootEnabled, BootTarget, MediaSlot, PowerAction, PowerState, Reason, Unknown

URL = "http://10.0.0.5/m/1/boot.iso"


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"fake://{tmp_path}/machines/one.json"


def opened(address: str, *faults: Fault) -> FakeBmc:
    fake_machines.create(address, Machine(faults=faults))
    return FakeBmc(address, ledger=MemoryLedger())


def test_a_second_process_finds_the_machine_as_it_was_left(address: str) -> None:
    with opened(address) as bmc:
        bmc.insert_media(bmc.media()[0], URL)
        bmc.set_boot_override(BootTarget.cd, BootEnabled.once, None)
        bmc.set_power(PowerAction.on)
    again = FakeBmc(address, ledger=MemoryLedger())
    assert again.power_state() is PowerState.on
    assert again.media()[0].image == URL
    machine = fake_machines.store(address).read()
    assert (machine.booted_from, machine.generation, machine.boot.enabled) == ("cd", 1, BootEnabled.disabled)


def reboot(address: str, times: int) -> None:
    for _ in range(times):
        fake_machines.store(address).update(Machine.guest_reboot)


def test_no_change_is_lost_between_processes(address: str) -> None:
    store = fake_machines.create(address, Machine(power="On"))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=reboot, args=(address, 40)) for _ in range(3)]
    for worker in workers:
        worker.start()
    reboot(address, 40)
    for worker in workers:
        worker.join(60)
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert store.read().generation == 160


def test_a_killed_process_leaves_a_whole_file_and_no_lock(address: str) -> None:
    store = fake_machines.create(address, Machine(power="On"))
    worker = multiprocessing.get_context("spawn").Process(target=reboot, args=(address, 10**9))
    worker.start()
    while store.read().generation < 20:
        assert worker.is_alive()
    worker.kill()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    before = store.read().generation
    assert store.update(Machine.guest_reboot).generation == before + 1


def test_no_machine_there(tmp_path: Path) -> None:
    with pytest.raises(BmcUnreachable, match="no fake BMC"):
        FakeBmc(f"fake://{tmp_path}/none.json").power_state()
    with pytest.raises(BmcUnreachable, match="no fake BMC"):
        FakeBmc("fake://nobody")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BmcBroken):
        FakeBmc(f"fake://{tmp_path}/bad.json").power_state()


def test_busy_for_a_while(address: str) -> None:
    bmc = opened(address, Fault("power_state", "BmcBusy", times=2))
    for _ in range(2):
        with pytest.raises(BmcBusy):
            bmc.power_state()
    assert bmc.power_state() is PowerState.off


def test_power_that_does_not_change(address: str) -> None:
    bmc = opened(address, Fault("set_power", "ignore", times=None))
    bmc.set_power(PowerAction.on)
    assert bmc.power_state() is PowerState.off
    assert len(bmc.sent()) == 1


def test_the_bmc_restarts_in_mid_answer(address: str) -> None:
    """It was done, and we were told that the connection broke."""
    bmc = opened(address, Fault("insert_media", "then:BmcUnreachable"), Fault("*", "BmcUnreachable", times=2))
    slot = MediaSlot("Cd", "", ("CD",), inserted=False, image=None, by_action=True, can_eject=True)
    with pytest.raises(BmcUnreachable):
        bmc.insert_media(slot, URL)
    for _ in range(2):
        with pytest.raises(BmcUnreachable):
            bmc.media()
    assert bmc.media()[0].image == URL


def test_an_inventory_never_raises(address: str) -> None:
    bmc = opened(address, Fault("*", "BmcNotPermitted", times=None, detail="no rights"))
    found = bmc.inventory()
    assert found.power == Unknown(Reason.not_permitted, "no rights", "/redfish/v1/Systems/1")
    fake_machines.store(address).update(lambda m: replace(m, faults=()))
    assert bmc.inventory().power is PowerState.off


def test_a_fault_of_no_known_name_is_said(address: str) -> None:
    with pytest.raises(BmcBroken, match="Surprise"):
        opened(address, Fault("media", "Surprise")).media()


def test_a_slot_that_is_not_there(address: str) -> None:
    bmc = opened(address)
    slot = replace(bmc.media()[0], id="Usb")
    with pytest.raises(BmcUnsupported, match="there are Cd"):
        bmc.insert_media(slot, URL)


def test_sessions_are_counted_and_left_by_the_killed() -> None:
    store = fake_machines.create("fake://sessions", Machine(username="root", password="secret-1"))
    one = FakeBmc("fake://sessions", credentials=make("root", "secret-1"), ledger=MemoryLedger())
    one.power_state()
    two = FakeBmc("fake://sessions", credentials=make("root", "secret-1"), ledger=MemoryLedger())
    two.power_state()
    assert store.read().sessions == 2
    one.close()
    one.close()
    assert store.read().sessions == 1


def test_one_attempt_per_login() -> None:
    store = fake_machines.create("fake://login", Machine(username="root", password="secret-1"))
    ledger = MemoryLedger()
    for _ in range(3):
        with pytest.raises(BmcLoginRefused):
            FakeBmc("fake://login", credentials=make("root", "guess"), ledger=ledger).power_state()
    assert store.read().refused_logins == 1
    assert FakeBmc("fake://login", credentials=make("root", "secret-1"), ledger=ledger).power_state()
