"""The data files for neutral keys, makes and volatile settings hold together. What machines say of them: tests/conformance."""

from __future__ import annotations

import re

import pytest

from metalimmu.desired.makes import facts, make_of, makes, moving
from metalimmu.desired.neutral import Key, Place, neutral
from metalimmu.desired.volatile import Volatile, volatile

KEYS = sorted(neutral().keys.values(), key=lambda k: k.name)


@pytest.mark.parametrize("key", KEYS, ids=lambda k: k.name)
def test_a_key(key: Key) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", key.name)
    assert key.help
    assert len(key.values) >= 2
    assert all(isinstance(v, str) for v in key.values), "YAML made true of an unquoted on"
    assert key.places or key.anywhere
    for make, places in [*key.places.items(), ("", key.anywhere)]:
        for place in places:
            assert set(place.values) <= set(key.values), make
            assert all(place.values.values()), "a word without a value cannot be asked for"
            wires = [w for values in place.values.values() for w in values]
            assert len(wires) == len(set(wires)), f"{make}: one value for two words: {wires}"
            assert place.setting.startswith("bios.") == (place not in key.anywhere)


def test_the_keys_that_the_issue_names() -> None:
    assert {"boot_mode", "sriov", "hyperthreading", "tpm", "power_profile", "virtualization"} <= set(neutral().keys)


def test_places_by_make() -> None:
    assert [p.setting for p in neutral().places("boot_mode", "hpe")] == ["bios.BootMode", "boot.mode"]
    assert [p.setting for p in neutral().places("boot_mode", "nobody")] == ["boot.mode"]
    assert [p.setting for p in neutral().places("secure_boot", "dell")] == ["secure_boot.enabled"]
    assert neutral().places("sriov", "nobody") == ()
    assert neutral().places("nothing", "dell") == ()
    assert neutral().places("sriov", "supermicro")[0].stem


def test_words_of_values() -> None:
    place = Place("bios.X", False, {"enabled": ("On", True), "disabled": ("Off", 0)})
    assert [place.word(v) for v in ("On", True, "Off", 0, 1, False, "on", None)] == [
        "enabled", "enabled", "disabled", "disabled", None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "make"),
    [
        (("Dell Inc.",), "dell"),
        (("dell",), "dell"),
        (("HPE",), "hpe"),
        (("Hewlett Packard Enterprise",), "hpe"),
        (("Lenovo",), "lenovo"),
        (("Supermicro",), "supermicro"),
        (("Super Micro Computer, Inc.",), "supermicro"),
        (("NVIDIA",), "nvidia"),
        (("", "OpenBmc"), "nvidia"),
        (("Contoso",), ""),
        (("Contoso", "", "Dell Inc."), "dell"),
        ((), ""),
        (("", ""), ""),
    ],
)
def test_makes(said: tuple[str, ...], make: str) -> None:
    assert make_of(*said) == make


def test_facts_of_makes() -> None:
    assert facts("dell").early
    assert not facts("hpe").early
    assert facts("nobody").vendors == []
    pattern = moving("supermicro")
    assert pattern is not None
    assert pattern.sub("", "bios.Hyper_Threading_ALL__F27F") == "bios.Hyper_Threading_ALL_"
    assert moving("dell") is None
    for key in KEYS:
        assert set(key.places) <= set(makes())


@pytest.mark.parametrize(
    ("setting", "vendor", "kind"),
    [
        ("bios.SystemServiceTag", "Dell Inc.", "identity"),
        ("bios.SystemServiceTag", "HPE", "identity"),  # a name that means one thing everywhere
        ("bios.SysMemSize", "Dell Inc.", "identity"),
        ("bios.SysMemSize", "HPE", ""),
        ("bios.SysProfile", "Dell Inc.", ""),
        ("bios.SystemBiosVersion", "dell", "identity"),
        ("bios.OneTimeBootMode", "dell", "volatile"),
        ("bios.SerialNumber", "HPE", "identity"),
        ("bios.ServerConfigLockStatus", "HPE", ""),
        ("bios.AssetTagProtection", "HPE", ""),
        ("bios.AdministratorPassword_0117", "Supermicro", ""),
        ("bios.MellanoxNetworkAdapter_A088C227218F__Slot15_BlinkLEDs", "Lenovo", "identity"),
        ("bios.MellanoxNetworkAdapter_A088C227218F__Slot15_BlinkLEDs", "Dell Inc.", ""),
        ("bios.ProductAssetTag", "NVIDIA", "identity"),
        ("bmc.clock", "Contoso", "volatile"),
        ("hardware.nics.macs", "", "identity"),
        ("bios.SysMemSize", None, "identity"),
        ("bios.ProcCStates", None, ""),
    ],
)
def test_noise(setting: str, vendor: str | None, kind: str) -> None:
    assert volatile().kind(setting, vendor) == kind
    assert volatile().is_noise(setting, vendor) is bool(kind)


def test_no_neutral_key_is_noise() -> None:
    for key in KEYS:
        for places in key.places.values():
            for place in places:
                assert not volatile().is_noise(place.setting, None), place


def test_empty_lists_of_globs() -> None:
    assert not Volatile({}).is_noise("bios.x")
    assert not Volatile({"dell": {"identity": []}}).is_noise("bios.x", "dell")
