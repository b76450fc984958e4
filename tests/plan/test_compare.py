"""A machine against its profile: small documents (`compare_cases.yaml`), and what holds for any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.desired import profiles
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import ComponentMatch, Expectation, Op, Profile, ResolvedProfile
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.snapshot import FirmwareItem, Job, Snapshot
from metalimmu.observed.types import Component, PowerState, Reason, SystemIdentity, Unknown
from metalimmu.plan.compare import compare
from metalimmu.plan.types import Finding, Word
from metalimmu.plan.values import equal

CASES = yaml.safe_load(Path(__file__).with_name("compare_cases.yaml").read_text())
NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC

SOURCES = {name: f"/{name}" for name in ("bios", "firmware", "boot", "secure_boot", "bmc", "hardware", "cabling")}


def observed(fields: dict[str, Any]) -> Snapshot:
    identity = fields.get("identity", {})
    if identity.get("type") != "unknown":
        identity = {"system_id": "1", "uri": "/redfish/v1/Systems/1", **identity}
    firmware = fields.get("firmware", [])
    if isinstance(firmware, list):
        firmware = [{**i, "component": {"id": "", "name": "", **i.get("component", {})}} for i in firmware]
    return Snapshot(
        host="h",
        at=1000.0,
        identity=known(identity, SystemIdentity),
        bmc={},
        power=known(fields.get("power", "On"), PowerState),
        settings={k: tuple(v) if isinstance(v, list) else v for k, v in fields.get("settings", {}).items()},
        staged={k: tuple(v) if isinstance(v, list) else v for k, v in fields.get("staged", {}).items()},
        unknown=msgspec.convert(fields.get("unknown", {}), dict[str, Unknown]),
        waiting=tuple(fields.get("waiting", ())),
        jobs=known(fields.get("jobs", []), tuple[Job, ...]),
        firmware=known(firmware, tuple[FirmwareItem, ...]),
        sources=fields.get("sources", SOURCES),
    )


def known(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, Unknown if isinstance(value, dict) and value.get("type") == "unknown" else kind)


def registry(attributes: dict[str, Any]) -> Registry:
    found = {name: msgspec.convert({"name": name, **a}, Attribute) for name, a in attributes.items()}
    return Registry(id="r", source="/r", attributes=found)


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_case(case: dict[str, Any]) -> None:
    profile = profiles.resolve({"p": msgspec.convert(case["want"], Profile)}, "p")
    attributes = case.get("registry")
    findings = compare(
        profile,
        observed(case["observed"]),
        neutral=neutral(),
        registry=registry(attributes) if attributes else None,
        now=NOW,
    )
    by = {f.setting: f for f in findings}
    assert len(by) == len(findings)
    assert {s: f.word for s, f in by.items()} == {
        s: Word(e["word"] if isinstance(e, dict) and "word" in e else e) for s, e in case["expect"].items()
    }, [f.reason for f in findings]
    for setting, expect in case["expect"].items():
        for field, value in expect.items() if isinstance(expect, dict) else ():
            found = getattr(by[setting], field)
            if field == "reason" and value:
                assert value in found
            elif field == "reason":
                assert found == ""
            else:
                assert found == value


# What holds for any machine and any profile.

NAMES = st.sampled_from(
    ["bios.A", "bios.B", "bios.X_1234", "bios.X_5678", "bios.SriovGlobalEnable", "bios.ProcVirtualization", "boot.order", "boot.mode",
     "secure_boot.enabled", "bmc.accounts", "bmc.account.x.role", "bmc.certificate.not_after", "hardware.disks.sizes", "firmware.bios", "firmware.x"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.sampled_from(["", "Enabled", "enabled", "5", "x", "1.8.2", "2030-01-01T00:00:00Z"]), st.text(max_size=5)
)  # fmt: skip
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(tuple))
UNKNOWN = st.builds(Unknown, st.sampled_from(list(Reason)), st.text(max_size=5))
ITEMS = st.builds(
    FirmwareItem,
    key=st.sampled_from(["bios", "x", "y"]),
    version=st.sampled_from(["1.8.2", "", "HPG3", "2.0"]),
    component=st.builds(
        Component, id=st.just("i"), name=st.sampled_from(["BIOS", ""]), detail=st.just({"device": "d"})
    ),
    ambiguous=st.integers(1, 3),
    running=st.booleans(),
)
JOBS = st.builds(Job, id=st.just("1"), name=st.text(max_size=3), state=st.sampled_from(["Running", "New", ""]), about=st.sampled_from(["bios", "firmware", "other"]))  # fmt: skip
SNAPSHOTS = st.builds(
    Snapshot,
    host=st.just("h"),
    at=st.just(1.0),
    identity=st.one_of(
        UNKNOWN,
        st.sampled_from(["Dell Inc.", "Supermicro", "Contoso", ""]).map(
            lambda m: SystemIdentity("1", "/", manufacturer=m)
        ),
    ),
    bmc=st.one_of(UNKNOWN, st.just({"model": "OpenBmc"})),
    power=st.one_of(UNKNOWN, st.sampled_from(list(PowerState))),
    settings=st.dictionaries(NAMES, VALUES, max_size=8),
    unknown=st.dictionaries(st.sampled_from(["bios", "bmc", "firmware", "boot.order"]), UNKNOWN, max_size=2),
    staged=st.dictionaries(NAMES, VALUES, max_size=3),
    jobs=st.one_of(UNKNOWN, st.lists(JOBS, max_size=2).map(tuple)),
    firmware=st.one_of(UNKNOWN, st.lists(ITEMS, max_size=4).map(tuple)),
)
OPS: tuple[Op, ...] = Op.__args__  # type: ignore[attr-defined]
EXPECTATIONS = st.builds(
    Expectation,
    setting=st.one_of(
        NAMES, st.sampled_from(["neutral.sriov", "neutral.boot_mode", "neutral.nothing", "nothing.x", "bios.X", "x"])
    ),
    op=st.sampled_from(OPS),
    value=VALUES,
    component=st.one_of(st.none(), st.just(ComponentMatch(name="*b*")), st.just(ComponentMatch(device="d"))),
    severity=st.sampled_from(["info", "critical"]),
)
REGISTRY = registry({"A": {"type": "Integer"}, "B": {"type": "Boolean", "read_only": True}})


def found_in(expectations: list[Expectation], snapshot: Snapshot, known: Registry | None = None) -> tuple[Finding, ...]:
    profile = ResolvedProfile(name="p", chain=("p",), expectations=tuple(expectations))
    return compare(profile, snapshot, neutral=neutral(), registry=known, now=NOW)


@settings(max_examples=1500, deadline=None)
@given(EXPECTATIONS, SNAPSHOTS, st.one_of(st.none(), st.just(REGISTRY)))
def test_an_expectation_always_gives_a_finding(want: Expectation, snapshot: Snapshot, known: Registry | None) -> None:
    findings = found_in([want], snapshot, known)
    assert findings
    for f in findings:
        assert f.word in Word
        assert (f.host, f.at, f.severity) == ("h", 1.0, want.severity)
        assert f.reason or f.word in {Word.match, Word.differs, Word.missing}, "what is not plain has its reason"


@settings(max_examples=500, deadline=None)
@given(st.lists(EXPECTATIONS, max_size=6), SNAPSHOTS)
def test_findings_have_settings_of_their_own_and_nothing_is_lost(wants: list[Expectation], snapshot: Snapshot) -> None:
    together = found_in(wants, snapshot)
    names = [f.setting for f in together]
    assert len(names) == len(set(names))
    alone = [f for want in wants for f in found_in([want], snapshot)]
    assert {f.setting for f in alone} == set(names)
    for f in together:
        same = [a for a in alone if a.setting == f.setting]
        assert f.severity == max((a.severity for a in same), key=["info", "warning", "critical"].index)
        if f.word is Word.match:
            assert all(a.word is Word.match for a in same)


@settings(max_examples=500, deadline=None)
@given(NAMES.filter(lambda n: not n.startswith("firmware") and n != "bmc.accounts"), VALUES, VALUES, SNAPSHOTS)
def test_match_is_equality_when_nothing_waits(name: str, wanted: Any, value: Any, snapshot: Snapshot) -> None:
    quiet = msgspec.structs.replace(
        snapshot, settings={**snapshot.settings, name: value}, staged={}, jobs=(), power=PowerState.on
    )
    (finding,) = found_in([Expectation(setting=name, op="equals", value=wanted)], quiet)
    assert (finding.word is Word.match) == equal(wanted, value)
    assert finding.word in {Word.match, Word.differs}


@settings(max_examples=300, deadline=None)
@given(NAMES.filter(lambda n: not n.startswith("firmware") and n != "bmc.accounts"), VALUES, VALUES, SNAPSHOTS)
def test_no_match_while_something_else_is_staged(name: str, value: Any, pending: Any, snapshot: Snapshot) -> None:
    waiting = msgspec.structs.replace(snapshot, settings={**snapshot.settings, name: value}, staged={name: pending})
    (finding,) = found_in([Expectation(setting=name, op="equals", value=value)], waiting)
    assert (finding.word is Word.match) == equal(value, pending)
    (finding,) = found_in([Expectation(setting=name, op="equals", value=pending)], waiting)
    assert (finding.word is Word.differs) is False, "the right value is on its way"


@settings(max_examples=200)
@given(VALUES, VALUES)
def test_equality_is_the_same_from_both_sides(one: Any, other: Any) -> None:
    for kind in ("", "Integer", "Boolean", "Enumeration"):
        assert equal(one, other, kind) == equal(other, one, kind)
        assert equal(one, one, kind)


def test_the_snapshot_is_read_and_never_changed() -> None:
    case = next(c for c in CASES if c["name"] == "hardware")
    snapshot = observed(case["observed"])
    before = msgspec.json.encode(snapshot)
    profile = profiles.resolve({"p": msgspec.convert(case["want"], Profile)}, "p")
    first = compare(profile, snapshot, neutral=neutral(), now=NOW)
    assert compare(profile, snapshot, neutral=neutral(), now=NOW) == first
    assert msgspec.json.encode(snapshot) == before


def test_profiles_of_one_name_are_not_mixed_up() -> None:
    """What is kept between hosts is kept by the very profile, not by its name."""
    snapshot = observed({"settings": {"bios.A": "x"}})
    words = []
    for value in ("x", "y", "x"):
        profile = profiles.resolve({"p": Profile(bios_raw={"A": value})}, "p")
        words += [f.word for f in compare(profile, snapshot, neutral=neutral(), now=NOW)]
    assert words == [Word.match, Word.differs, Word.match]
