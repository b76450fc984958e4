"""What happened once to many machines is one line."""

from __future__ import annotations

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
