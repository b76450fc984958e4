"""Which value mends a setting: by the names that the machine has."""

from __future__ import annotations

from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Expectation, ResolvedProfile
from metalimmu.plan.wanted import wanted


def asked(*expectations: Expectation) -> ResolvedProfile:
    return ResolvedProfile(name="p", chain=("p",), expectations=expectations)


def want(setting: str, value: object, op: str = "equals") -> Expectation:
    return Expectation(setting=setting, op=op, value=value)


def test_raw_values_keep_their_type():
    profile = asked(want("bios.A", 5), want("bios.B", True), want("bios.C", "On"))
    found = wanted(profile, {"bios.A": 4, "bios.B": False, "bios.C": "Off"}, "Acme", neutral=neutral())
    assert found == {"bios.A": 5, "bios.B": True, "bios.C": "On"}


def test_what_several_values_satisfy_is_left_out():
    profile = asked(want("bios.A", "x.*", "pattern"), want("bios.B", 5, "at_least"), want("boot.mode", "UEFI"))
    assert wanted(profile, {"bios.A": "a", "bios.B": 1, "boot.mode": "Legacy"}, "Acme", neutral=neutral()) == {}


def test_a_neutral_key_is_written_in_the_words_of_the_make():
    profile = asked(want("neutral.sriov", "enabled"))
    found = wanted(profile, {"bios.SriovGlobalEnable": "Disabled"}, "Dell Inc.", neutral=neutral())
    assert found == {"bios.SriovGlobalEnable": "Enabled"}
    assert wanted(profile, {"bios.SriovGlobalEnable": "Disabled"}, "Nobody", neutral=neutral()) == {}


def test_a_renamed_attribute_is_followed():
    profile = asked(want("bios.AES_NI_3C75", "Enable"))
    found = wanted(profile, {"bios.AES_NI_1234": "Disable"}, "Supermicro", neutral=neutral())
    assert found == {"bios.AES_NI_1234": "Enable"}


def test_what_the_machine_does_not_have_cannot_be_written():
    assert wanted(asked(want("bios.A", 5)), {"bios.B": 1}, "Acme", neutral=neutral()) == {}
