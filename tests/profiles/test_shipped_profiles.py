"""The profiles that ship, each against the machine from which it was made.

The findings are what somebody who knows that machine would say of it: each is stated here, with why it is right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from metalimmu import paths
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profiles import fitting, shipped
from metalimmu.plan.compare import compare
from metalimmu.plan.types import Word
from metalimmu.service.profile_machines import Machine
from metalimmu.service.profiles import lint_machine, read

ALL = sorted(p.stem for p in paths.data("profiles").glob("*.yaml"))


class Made(NamedTuple):
    recording: str
    settings: int  # findings
    # setting -> word, severity, expected, actual
    findings: dict[str, tuple[str, str, str, str]]
    # field -> severity, words
    remarks: dict[str, tuple[str, str]] = {}
    steps: int = 1  # of writing


UNSIGNED = ("differs", "warning", "true", "false")  # none of the recorded machines had secure boot on
FREE_CLOCK = ("differs", "warning", "true", "false")  # and few asked an NTP server
IPMI = ("differs", "critical", "false", "true")
SHELL = ("differs", "warning", "Disabled", "Enabled")
FOLLOWS = ("info", "one that follows: WorkloadProfile")

MADE = {
    "dell-poweredge-r750": Made(
        "dell-poweredge-r750-idrac9",
        23,  # of 24: virtualization and iommu are one attribute on Dell
        {
            "secure_boot.enabled": UNSIGNED,
            "bmc.ntp.enabled": FREE_CLOCK,
            "bmc.protocol.ipmi": IPMI,
            "bios.ErrPrompt": ("differs", "warning", "Disabled", "Enabled"),  # Dell's default: waits at F1
            "bios.UefiVariableAccess": ("differs", "info", "Controlled", "Standard"),
        },
    ),
    "hpe-proliant-gen10plus": Made(
        "hpe-dl360-gen10plus-ilo5",
        21,
        {
            "secure_boot.enabled": UNSIGNED,
            # iLO 5 has its NTP servers in an Oem part that this recording lacks: said as such, and no drift.
            "bmc.ntp.enabled": ("unknown", "warning", "true", ""),
            "bios.EmbeddedUefiShell": SHELL,
            "bios.PostF1Prompt": ("differs", "warning", "Delayed2Sec or Disabled", "Delayed20Sec"),
            "bios.WorkloadProfile": (
                "differs",
                "warning",
                "Virtualization-MaxPerformance",
                "GeneralPowerEfficientCompute",  # HPE's default
            ),
        },
        # The workload profile brings these with it: nothing is wrong, and it is written first.
        {"bios.virtualization": FOLLOWS, "bios.iommu": FOLLOWS, "bios.sriov": FOLLOWS},
        steps=2,
    ),
    "hpe-proliant-gen12": Made(
        "hpe-dl380a-gen12-ilo7",
        20,
        {
            "secure_boot.enabled": UNSIGNED,
            "bmc.ntp.enabled": FREE_CLOCK,
            "bios.EmbeddedUefiShell": SHELL,
            "bios.PostF1Prompt": ("differs", "warning", "Delayed2Sec or Disabled", "Delayed20Sec"),
            "bios.WorkloadProfile": (
                "differs",
                "warning",
                "GeneralPeakFrequencyCompute",
                "GeneralPowerEfficientCompute",
            ),
        },
        {"bios.iommu": ("warning", "which the machine has though its registry does not list it")},
    ),
    "lenovo-thinksystem-sr670v2": Made(
        "lenovo-sr670v2-xcc",
        22,
        {
            "secure_boot.enabled": UNSIGNED,
            "bmc.ntp.enabled": FREE_CLOCK,
            # A machine for GPUs in the mode that it left the factory with.
            "bios.OperatingModes_ChooseOperatingMode": (
                "differs",
                "warning",
                "MaximumPerformance",
                "Efficiency_FavorPerformance",
            ),
        },
    ),
    "supermicro-x13": Made(
        "supermicro-sys821ge-x13",
        27,
        {
            "secure_boot.enabled": UNSIGNED,
            "bmc.ntp.enabled": FREE_CLOCK,
            "bmc.protocol.ipmi": IPMI,
            "bios.CSMSupport_0121": ("differs", "warning", "Disabled", "Enabled"),
        },
    ),
    "openbmc-gb200": Made(
        "nvidia-gb200-openbmc",
        15,
        {
            "secure_boot.enabled": UNSIGNED,
            "bmc.protocol.ipmi": IPMI,
            "bios.EmbeddedUefiShell": SHELL,
            "bios.EInj": ("differs", "critical", "false", "true"),  # an engineering machine
        },
    ),
}


def test_every_profile_of_a_model_is_tested_here() -> None:
    extended = {parent for p in shipped().values() for parent in ([p.extends] if isinstance(p.extends, str) else [])}
    assert set(MADE) == set(ALL) - extended


@pytest.mark.parametrize("name", ALL)
def test_loads_and_says_what_it_is_for(name: str) -> None:
    found = read(name, None)
    assert found.profile.description
    assert found.profile.match is not None
    assert found.resolved.expectations
    text = (paths.data("profiles") / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("name", ALL)
def test_every_raw_attribute_says_why(name: str) -> None:
    """By `because`, or a comment on its line or above it."""
    lines = (paths.data("profiles") / f"{name}.yaml").read_text().splitlines()
    for at, attribute in _raw(lines):
        block = [lines[at]]
        for line in lines[at + 1 :]:
            if not line.startswith("    "):
                break
            block.append(line)
        assert any("because:" in line or "#" in line for line in block), f"{name}: {attribute}"


def _raw(lines: list[str]) -> list[tuple[int, str]]:
    inside = False
    found = []
    for at, line in enumerate(lines):
        if line and not line.startswith((" ", "#")):
            inside = line.startswith("bios_raw:")
        elif inside and line.startswith("  ") and not line.startswith(("   ", "  #")):
            found.append((at, line.split(":")[0].strip()))
    return found


@pytest.mark.parametrize("name", MADE)
def test_is_clean_against_its_machine(name: str, machine: Callable[[str], Machine]) -> None:
    made = MADE[name]
    report = lint_machine(read(name, None), machine(made.recording))
    assert report.errors == 0, [str(r) for r in report.remarks]
    said = {r.field: (r.severity, str(r)) for r in report.remarks}
    assert set(said) == set(made.remarks), said
    for field, (severity, words) in made.remarks.items():
        assert said[field][0] == severity
        assert words in said[field][1]
    assert len(report.order.steps) == made.steps
    assert not report.order.cycles


@pytest.mark.parametrize("name", MADE)
def test_findings_that_somebody_who_knows_the_machine_would_sign(name: str, machine: Callable[[str], Machine]) -> None:
    made = MADE[name]
    found = machine(made.recording)
    profile = read(name, None).resolved
    findings = compare(profile, found.snapshot, neutral=neutral(), registry=found.known_registry, now=found.snapshot.at)
    assert len(findings) == made.settings
    odd = {f.setting: (str(f.word), f.severity, f.expected, f.actual) for f in findings if f.word is not Word.match}
    assert odd == made.findings


@pytest.mark.parametrize("name", MADE)
def test_match_chooses_it_for_its_machine(name: str, machine: Callable[[str], Machine]) -> None:
    """Among all that ship, had they kept their `match`."""

    class Host:
        name, pool, role, labels = "node-1", None, None, {}

    of = machine(MADE[name].recording).captured
    assert fitting(shipped(), Host(), of.manufacturer, of.model) == [name]


def test_a_profile_of_another_make_does_not_pass(machine: Callable[[str], Machine]) -> None:
    """Dell's attributes on an HPE machine: each unknown name is an error with its line."""
    report = lint_machine(read("dell-poweredge-r750", None), machine("hpe-dl360-gen10plus-ilo5"))
    assert report.errors >= 4
    lost = {r.field for r in report.remarks if r.severity == "error"}
    assert {"bios_raw.ErrPrompt", "bios_raw.MemTest", "bios_raw.RedundantOsLocation"} <= lost
    assert all(
        Path(r.file).name in {"dell.yaml", "dell-poweredge-r750.yaml"} and r.line > 1
        for r in report.remarks
        if r.severity == "error"
    )


NO_BIOS = ("unknown", "warning")

WITHOUT_A_PROFILE_OF_ITS_OWN = {
    # Redfish 1.0.1 of 2015: no Bios, no SecureBoot, no certificate. What it cannot say is unknown, and no drift.
    ("supermicro-x10sdv-redfish101", "supermicro"): {
        "bmc.ntp.enabled": ("differs", "warning"),
        "bmc.protocol.ipmi": ("differs", "critical"),
        "secure_boot.enabled": NO_BIOS,
        "bmc.certificate.not_after": NO_BIOS,
        "boot.mode": NO_BIOS,
        **{
            f"bios.{name}": NO_BIOS
            for name in (
                "Hyper_Threading_ALL_",
                "IntelVirtualizationTechnology",
                "IntelVTforDirectedI_O_VT_d_",
                "SR_IOVSupport",
                "NUMA",
                "RestoreonACPowerLoss",
                "PatrolScrub",
                "CSMSupport",
                "WaitFor_F1_IfError",
                "WHEASupport",
                "ResetKeys",
            )
        },
    },
    # DMTF's sample: a make that nobody has seen, so only what the standard has in common is compared.
    ("dmtf-public-rackmount1", "x86"): {
        "secure_boot.enabled": ("differs", "warning"),
        "bmc.certificate.not_after": ("differs", "warning"),  # it ended in 2019
        "bmc.protocol.ipmi": ("differs", "critical"),
        "bmc.ntp.enabled": ("unknown", "warning"),
        **{
            f"neutral.{key}": ("unknown", "warning")
            for key in ("hyperthreading", "virtualization", "iommu", "sriov", "numa")
        },
    },
}


@pytest.mark.parametrize(("made", "name"), WITHOUT_A_PROFILE_OF_ITS_OWN)
def test_findings_of_machines_without_a_profile_of_their_own(
    made: str, name: str, machine: Callable[[str], Machine]
) -> None:
    found = machine(made)
    profile = read(name, None).resolved
    findings = compare(profile, found.snapshot, neutral=neutral(), registry=found.known_registry, now=found.snapshot.at)
    odd = {f.setting: (str(f.word), f.severity) for f in findings if f.word is not Word.match}
    assert odd == WITHOUT_A_PROFILE_OF_ITS_OWN[made, name]
    assert all(f.reason.startswith("not modelled: ") for f in findings if f.word is Word.unknown)
