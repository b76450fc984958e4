"""What happens to a pretended machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from metalimmu.observed.machine import STARTS, STOPS, Boot, Drive, Fault, Machine
from metalimmu.observed.types import BootEnabled, BootMode, BootTarget, PowerAction

URL = "http://10.0.0.5/m/1/boot.iso"
READY = Machine().with_media("Cd", URL).overridden(BootTarget.cd, BootEnabled.once, BootMode.uefi)


def test_once_is_used_up_by_the_boot_that_used_it() -> None:
    first = READY.powered(PowerAction.on)
    assert (first.booted_from, first.boot_image, first.generation) == ("cd", URL, 1)
    assert first.boot == Boot(mode=BootMode.uefi)
    second = first.guest_reboot()
    assert (second.booted_from, second.boot_image, second.generation) == ("disk", None, 2)


def test_continuous_stays() -> None:
    machine = READY.overridden(BootTarget.cd, BootEnabled.continuous, None).powered(PowerAction.on).guest_reboot()
    assert (machine.booted_from, machine.generation) == ("cd", 2)
    assert machine.boot.mode is BootMode.uefi


def test_an_override_without_media_boots_the_disk() -> None:
    machine = READY.with_media("Cd", None).powered(PowerAction.on)
    assert machine.booted_from == "disk"
    assert machine.boot.enabled is BootEnabled.disabled


def test_media_without_an_override_boot_the_disk() -> None:
    machine = Machine().with_media("Cd", URL).powered(PowerAction.on)
    assert machine.booted_from == "disk"


def test_a_floppy_is_no_cd() -> None:
    machine = replace(READY, media={"Fd": Drive(URL, inserted=True, media_types=("Floppy",))})
    assert machine.powered(PowerAction.on).booted_from == "disk"


def test_off_is_no_boot_and_on_when_on_is_none_either() -> None:
    on = Machine().powered(PowerAction.on)
    assert on.powered(PowerAction.on) == on
    off = on.powered(PowerAction.force_off)
    assert (off.power, off.booted_from, off.generation) == ("Off", "none", 1)
    assert off.guest_reboot() == off


def test_every_power_action_is_a_start_or_a_stop() -> None:
    assert set(PowerAction) == STARTS | STOPS
    assert not STARTS & STOPS


@pytest.mark.parametrize("effect", ["lost-override", "unread"])
def test_faults_of_the_boot(effect: str) -> None:
    machine = replace(READY, faults=(Fault("boot", effect),)).powered(PowerAction.on)
    assert machine.booted_from == "disk"
    assert machine.media["Cd"].inserted
    again = machine.overridden(BootTarget.cd, BootEnabled.once, None).guest_reboot()
    assert again.booted_from == "cd"  # used up


def test_faults_are_used_up_in_order() -> None:
    machine = Machine(faults=(Fault("media", "BmcBusy", times=2), Fault("*", "BmcRefused", times=None)))
    seen = []
    for _ in range(4):
        machine, fault = machine.fault("media")
        seen.append(fault.effect if fault else None)
    assert seen == ["BmcBusy", "BmcBusy", "BmcRefused", "BmcRefused"]
    assert machine.fault("boot")[1] is None  # `*` is the BMC's methods


machines = st.builds(
    Machine,
    power=st.sampled_from(["On", "Off"]),
    boot=st.builds(Boot, st.sampled_from(BootEnabled), st.sampled_from(BootTarget), st.sampled_from(BootMode)),
    media=st.dictionaries(st.text(min_size=1), st.builds(Drive, st.none() | st.text(), st.booleans()), max_size=3),
    nics=st.lists(st.text(), max_size=2).map(tuple),
    faults=st.lists(st.builds(Fault, st.text(), st.text(), st.none() | st.integers(0, 5)), max_size=3).map(tuple),
    guest=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3),
)


@given(machines)
def test_json_keeps_all(machine: Machine) -> None:
    assert Machine.from_json(machine.to_json()) == machine


@given(machines, st.sampled_from(PowerAction))
def test_a_power_action_ends_on_or_off_and_counts_boots(machine: Machine, action: PowerAction) -> None:
    after = machine.powered(action)
    assert after.power == ("On" if action in STARTS else "Off")
    assert after.generation - machine.generation in (0, 1)
    assert (after.booted_from == "cd") == (after.boot_image is not None) or after == machine


def test_a_document_of_a_newer_version_is_read() -> None:
    assert Machine.from_json(b'{"power": "On", "novelty": 1}').power == "On"
    with pytest.raises(ValueError, match="power"):
        Machine.from_json(b'{"power": "Melted"}')
