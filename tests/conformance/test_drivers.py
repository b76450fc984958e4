"""One suite for all drivers: what `metalimmu.bmc.ports` promises, whatever is behind it."""

from __future__ import annotations

import inspect

import pytest
from subjects import Subject

from metalimmu.bmc import ports
from metalimmu.bmc.fake import FakeBmc
from metalimmu.bmc.ipmi import IpmiBmc
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.ports import Bmc
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.bmc.redfish_raw import RawRedfishBmc
from metalimmu.errors import BmcLoginRefused, BmcReadOnly, BmcRefused, BmcUnsupported, LeaseLost
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


def cd(bmc: Bmc) -> MediaSlot:
    return next(s for s in bmc.media() if s.takes_cd)


def slot(bmc: Bmc, ident: str) -> MediaSlot:
    return next(s for s in bmc.media() if s.id == ident)


@pytest.mark.parametrize("driver", [FakeBmc, RedfishBmc, RawRedfishBmc, IpmiBmc])
@pytest.mark.parametrize("port", [ports.Power, ports.Override, ports.VirtualMedia, ports.InventoryReader, ports.Bmc])
def test_signatures_are_those_of_the_ports(driver: type, port: type) -> None:
    for name, wanted in vars(port).items():
        if name.startswith("_") or not callable(wanted):
            continue
        assert inspect.signature(getattr(driver, name)) == inspect.signature(wanted), name


def test_power_goes_off_and_on(subject: Subject) -> None:
    with subject.open() as bmc:
        if bmc.power_state() is PowerState.off:
            bmc.set_power(PowerAction.on)
            subject.wait(lambda: bmc.power_state() is PowerState.on)
        assert {PowerAction.on, PowerAction.force_off, PowerAction.force_restart} <= bmc.power_actions()
        bmc.set_power(PowerAction.force_off)
        subject.wait(lambda: bmc.power_state() is PowerState.off)
        bmc.set_power(PowerAction.on)
        subject.wait(lambda: bmc.power_state() is PowerState.on)


def test_slots_are_listed_once(inserting: Subject) -> None:
    with inserting.open() as bmc:
        slots = bmc.media()
        assert len({s.uri.lower() for s in slots}) == len(slots)
        assert any(s.takes_cd for s in slots)


def test_media_go_in_and_out(inserting: Subject) -> None:
    with inserting.open() as bmc:
        drive = cd(bmc)
        bmc.insert_media(drive, inserting.url)
        now = slot(bmc, drive.id)
        assert now.inserted
        assert now.image == inserting.url
        bmc.eject_media(now)
        now = slot(bmc, drive.id)
        assert not now.inserted
        assert not now.image


def test_media_over_media_are_refused_and_say_what_is_there(inserting: Subject) -> None:
    with inserting.open() as bmc:
        drive = cd(bmc)
        bmc.insert_media(drive, inserting.url)
        with pytest.raises(BmcRefused, match=r"boot\.iso already|inserted already") as caught:
            bmc.insert_media(drive, "http://127.0.0.1:8080/m/other/boot.iso")
        assert "eject" in caught.value.hint
        assert slot(bmc, drive.id).image == inserting.url
        bmc.eject_media(drive)


def test_ejecting_an_empty_drive_is_no_error(inserting: Subject) -> None:
    with inserting.open() as bmc:
        bmc.eject_media(cd(bmc))
        assert not cd(bmc).inserted


@pytest.mark.parametrize("enabled", [BootEnabled.once, BootEnabled.continuous])
def test_override_reads_back(overriding: Subject, enabled: BootEnabled) -> None:
    with overriding.open() as bmc:
        bmc.set_boot_override(BootTarget.cd, enabled, BootMode.uefi)
        now = bmc.boot_override()
        if not overriding.boots_for_real:
            enabled = BootEnabled.continuous
        assert (now.enabled, now.effective, now.mode) == (enabled, BootTarget.cd, BootMode.uefi)
        bmc.set_boot_override(BootTarget.none, BootEnabled.disabled, None)
        now = bmc.boot_override()
        assert (now.effective, now.mode) == (BootTarget.none, BootMode.uefi)


def test_once_is_used_up_by_a_boot(overriding: Subject) -> None:
    with overriding.open() as bmc:
        bmc.set_boot_override(BootTarget.cd, BootEnabled.once, None)
        bmc.set_power(PowerAction.force_restart)
        if overriding.boots_for_real:
            overriding.wait(lambda: bmc.boot_override().effective is BootTarget.none)
        else:  # the driver must say what it sees, not what it asked for
            assert bmc.boot_override().enabled is BootEnabled.continuous


def test_identity_and_inventory(subject: Subject) -> None:
    with subject.open() as bmc:
        identity = bmc.identity()
        found = bmc.inventory()
    assert identity.uuid == identity.uuid.lower()
    assert len(identity.uuid) == 36
    assert found.identity == identity
    assert found.driver == bmc.driver
    assert found.power in set(PowerState)
    assert not isinstance(found.boot, Unknown)
    assert not isinstance(found.bmc, Unknown)
    for name in found.__struct_fields__:
        value = getattr(found, name)
        assert not isinstance(value, Unknown) or value.detail, name


def test_the_inventory_has_the_slots(inserting: Subject) -> None:
    with inserting.open() as bmc:
        assert bmc.inventory().media == bmc.media()


def test_a_driver_without_media_says_so_and_sends_nothing(without_media: Subject) -> None:
    slot = MediaSlot("Cd", "", ("CD",), None, None, by_action=True, can_eject=True)
    with without_media.open() as bmc:
        for act in (bmc.media, lambda: bmc.insert_media(slot, without_media.url), lambda: bmc.eject_media(slot)):
            with pytest.raises(BmcUnsupported, match="no virtual media"):
                act()
        with pytest.raises(BmcUnsupported):  # nor does a plan promise it
            bmc.rehearse(lambda: bmc.insert_media(slot, without_media.url))
        found = bmc.inventory().media
        assert isinstance(found, Unknown)
        assert found.reason is Reason.not_modelled
        assert bmc.sent() == []
    assert without_media.writes
    assert without_media.writes() == 0


def test_a_rehearsal_of_power_and_override(subject: Subject) -> None:
    with subject.open() as bmc:

        def act() -> None:
            bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
            bmc.set_power(PowerAction.on)
            bmc.set_power(PowerAction.force_restart)
            bmc.set_boot_override(BootTarget.none, BootEnabled.disabled, BootMode.uefi)

        planned = bmc.rehearse(act)
        assert bmc.sent() == []
        if subject.writes:
            assert subject.writes() == 0
        if bmc.power_state() is PowerState.off:
            bmc.set_power(PowerAction.on)
            subject.wait(lambda: bmc.power_state() is PowerState.on)
        before = len(bmc.sent())
        act()
        assert bmc.sent()[before:] == planned
        assert len(planned) == 4


def test_a_rehearsal_sends_nothing_and_lists_what_will_be_sent(inserting: Subject) -> None:
    subject = inserting
    with subject.open() as bmc:
        drive = cd(bmc)

        def act() -> None:
            bmc.insert_media(drive, subject.url)
            bmc.set_boot_override(BootTarget.cd, BootEnabled.once, BootMode.uefi)
            bmc.set_power(PowerAction.force_restart)
            bmc.eject_media(drive)

        planned = bmc.rehearse(act)
        assert bmc.sent() == []
        assert not slot(bmc, drive.id).inserted
        if subject.writes:
            assert subject.writes() == 0
        act()
        assert bmc.sent() == planned
        assert [r.method for r in planned].count("POST") + [r.method for r in planned].count("PATCH") == 4


def test_a_failed_rehearsal_leaves_the_driver_sending(subject: Subject) -> None:
    with subject.open() as bmc:

        def act() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            bmc.rehearse(act)
        bmc.set_power(PowerAction.on)
        assert len(bmc.sent()) == 1
        subject.wait(lambda: bmc.power_state() is PowerState.on)


def test_read_only_mode_writes_nothing(subject: Subject) -> None:
    with subject.open(mode="read-only") as bmc:
        with pytest.raises(BmcReadOnly, match="not sent"):
            bmc.set_power(PowerAction.force_restart)
        with pytest.raises(BmcReadOnly):
            bmc.set_boot_override(BootTarget.cd, BootEnabled.once, BootMode.uefi)
        assert bmc.rehearse(lambda: bmc.set_power(PowerAction.on))  # a plan is made in read-only mode too
        bmc.inventory()
        assert bmc.sent() == []
        if subject.writes:
            assert subject.writes() == 0


def test_read_only_mode_inserts_nothing(inserting: Subject) -> None:
    with inserting.open(mode="read-only") as bmc:
        drive = cd(bmc)
        with pytest.raises(BmcReadOnly):
            bmc.insert_media(drive, inserting.url)
        assert bmc.rehearse(lambda: bmc.insert_media(drive, inserting.url))
        assert bmc.sent() == []
        if inserting.writes:
            assert inserting.writes() == 0


def test_the_fence_is_asked_before_each_write(subject: Subject) -> None:
    asked = 0

    def fence() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise LeaseLost("another worker has this host")

    with subject.open() as bmc:
        bmc.set_power(PowerAction.on)
        subject.wait(lambda: bmc.power_state() is PowerState.on)
    with subject.open(before_write=fence) as bmc:
        bmc.power_state()
        assert asked == 0
        bmc.set_boot_override(BootTarget.pxe, BootEnabled.once, BootMode.uefi)
        assert asked == 1
        with pytest.raises(LeaseLost):
            bmc.set_power(PowerAction.force_off)
        assert len(bmc.sent()) == 1
        assert bmc.power_state() is PowerState.on


def test_the_fence_is_asked_before_media_too(inserting: Subject) -> None:
    asked = 0

    def fence() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise LeaseLost("another worker has this host")

    with inserting.open(before_write=fence) as bmc:
        drive = cd(bmc)
        assert asked == 0
        bmc.insert_media(drive, inserting.url)
        with pytest.raises(LeaseLost):
            bmc.eject_media(drive)
        assert len(bmc.sent()) == 1
        assert slot(bmc, drive.id).inserted
    with inserting.open() as bmc:
        bmc.eject_media(drive)


def test_logout_is_certain(subject: Subject) -> None:
    bmc = subject.open()
    bmc.power_state()
    bmc.close()
    bmc.close()

    def dies() -> None:
        with subject.open() as bmc:
            bmc.power_state()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        dies()
    if subject.sessions:
        open_ = subject.sessions
        subject.wait(lambda: open_() == 0)


def test_a_wrong_password_is_tried_once(subject: Subject) -> None:
    if subject.logins is None:  # sushy-emulator asks for no login: then any login is good
        with subject.open(credentials="env:WRONG") as bmc:
            assert bmc.power_state() in set(PowerState)
        return
    ledger = MemoryLedger()
    for _ in range(3):
        with subject.open(credentials="env:WRONG", ledger=ledger) as bmc:
            for _ in range(2):
                with pytest.raises(BmcLoginRefused):
                    bmc.power_state()
            assert isinstance(bmc.inventory().power, Unknown)
    assert subject.logins() == 1
