"""The attribute registry of each recorded machine: found, parsed and judged. Counts are those of the real documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from subjects import recordings

from metalimmu.bmc.ask import Ask, Reply, drive
from metalimmu.bmc.recording import Recording
from metalimmu.bmc.registry_places import read
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.lint import Wanted, lint

FOUND = {path.stem: path for path in recordings()}
pytestmark = pytest.mark.skipif(
    not FOUND, reason="METALIMMU_RECORDINGS is not set: recordings of real machines are not read"
)


class Facts(NamedTuple):
    bios: str
    make: str
    entries: int
    attributes: int
    dependencies: int
    source: str
    own: int  # values of the machine that are in the registry
    trusted: bool = True
    doubted: tuple[str, ...] = ()
    duplicates: int = 0
    unlisted: tuple[str, ...] = ()  # attributes that the machine has and the registry has not


FACTS = {
    "dell-poweredge-r750-idrac9": Facts(
        "/redfish/v1/Systems/System.Embedded.1/Bios",
        "Dell Inc.",
        682,
        682,
        588,
        "/redfish/v1/Systems/System.Embedded.1/Bios/BiosRegistry",
        455,
        # These three were blackened when the recording was made.
        doubted=("PasswordStatus", "SHA256SetupPassword", "SHA256SetupPasswordSalt"),
    ),
    "hpe-dl360-gen10plus-ilo5": Facts(
        "/redfish/v1/systems/1/bios/",
        "HPE",
        552,
        552,
        937,
        "/redfish/v1/registrystore/registries/en/biosattributeregistryu46.v1_2_34",
        276,
    ),
    "hpe-dl380a-gen12-ilo7": Facts(
        "/redfish/v1/systems/1/bios/",
        "HPE",
        844,
        844,
        785,
        "/redfish/v1/registrystore/registries/en/biosattributeregistryu72.v1_1_34",
        348,
        unlisted=("IntelProcVtd", "OcpAAuxiliaryPower"),
    ),
    "lenovo-sr670v2-xcc": Facts(
        "/redfish/v1/Systems/1/Bios",
        "Lenovo",
        353,
        348,
        95,
        "/redfish/v1/schemas/registries/BiosAttributeRegistry.1.0.0.json",
        348,
        duplicates=5,
    ),
    "supermicro-sys821ge-x13": Facts(
        "/redfish/v1/Systems/1/Bios",
        "Supermicro",
        495,
        495,
        350,
        "/registries/BiosAttributeRegistry.1.0.0.json",
        379,
        trusted=False,
    ),
    "nvidia-gb200-openbmc": Facts(
        "/redfish/v1/Systems/System_0/Bios",
        "NVIDIA",
        403,
        403,
        0,
        "/redfish/v1/Registries/BiosAttributeRegistry/BiosAttributeRegistry",
        403,
        doubted=("Socket0UPHY2config", "Socket1UPHY2config"),
    ),
}


def own(recording: Recording, facts: Facts) -> tuple[str, dict[str, Any]]:
    bios = recording.get(facts.bios).document()
    return bios.get("AttributeRegistry") or "", bios["Attributes"]


def registry(recording: Recording, facts: Facts, make: str | None = None) -> Registry | Unknown:
    declared, current = own(recording, facts)
    recording.asked.clear()
    return drive(
        read(facts.bios, declared=declared, make=facts.make if make is None else make, current=current), recording.reply
    )


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("known", [True, False], ids=["known-place", "searched"])
def test_registry(name: str, known: bool) -> None:
    """Found with one request where the make is known, and by the collection where nobody has seen it."""
    facts = FACTS[name]
    recording = Recording.open(FOUND[name])
    found = registry(recording, facts, make=None if known else "")
    assert isinstance(found, Registry)
    assert (found.entries, len(found.attributes), len(found.dependencies)) == facts[2:5]
    assert found.source.casefold() == facts.source.casefold()
    assert len(recording.asked) == (1 if known else 3)
    assert len(found.duplicates) == facts.duplicates
    _, current = own(recording, facts)
    assert sum(n in found.attributes for n in current) == facts.own
    assert tuple(sorted(n for n in current if n not in found.attributes)) == facts.unlisted
    assert found.trusted is facts.trusted
    assert bool(found.why_not) is not facts.trusted
    assert tuple(sorted(found.doubted)) == facts.doubted


def test_what_is_not_trusted_says_by_how_much() -> None:
    found = registry(Recording.open(FOUND["supermicro-sys821ge-x13"]), FACTS["supermicro-sys821ge-x13"])
    assert isinstance(found, Registry)
    assert "332 of 358" in found.why_not  # 379 but for 21 without a value: null
    assert "ordinals" in found.why_not
    nobody = registry(Recording.open(FOUND["supermicro-sys821ge-x13"]), FACTS["supermicro-sys821ge-x13"], make="")
    assert isinstance(nobody, Registry)
    assert not nobody.trusted


def test_a_secret_is_not_in_the_reason() -> None:
    """A doubted text may be a password's hash."""
    found = registry(Recording.open(FOUND["dell-poweredge-r750-idrac9"]), FACTS["dell-poweredge-r750-idrac9"])
    assert isinstance(found, Registry)
    assert "REDACTED" not in found.doubted["SHA256SetupPassword"]


@pytest.mark.parametrize("name", FACTS)
def test_types_and_bounds_are_read(name: str) -> None:
    found = registry(Recording.open(FOUND[name]), FACTS[name])
    assert isinstance(found, Registry)
    kinds = {a.type for a in found.attributes.values()}
    assert kinds <= {"Enumeration", "String", "Integer", "Boolean", "Password"}
    for attribute in found.attributes.values():
        if attribute.type == "Enumeration":
            assert attribute.choices, attribute.name
        if attribute.lower is not None and attribute.upper is not None:
            assert attribute.lower <= attribute.upper
    assert any(a.help for a in found.attributes.values())


@pytest.mark.parametrize("name", FACTS)
def test_a_machine_passes_its_own_registry(name: str) -> None:
    """What a machine has, without what nobody can set, is no error: neither a value nor a dependency."""
    recording = Recording.open(FOUND[name])
    found = registry(recording, FACTS[name])
    assert isinstance(found, Registry)
    _, current = own(recording, FACTS[name])
    report = lint(settable(found.attributes, current), found, current=current)
    assert report.checked > 200
    assert [str(r) for r in report.remarks if r.severity == "error"] == []
    assert not report.order.matters or name == "supermicro-sys821ge-x13"  # conditions on what its menu does not show
    assert not report.order.cycles


def settable(attributes: Mapping[str, Attribute], current: Mapping[str, Any]) -> list[Wanted]:
    return [
        Wanted(attribute=n, values=(v,), field=n)
        for n, v in current.items()
        if v is not None and n in attributes and not attributes[n].read_only and attributes[n].type != "Password"
    ]


@pytest.mark.parametrize("name", ["dmtf-public-rackmount1", "supermicro-x10sdv-redfish101"])
def test_machines_without_a_registry_say_so(name: str) -> None:
    recording = Recording.open(FOUND[name])
    found = drive(read("/redfish/v1/Systems/1/Bios", declared="", make="Contoso", current={}), recording.reply)
    assert isinstance(found, Unknown)
    assert found.reason is Reason.not_modelled
    assert len(recording.asked) <= 6


def test_a_registry_that_is_broken_is_unknown_and_not_an_error() -> None:
    name = "nvidia-gb200-openbmc"
    recording = Recording.open(FOUND[name])

    def truncated(ask: Ask) -> Reply:
        reply = recording.reply(ask)
        broken = "BiosAttributeRegistry/BiosAttributeRegistry" in ask.uri
        return Reply(reply.status, reply.headers, reply.body[:5000]) if broken else reply

    found = drive(read(FACTS[name].bios, declared="", make="NVIDIA", current={}), truncated)
    assert isinstance(found, Unknown)
    assert found.reason is Reason.broken
