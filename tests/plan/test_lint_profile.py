"""Neutral keys under a machine's own names; places of what is remarked."""

from __future__ import annotations

from typing import Any

import pytest

from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Profile, Setting
from metalimmu.desired.profiles import resolve
from metalimmu.desired.volatile import volatile
from metalimmu.observed.registry import Attribute, Choice, Registry
from metalimmu.plan.lint import Report
from metalimmu.plan.lint_profile import lint_profile


def registry(owner: str, **attributes: list[str]) -> Registry:
    return Registry(
        id="R",
        source="/r",
        owner=owner,
        attributes={
            name: Attribute(name=name, type="Enumeration", choices=tuple(Choice(name=v, display=v) for v in values))
            for name, values in attributes.items()
        },
    )


def check(found: Registry, now: dict[str, Any] | None = None, **fields: Any) -> Report:
    profile = resolve({"p": Profile(**fields)}, "p", lines={"p": lambda path: 1 + len(str(path[-1]))})
    return lint_profile(
        profile, found, neutral=neutral(), noise=volatile().is_noise, current=now, files={"p": "profiles/p.yaml"}
    )


def said(report: Report) -> list[tuple[str, str]]:
    return [(r.severity, r.field) for r in report.remarks]


def test_a_neutral_key_is_checked_under_the_makes_own_name() -> None:
    report = check(registry("Dell", SriovGlobalEnable=["Enabled", "Disabled"]), bios={"sriov": "enabled"})
    assert (report.checked, said(report)) == (1, [])
    assert report.order.steps == (("SriovGlobalEnable",),)


def test_of_several_values_for_a_word_those_of_this_model_count() -> None:
    """TpmSecurity is On and Off with TPM 2.0, and OnPbm, OnNoPbm, Off with 1.2."""
    for values in (["Off", "On"], ["Off", "OnPbm", "OnNoPbm"]):
        assert said(check(registry("Dell", TpmSecurity=values), bios={"tpm": "enabled"})) == []
    report = check(registry("Dell", TpmSecurity=["Off"]), bios={"tpm": "enabled"})
    assert {s for s, _ in said(report)} == {"error"}
    assert "expected one of Off" in str(report.remarks[0])


def test_a_question_id_that_moves_is_found() -> None:
    report = check(registry("Supermicro", SR_IOVSupport_9999=["Enabled"]), bios={"sriov": "enabled"})
    assert said(report) == []
    assert report.order.steps == (("SR_IOVSupport_9999",),)


def test_a_key_that_this_make_is_not_mapped_for() -> None:
    report = check(registry("Lenovo", X=["a"]), bios={"tpm": "enabled"})
    assert said(report) == [("warning", "bios.tpm")]
    assert "not mapped for lenovo" in str(report.remarks[0])
    report = check(registry("Nobody", X=["a"]), bios={"sriov": "enabled"})
    assert "not mapped for this make" in str(report.remarks[0])


def test_a_setting_that_this_machine_does_not_have() -> None:
    report = check(registry("HPE", X=["a"]), bios={"boot_mode": "uefi", "sriov": "enabled"})
    assert ("warning", "bios.sriov") in said(report)
    assert "this machine has no such setting" in str(next(r for r in report.remarks if r.field == "bios.sriov"))


def test_a_word_that_the_make_has_no_value_for() -> None:
    report = check(registry("Supermicro", PowerTechnology_1111=["Custom"]), bios={"power_profile": "os"})
    assert said(report) == [("error", "bios.power_profile")]
    assert "write one of them, or PowerTechnology_1111 with its own value under bios_raw" in str(report.remarks[0])


def test_secure_boot_is_no_attribute() -> None:
    report = check(registry("Dell", X=["a"]), bios={"secure_boot": "enabled"}, secure_boot=True, boot_mode="UEFI")
    assert (report.checked, said(report)) == (0, [])


def test_neutral_and_raw_in_contradiction_name_each_other() -> None:
    report = check(
        registry("Dell", LogicalProc=["Enabled", "Disabled"]),
        bios={"hyperthreading": "enabled"},
        bios_raw={"LogicalProc": Setting(value="Disabled")},
    )
    assert said(report) == [("error", "bios_raw.LogicalProc")]
    assert "bios.hyperthreading at profiles/p.yaml:15 says" in str(report.remarks[0])
    assert report.remarks[0].file == "profiles/p.yaml"
    assert report.remarks[0].line == 12


@pytest.mark.parametrize("key", sorted(neutral().keys))
@pytest.mark.parametrize("owner", ["Dell", "HPE", "Lenovo", "Supermicro", "NVIDIA", "Nobody", ""])
def test_every_key_and_word_on_every_make_and_an_empty_registry(key: str, owner: str) -> None:
    for word in neutral().keys[key].values:
        report = check(registry(owner), bios={key: word})
        assert report.errors == 0
