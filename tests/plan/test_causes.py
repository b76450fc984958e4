"""What happened once to many machines is one line."""

from __future__ import annotations

from metalimmu.desired.neutral import neutral
from metalimmu.plan.alike import alike
from metalimmu.plan.causes import WINDOW, Drift, grouped


def drift(host: str, **fields) -> Drift:
    given = {
        "setting": "bios.Sriov",
        "word": "differs",
        "expected": "Enabled",
        "actual": "Disabled",
        "severity": "warning",
        "since": 1000.0,
        "seen": 2000.0,
        "before": "Enabled",
    }
    return Drift(host=host, **(given | fields))


def groups(*drifts: Drift, by="cause") -> list[tuple[str, tuple[str, ...]]]:
    return [(c.title, c.hosts) for c in grouped(drifts, by)]


def test_the_same_change_on_many_hosts_is_one_cause():
    many = [drift(f"n{i:03}", since=1000.0 + i) for i in range(500)]
    (cause,) = grouped([*many])
    assert (len(cause.hosts), cause.title) == (500, "bios.Sriov: Enabled -> Disabled")
    assert (cause.first, cause.last) == (1000.0, 1499.0)


def test_the_same_change_much_later_is_another():
    assert len(groups(drift("a"), drift("b", since=1000.0 + WINDOW))) == 1
    assert len(groups(drift("a"), drift("b", since=1001.0 + WINDOW))) == 2


def test_another_value_or_account_is_another_cause():
    assert len(groups(drift("a"), drift("b", before="Auto"))) == 2
    assert len(groups(drift("a"), drift("b", actual="Auto"))) == 2
    assert groups(drift("a", blame="jim"), drift("b", blame="eva")) == [
        ("bios.Sriov: Enabled -> Disabled by eva", ("b",)),
        ("bios.Sriov: Enabled -> Disabled by jim", ("a",)),
    ]


def test_hosts_whose_logs_were_not_asked_belong_to_those_that_were():
    (cause,) = grouped([drift("a"), drift("b", blame="jim"), drift("c")])
    assert (cause.title, cause.blame) == ("bios.Sriov: Enabled -> Disabled by jim", "jim")


def test_what_is_fixed_is_not_what_is_open():
    assert len(groups(drift("a"), drift("b", fixed_at=3000.0))) == 2


def test_drift_from_the_first_look_on_says_what_was_expected():
    assert groups(drift("a", before=None)) == [("bios.Sriov: Disabled (expected Enabled)", ("a",))]
    assert groups(drift("a", before=None, actual="", word="missing"))[0][0] == "bios.Sriov: missing (expected Enabled)"


def test_by_setting_and_by_host():
    found = [drift("a"), drift("b"), drift("b", setting="bios.Turbo", severity="critical")]
    assert groups(*found, by="setting") == [("bios.Sriov", ("a", "b")), ("bios.Turbo", ("b",))]
    assert [(c.title, len(c.drifts), c.severity) for c in grouped(found, "host")] == [
        ("b", 2, "critical"),
        ("a", 1, "warning"),
    ]


OFF = {
    "dell": ("bios.LogicalProc", "Enabled", "Disabled"),
    "lenovo": ("bios.Processors_HyperThreading", "Enabled", "Disabled"),
    "supermicro": ("bios.Hyper_Threading_ALL__3C75", "Enable", "Disable"),
}


def off(make: str, host: str = "", **fields) -> Drift:
    setting, expected, actual = OFF[make]
    given = {"setting": setting, "expected": expected, "actual": actual, "before": expected, "make": make}
    return drift(host or make, **(given | fields))


def test_the_same_on_three_makes_is_one_cause_whatever_they_call_it():
    key = neutral().keys["hyperthreading"]
    assert {p.setting for p in key.places["supermicro"]} == {"bios.Hyper_Threading_ALL_"}
    (cause,) = grouped(off(make) for make in OFF)
    assert cause.hosts == tuple(sorted(OFF))
    assert cause.title.startswith("neutral.hyperthreading (bios.Hyper_Threading_ALL__3C75, bios.LogicalProc, ")
    assert cause.title.endswith("): enabled -> disabled")
    assert (cause.expected, cause.actual) == ("enabled", "disabled")
    assert len(grouped([off("dell"), off("lenovo")], "setting")) == 1


def test_one_make_alone_keeps_its_own_words():
    assert groups(off("dell")) == [("bios.LogicalProc: Enabled -> Disabled", ("dell",))]


def test_what_a_key_has_no_word_for_is_itself():
    other = off("dell", "d2", actual="Odd")
    assert len(grouped([off("dell"), other, off("lenovo")])) == 2
    assert alike("dell", "bios.AssetTag", "x", "y") == ("bios.AssetTag", "x", "y", None)
    assert alike("", "bios.LogicalProc", "Enabled", "Disabled").setting == "bios.LogicalProc"


def test_several_values_of_a_make_that_are_one_word():
    setting = "bios.DevicesandIOPorts_PCI64BitResourceAllocation"
    assert alike("lenovo", setting, "Enabled or Auto", "Disabled") == ("neutral.above_4g", "enabled", "disabled", None)
    assert alike("hpe", "secure_boot.enabled", "true", "false", "true") == (
        "neutral.secure_boot", "enabled", "disabled", "enabled",
    )  # fmt: skip
