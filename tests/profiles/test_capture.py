"""A profile captured from a machine says exactly what the machine is, and nothing that is its identity."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.desired import profile_files
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Profile
from metalimmu.desired.volatile import volatile
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.plan.capture import Captured, capture
from metalimmu.plan.compare import compare
from metalimmu.plan.types import Word
from metalimmu.service.profile_machines import Machine
from metalimmu.service.profiles import lint_machine

AT = 1722000000.0
MACHINES = {  # settings in the profile
    "dell-poweredge-r750-idrac9": 214,
    "hpe-dl360-gen10plus-ilo5": 262,
    "hpe-dl380a-gen12-ilo7": 357,
    "lenovo-sr670v2-xcc": 313,
    "nvidia-gb200-openbmc": 452,
    "supermicro-sys821ge-x13": 484,
    "supermicro-x10sdv-redfish101": 23,
    "dmtf-public-rackmount1": 34,
}


def text_of(*hosts: Captured) -> str:
    return capture(hosts, neutral=neutral(), noise=volatile().is_noise, now=AT)


def written(folder: Path, text: str) -> profile_files.Read:
    file = folder / "captured.yaml"
    file.write_text(text)
    return profile_files.read(file)


@pytest.mark.parametrize("name", MACHINES)
def test_what_was_captured_matches_its_machine(name: str, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    of = machine(name)
    found = written(tmp_path, text_of(of.captured))
    findings = compare(found.resolved, of.snapshot, neutral=neutral(), registry=of.known_registry, now=of.snapshot.at)
    assert abs(len(findings) - MACHINES[name]) <= 3  # what a walk reads may grow
    odd = [f for f in findings if f.word is not Word.match]
    # Three values of DMTF's sample, and the boot order of the GB200, really wait for a reboot.
    assert all(f.word is Word.differs and "is staged" in f.reason for f in odd), odd
    assert {f.setting for f in odd} <= set(of.snapshot.staged)
    if of.known_registry is not None:
        assert lint_machine(found, of).errors == 0


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_in_it_tells_one_machine_from_another(name: str, machine: Callable[[str], Machine]) -> None:
    of = machine(name)
    text = text_of(of.captured)
    identity = of.snapshot.identity
    for secret in (identity.serial, identity.uuid, *(identity.nics if isinstance(identity.nics, tuple) else ())):  # type: ignore[union-attr]
        assert not secret or secret.casefold() not in text.casefold()
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"(?i)\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", body)


@pytest.mark.parametrize("mac", ["A088C227218F", "a088c227218f"])
def test_a_mac_in_the_name_of_an_attribute_is_left_out(mac: str) -> None:
    settings_ = {f"bios.MellanoxNetworkAdapter_{mac}__Slot15_LinkType": "Ethernet", "bios.Memory_Speed": "Maximum"}
    text = text_of(Captured(host="a", at=AT, manufacturer="Lenovo", settings=settings_))
    assert mac not in text
    assert "Memory_Speed" in text


def test_head_and_notes_say_where_it_comes_from(machine: Callable[[str], Machine]) -> None:
    text = text_of(machine("dell-poweredge-r750-idrac9").captured)
    assert "Dell Inc. PowerEdge R750, BIOS 1.8.2, BMC 6.00.30.00, read on 2024-07-26" in text
    assert "match: {vendor: dell, model: PowerEdge R750}" in text
    assert "  sriov: enabled  # SriovGlobalEnable: Enabled" in text
    assert "  MemOpMode: OptimizerMode  # Memory Operating Mode" in text
    assert re.search(r"# Left out as read-only: 1\d\d settings.", text)
    assert "No attribute registry" not in text


def host(name: str, registry: Registry | None = None, **more: Any) -> Captured:
    values: dict[str, Any] = {"bios.Turbo": "Enabled", "bios.Order": 3, "bmc.accounts": ("root",)}
    return Captured(
        host=name,
        at=AT,
        settings=values | more.pop("values", {}),
        registry=registry,
        **{"manufacturer": "Acme", "model": "A1"} | more,
    )


def test_what_differs_is_a_comment_with_hosts(tmp_path: Path) -> None:
    text = text_of(host("a"), host("b", values={"bios.Turbo": "Disabled"}), host("c", values={"bios.Extra": "On"}))
    found = written(tmp_path, text)
    assert [e.setting for e in found.resolved.expectations] == ["bios.Order", "bmc.accounts"]
    assert "#   bios.Turbo\n#     Enabled: a, c\n#     Disabled: b\n" in text
    assert "#   bios.Extra\n#     not there: a, b\n#     'On': c\n" in text


def test_machines_of_two_makes_have_no_match(tmp_path: Path) -> None:
    text = text_of(host("a"), host("b", manufacturer="Other", model="B1"))
    assert "# match: these machines have neither vendor nor model in common" in text
    assert written(tmp_path, text).profile.match is None


def test_read_only_and_passwords_are_left_out() -> None:
    registry = Registry(
        id="R",
        source="/r",
        attributes={
            "Turbo": Attribute(name="Turbo", type="Enumeration", read_only=True),
            "Order": Attribute(name="Order", type="Integer"),
            "Pass": Attribute(name="Pass", type="Password"),
        },
    )
    text = text_of(host("a", registry, values={"bios.Pass": "geheim"}), host("b"))
    assert "Turbo" not in text
    assert "geheim" not in text
    assert "Order: 3" in text
    assert "No attribute registry was at hand" in text  # of b


def test_a_machine_that_told_nothing_gives_an_empty_profile(tmp_path: Path) -> None:
    text = text_of(Captured(host="a", at=AT, settings={}))
    assert written(tmp_path, text).resolved.expectations == ()
    assert "a: an unknown machine, BIOS unknown, BMC unknown" in text


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(1 << 40), 1 << 40),
    st.text(max_size=20),
    st.lists(st.text(max_size=8), max_size=3).map(tuple),
)
NAMES = st.one_of(
    st.text(min_size=1, max_size=12).map(lambda n: f"bios.{n}"),
    st.sampled_from(
        ["firmware.bios", "firmware.nic a: b #", "boot.order", "boot.mode", "secure_boot.enabled", "bmc.accounts"]
    ),
    st.sampled_from(
        ["bmc.ntp.servers", "bmc.lockdown", "bmc.protocol.ssh", "hardware.memory.sizes", "hardware.disks.models"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=8), st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_bmc_says_the_text_is_yaml_and_says_the_same(values: dict[str, Any], host_: str, model: str) -> None:
    """Values, names and models are a BMC's words: none of them may end a comment or begin a field."""
    text = text_of(Captured(host=host_, at=AT, settings=values, manufacturer="Acme", model=model))
    found = yaml.safe_load(text) or {}
    assert set(found) <= set(Profile.__struct_fields__)
    raw = found.get("bios_raw", {})
    for name, value in values.items():
        if name.startswith("bios.") and name[5:] in raw:
            assert raw[name[5:]] == (list(value) if isinstance(value, tuple) else value)
    assert set(raw) <= {n[5:] for n in values if n.startswith("bios.")}
