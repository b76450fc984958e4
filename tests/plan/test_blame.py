"""Who did it: what a log may be taken to say, and what not."""

from __future__ import annotations

import pytest

from metalimmu.observed.log_entry import LogEntry, LogKind
from metalimmu.plan.blame import QUOTED, SLACK, blame

BEFORE, AT = 1000.0, 4600.0


def entry(kind: LogKind, account: str = "", at: float = 4000.0, message: str = "something") -> LogEntry:
    return LogEntry(at=at, message=message, account=account, kind=kind)


BIOS = entry(LogKind.bios_change, "jim")
LOGIN = entry(LogKind.login, "jim")


@pytest.mark.parametrize(
    ("setting", "entries", "kind", "words"),
    [
        ("bios.Sriov", [BIOS, LOGIN], "account", "jim"),
        ("bios.Sriov", [BIOS, entry(LogKind.bios_change, "eva", message="Sriov set to Disabled")], "account", "eva"),
        ("bios.Sriov", [BIOS, entry(LogKind.bios_change, "eva")], "unknown", "unknown"),
        ("bios.Sriov", [entry(LogKind.bios_change)], "unknown", "unknown"),
        ("bios.Sriov", [LOGIN], "unknown", "unknown"),
        ("bios.Sriov", [LOGIN, entry(LogKind.cmos_clear)], "event", "a clear of the CMOS"),
        ("bios.Sriov", [BIOS, entry(LogKind.reset_to_default, "jim")], "event", "a reset to defaults by jim"),
        ("bios.Sriov", [entry(LogKind.firmware_update)], "event", "a firmware update"),
        ("bios.Sriov", [entry(LogKind.firmware_update, "eva"), BIOS], "account", "jim"),
        ("firmware.bios", [entry(LogKind.firmware_update, "eva"), BIOS], "event", "a firmware update by eva"),
        ("firmware.bios", [BIOS], "unknown", "unknown"),
        ("bmc.ntp.servers", [entry(LogKind.config_change, "eva"), BIOS], "account", "eva"),
        ("bios.Sriov", [entry(LogKind.config_change, "eva", message="BIOS setup by eva")], "account", "eva"),
        ("bios.Sriov", [entry(LogKind.config_change, "eva", message="SSH was enabled")], "unknown", "unknown"),
        ("hardware.memory.total", [BIOS, LOGIN], "unknown", "unknown"),
        ("cabling.eth0", [entry(LogKind.config_change, "eva")], "unknown", "unknown"),
        ("bios.Sriov", [], "unknown", "unknown"),
    ],
)
def test_blame(setting, entries, kind, words):
    found = blame(setting, BEFORE, AT, entries)
    assert (found.kind, found.words) == (kind, words)
    assert found.why


def test_entries_outside_of_the_time_blame_nobody():
    early, late = (
        entry(LogKind.bios_change, "jim", BEFORE - SLACK - 1),
        entry(LogKind.bios_change, "jim", AT + SLACK + 1),
    )
    found = blame("bios.Sriov", BEFORE, AT, [early, late])
    assert (found.kind, found.entries) == ("unknown", ())
    assert blame("bios.Sriov", BEFORE, AT, [entry(LogKind.bios_change, "jim", BEFORE - SLACK)]).who == "jim"


def test_a_log_that_begins_too_late_is_said():
    assert "does not reach back" in blame("bios.Sriov", BEFORE, AT, [entry(LogKind.other, at=AT + 1000)]).why
    assert "no log" in blame("bios.Sriov", BEFORE, AT, []).why


def test_what_counts_is_quoted_first_and_in_the_order_of_time():
    noise = [entry(LogKind.other, at=4500.0 + i) for i in range(20)]
    found = blame("bios.Sriov", BEFORE, AT, [*noise, entry(LogKind.bios_change, "jim", at=1200.0)])
    assert len(found.entries) == QUOTED
    assert found.entries[0].account == "jim"
    assert [e.at for e in found.entries] == sorted(e.at for e in found.entries)


def test_a_setting_with_a_short_name_is_not_found_in_every_sentence():
    said = entry(LogKind.config_change, "eva", message="on the one hand")
    assert blame("boot.on", BEFORE, AT, [said, BIOS]).who == "jim"


def test_an_event_has_the_account_of_its_own_entry_alone():
    """One person changed an attribute, and then the BIOS was updated by nobody that the log names."""
    changed = entry(LogKind.bios_change, "mallory", message="BIOS settings staged: LogicalProc = Disabled.")
    updated = entry(LogKind.firmware_update, at=4500.0, message="The firmware of bios was updated to 2.15.")
    found = blame("firmware.bios", BEFORE, AT, [changed, updated])
    assert (found.kind, found.words, found.who) == ("event", "a firmware update", "")
    earlier = entry(LogKind.firmware_update, "eva", message="The firmware of bmc was updated to 7.1.")
    assert blame("firmware.bios", BEFORE, AT, [earlier, updated]).who == ""
    named = entry(LogKind.reset_to_default, at=4500.0, message="LogicalProc went back to its default.")
    assert blame("bios.LogicalProc", BEFORE, AT, [changed, named]).words == "a reset to defaults"


@pytest.mark.parametrize("kind", [LogKind.config_change, LogKind.other, LogKind.firmware_update])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("secure_boot.enabled", "SSH was enabled"),
        ("boot.mode", "Fan mode set to quiet"),
        ("bios.Proc", "ProcVirtualization was looked at"),
        ("bios.NumLock", "NumLockState"),
    ],
)
def test_an_entry_about_something_else_accuses_nobody(setting, message, kind):
    """A setting's name within another word, or in a sentence about something else, is no mention of it."""
    found = blame(setting, BEFORE, AT, [entry(kind, "jane", message=message)])
    assert found.kind != "account"
    assert "jane" not in (found.why if found.kind == "unknown" else "")
    assert found.kind == ("event" if kind is LogKind.firmware_update else "unknown")
