"""The data files about makes, and the comparison, on answers of real machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from subjects import recordings

from metalimmu.bmc.recording import Recording
from metalimmu.bmc.walk import EVERYTHING, walk
from metalimmu.desired.makes import make_of, moving
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Expectation, ResolvedProfile
from metalimmu.desired.versions import order, same
from metalimmu.desired.volatile import volatile
from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import SystemIdentity
from metalimmu.plan.compare import compare
from metalimmu.plan.names import followed
from metalimmu.plan.types import Word

PATHS = {path.stem: path for path in recordings()}

# By recording: neutral keys of its make whose attribute is not there, and why that is right.
NOT_THERE: Mapping[str, set[str]] = {
    "hpe-dl380a-gen12-ilo7": {"x2apic"},  # Gen12 always has it on
}
# Keys whose current value is none of the key's words: `other`. Each is a value that is neither on nor off.
OTHER: Mapping[str, set[str]] = {
    "supermicro-sys821ge-x13": {"sub_numa_clustering"},  # Auto
}


@pytest.fixture(params=[*PATHS] or ["none"])
def name(request: pytest.FixtureRequest) -> str:
    if not PATHS:
        pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
    return str(request.param)


@cache
def snapshot(name: str) -> Snapshot:
    recording = Recording.open(PATHS[name])
    walking = walk(SimpleNamespace(name=name, system=None), EVERYTHING, now=lambda: 1_700_000_000.0)
    reply: Any = None
    while True:
        try:
            reply = recording.reply(walking.send(reply))
        except StopIteration as end:
            found: Snapshot = end.value
            return found


def make(found: Snapshot) -> str:
    assert isinstance(found.identity, SystemIdentity)
    return make_of(found.identity.manufacturer)


def here(found: Snapshot, key: str) -> tuple[Any, str] | None:
    """The place of a key on this machine, and the setting."""
    pattern = moving(make(found))
    for place in neutral().places(key, make(found)):
        names = followed(place.setting, found.settings, pattern) if place.stem and pattern else (place.setting,)
        assert len(names) <= 1, f"{key}: {names} have one stem"
        if names and names[0] in found.settings:
            return place, names[0]
    return None


def test_every_mapped_attribute_is_there_and_its_value_has_a_word(name: str) -> None:
    found = snapshot(name)
    mapped = [k.name for k in neutral().keys.values() if make(found) in k.places]
    if "bios" in found.unknown or not mapped:
        return
    gone = {key for key in mapped if here(found, key) is None}
    assert gone == NOT_THERE.get(name, set())
    places = {key: place for key in mapped if (place := here(found, key))}
    other = {key for key, (place, setting) in places.items() if place.word(found.settings[setting]) is None}
    assert other == OTHER.get(name, set()), {k: found.settings[places[k][1]] for k in other}


def test_every_make_that_ships_data_has_a_recording() -> None:
    if not PATHS:
        pytest.skip("METALIMMU_RECORDINGS is not set: recordings of real machines are not read")
    seen = {make(snapshot(name)) for name in PATHS}
    assert {m for k in neutral().keys.values() for m in k.places} <= seen


MAC = re.compile(r"(?:[0-9A-F]{2}[:-]){5}[0-9A-F]{2}", re.IGNORECASE)
TELLING = re.compile(r"serial.?number|service.?tag|asset.?tag$|mac.?address|uuid$", re.IGNORECASE)
HARMLESS = {"bios.ProcessorUuidControl"}  # a switch


def test_what_identifies_a_machine_is_noise(name: str) -> None:
    found = snapshot(name)
    identity = found.identity
    assert isinstance(identity, SystemIdentity)
    own = {t.casefold() for t in (identity.serial, identity.uuid, identity.asset_tag, identity.sku) if len(t) > 3}
    telling = {
        setting
        for setting, value in found.settings.items()
        if setting.startswith("bios.")
        and (TELLING.search(setting) or (isinstance(value, str) and (MAC.search(value) or value.casefold() in own)))
    }
    left = {s for s in telling - HARMLESS if not volatile().is_noise(s, identity.manufacturer)}
    assert not left


def itself(found: Snapshot) -> ResolvedProfile:
    """A profile that asks for all that the machine has."""
    expectations = [
        Expectation(setting=s, op="equals", value=v) for s, v in found.settings.items() if not s.startswith("firmware.")
    ]
    if isinstance(found.firmware, tuple):
        keys = {i.key: i.version for i in found.firmware if i.running and i.ambiguous == 1}
        expectations += [Expectation(setting=f"firmware.{k}", op="equals", value=v) for k, v in keys.items()]
        expectations += [Expectation(setting=f"firmware.{k}", op="at_least", value=v) for k, v in keys.items()]
    return ResolvedProfile(name="itself", chain=("itself",), expectations=tuple(expectations))


def test_a_machine_is_as_it_is(name: str) -> None:
    """No drift against itself, and every setting has its finding, but for what is staged on DMTF's sample."""
    found = snapshot(name)
    findings = compare(itself(found), found, neutral=neutral(), now=1_700_000_000.0)
    assert {f.setting for f in findings} == {
        f"bmc.account.{', '.join(map(str, found.settings[s]))}" if s == "bmc.accounts" else s  # type: ignore[arg-type]
        for s in found.settings
        if not (s.startswith("firmware.") and isinstance(found.settings[s], tuple))
    } - {f"firmware.{i.key}" for i in found.firmware if i.ambiguous > 1}  # type: ignore[union-attr]
    odd = {f.setting: f.reason for f in findings if f.word is not Word.match}
    assert set(odd) == set(found.staged)
    for finding in findings:
        assert finding.at == 1_700_000_000.0
        assert finding.host == name
        assert finding.source, finding.setting


def test_versions_of_real_machines_have_an_order_with_themselves(name: str) -> None:
    firmware = snapshot(name).firmware
    for item in firmware if isinstance(firmware, tuple) else ():
        assert order(item.version, item.version) == 0
        assert same(item.version, item.component.version) or not item.version or item.key == "bmc", item
