"""Which profile a host gets, and what a profile with all that it extends says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from metalimmu.desired import documents, profiles
from metalimmu.desired.load import load
from metalimmu.desired.profile import ComponentMatch, Expectation, Profile
from metalimmu.desired.resolve import resolve as spec_of
from metalimmu.desired.schema import schema
from metalimmu.desired.types import Document, HostSpec, Match
from metalimmu.errors import SiteError
from metalimmu.observed.types import Reason, SystemIdentity, Unknown


def made(**texts: str) -> dict[str, Profile]:
    return {name: msgspec.convert(yaml.safe_load(text) or {}, Profile) for name, text in texts.items()}


def flat(known: dict[str, Profile], name: str) -> dict[str, Expectation]:
    found = profiles.resolve(known, name)
    assert found.name == name
    assert found.chain[-1] == name
    return {e.setting if e.op not in {"contains", "lacks"} else f"{e.op} {e.value}": e for e in found.expectations}


def test_everything_that_a_profile_can_say() -> None:
    text = """
bios: {sriov: enabled, tpm: {value: [enabled, disabled], because: why}}
bios_raw: {A: 5, "B.c": {value: x, severity: critical, owner: me}}
firmware:
  bios: {exact: "1.8.2"}
  bmc: {at_least: "6.10"}
  nics: {component: {name: "*X*"}, range: {at_least: "1", below: "2"}, because: it hangs}
  disks: {pattern: "HPG[0-9]"}
boot_order: [a, b]
boot_mode: UEFI
secure_boot: true
bmc:
  ntp: {enabled: true, servers: [10.0.0.1, 10.0.0.2]}
  dns: {servers: [10.0.0.3]}
  syslog: {enabled: false}
  accounts: {present: [ops, {name: root, role: Administrator}], absent: [guest], severity: critical}
  certificate: {days_left: 30, issuer: "CN=Our*"}
  lockdown: {value: false}
  protocols: {ssh: false}
hardware:
  processors: {count: 2, model: "*Xeon*"}
  memory: {count: 16, size: 32GiB, total: 512GiB}
  disks: {at_least: 2, size: 480GB, model: "*"}
  nics: {at_least: 1}
  power_supplies: {count: 2}
  cabling: {NIC.1: leaf-1 Ethernet7}
"""
    found = profiles.resolve(made(p=text), "p").expectations
    said = [(e.setting, e.op, e.value) for e in found]
    assert said == [
        ("neutral.sriov", "equals", "enabled"),
        ("neutral.tpm", "one_of", ("enabled", "disabled")),
        ("bios.A", "equals", 5),
        ("bios.B.c", "equals", "x"),
        ("firmware.bios", "equals", "1.8.2"),
        ("firmware.bmc", "at_least", "6.10"),
        ("firmware.nics", "range", ("1", "2")),
        ("firmware.disks", "pattern", "HPG[0-9]"),
        ("boot.order", "starts_with", ("a", "b")),
        ("boot.mode", "equals", "UEFI"),
        ("secure_boot.enabled", "equals", True),
        ("bmc.ntp.enabled", "equals", True),
        ("bmc.ntp.servers", "same_members", ("10.0.0.1", "10.0.0.2")),
        ("bmc.dns.servers", "equals", ("10.0.0.3",)),
        ("bmc.syslog.enabled", "equals", False),
        ("bmc.accounts", "contains", "ops"),
        ("bmc.accounts", "contains", "root"),
        ("bmc.account.root.role", "equals", "Administrator"),
        ("bmc.accounts", "lacks", "guest"),
        ("bmc.certificate.not_after", "days_left", 30),
        ("bmc.certificate.issuer", "glob", "CN=Our*"),
        ("bmc.lockdown", "equals", "Disabled"),
        ("bmc.protocol.ssh", "equals", False),
        ("hardware.processors.count", "equals", 2),
        ("hardware.processors.models", "each_glob", "*Xeon*"),
        ("hardware.memory.count", "equals", 16),
        ("hardware.memory.sizes", "each_equals", 32 << 30),
        ("hardware.memory.total", "equals", 512 << 30),
        ("hardware.disks.count", "at_least", 2),
        ("hardware.disks.sizes", "each_about", 480_000_000_000),
        ("hardware.disks.models", "each_glob", "*"),
        ("hardware.nics.count", "at_least", 1),
        ("hardware.power_supplies.count", "equals", 2),
        ("cabling.NIC.1", "equals", "leaf-1 Ethernet7"),
    ]
    by = {e.setting: e for e in found}
    assert by["firmware.nics"].component == ComponentMatch(name="*X*")
    assert by["firmware.nics"].because == "it hangs"
    assert (by["bios.B.c"].severity, by["bios.B.c"].owner) == ("critical", "me")
    assert by["bmc.account.root.role"].severity == "critical"
    assert {e.profile for e in found} == {"p"}


def test_later_ones_win_setting_by_setting_and_null_takes_out() -> None:
    known = made(
        base='bios_raw: {A: "1", B: "1", C: "1"}\nbmc: {ntp: {enabled: true, servers: [a]}, accounts: {present: [{name: x, role: r}, y]}, protocols: {ssh: false}}\n'
        'hardware: {disks: {count: 2}, cabling: {p: q}}\nfirmware: {bios: {exact: "1"}, bmc: {exact: "1"}}',
        leaf='extends: base\nbios_raw: {B: "2", C: null}\nbmc: {ntp: {servers: [b]}, accounts: {absent: [x]}, protocols: {ssh: null}}\n'
        'hardware: {disks: {at_least: 4}, cabling: {p: null}}\nfirmware: {bios: {at_least: "2"}, bmc: null}',
    )
    found = {k: (e.op, e.value, e.profile) for k, e in flat(known, "leaf").items()}
    assert found == {
        "bios.A": ("equals", "1", "base"),
        "bmc.ntp.enabled": ("equals", True, "base"),
        "contains y": ("contains", "y", "base"),
        "bios.B": ("equals", "2", "leaf"),
        "firmware.bios": ("at_least", "2", "leaf"),
        "bmc.ntp.servers": ("same_members", ("b",), "leaf"),
        "lacks x": ("lacks", "x", "leaf"),
        "hardware.disks.count": ("at_least", 4, "leaf"),
    }


def test_bases_come_first_each_once() -> None:
    known = made(a="bios_raw: {X: a}", b="extends: a\nbios_raw: {X: b}", c="extends: a", d="extends: [b, c]")
    assert profiles.chain(known, "d") == ("a", "b", "c", "d")
    assert flat(known, "d")["bios.X"].value == "b", "a is not said again by way of c"


def test_severity_and_owner_come_from_the_nearest() -> None:
    known = made(
        base="bios_raw: {A: '1', B: {value: '1', severity: info}}",
        loud="extends: base\nseverity: critical\nowner: web\nbios_raw: {C: '1', D: {value: '1', owner: db}}",
        leaf="extends: loud\nseverity: info\nowner: leaf\nbios_raw: {E: '1'}",
    )
    found = {k: (e.severity, e.owner) for k, e in flat(known, "leaf").items()}
    assert found == {
        "bios.A": ("info", "leaf"),  # base says nothing of it: the one that was asked for does
        "bios.B": ("info", "leaf"),
        "bios.C": ("critical", "web"),
        "bios.D": ("critical", "db"),
        "bios.E": ("info", "leaf"),
    }
    assert flat(known, "base")["bios.A"].severity == "warning"


def test_what_cannot_be_resolved_is_said() -> None:
    known = made(a="extends: b", b="extends: [c]", c="extends: a", d="extends: aa")
    with pytest.raises(SiteError, match="a -> b -> c -> a"):
        profiles.resolve(known, "a")
    with pytest.raises(SiteError, match="'aa', which d extends") as caught:
        profiles.resolve(known, "d")
    assert "write a" in caught.value.hint
    with pytest.raises(SiteError, match="no profile 'nobody'"):
        profiles.resolve({}, "nobody")


def test_lines_of_where_it_stands() -> None:
    text = b"# one\nbios:\n  sriov: enabled\nfirmware:\n  bios:\n    exact: '1'\nbmc:\n  accounts:\n    present:\n    - ops\n"
    problems: list[Any] = []
    source, value = documents.parse("profiles/p.yaml", text, problems)
    known = {"p": msgspec.convert(value, Profile)}
    found = profiles.resolve(known, "p", lines={"p": source.key_line}).expectations
    assert [(e.setting, e.line) for e in found] == [("neutral.sriov", 3), ("firmware.bios", 5), ("bmc.accounts", 10)]


SPEC: dict[str, Any] = {
    "name": "web-1", "bmc": "fake://x", "system": None, "serial": None, "credentials": None, "tls": {}, "proxy": None,
    "connect_timeout": 1.0, "read_timeout": 1.0, "mode": "read-only", "nics": [], "network": {}, "role": None, "pool": "front",
    "image": None, "digest": None, "held": None, "boot": "auto", "firmware": "uefi", "ramdisk": "lab", "root_disk": {},
    "wipe_signatures": False, "proof": {}, "templates": {}, "vars": {}, "labels": {"tier": "front", "rack": "r1"},
    "protected": False, "limits": {},
}  # fmt: skip
R750 = SystemIdentity("1", "/s", manufacturer="Dell Inc.", model="PowerEdge R750")


def spec(**changed: Any) -> HostSpec:
    return msgspec.convert({**SPEC, **changed}, HostSpec)


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ({}, None),
        ({"hpe": {"vendor": "hpe"}}, None),
        ({"all": {}}, "all"),
        ({"all": {}, "dell": {"vendor": "dell"}}, "dell"),
        ({"dell": {"vendor": "DELL"}, "r750": {"vendor": "Dell Inc.", "model": "poweredge r750"}}, "r750"),
        ({"family": {"vendor": "dell", "model": "PowerEdge R7*"}, "r750": {"vendor": "dell", "model": "PowerEdge R750"}}, "r750"),
        ({"family": {"model": "PowerEdge*"}, "other": {"model": "ProLiant*"}}, "family"),
        ({"tier": {"labels": {"tier": "front", "rack": "r1"}}, "dell": {"vendor": "dell"}}, "tier"),
        ({"tier": {"labels": {"tier": "back"}}, "pool": {"pool": "front"}}, "pool"),
        ({"role": {"role": "web"}, "name": {"name": "web-*"}}, "name"),
    ],
)  # fmt: skip
def test_the_most_specific_match_is_taken(matches: dict[str, Any], expected: str | None) -> None:
    known = {name: Profile(match=msgspec.convert(match, Match)) for name, match in matches.items()}
    assert profiles.select(known, spec(), R750) == expected


def test_equally_specific_ones_are_refused_and_both_named() -> None:
    known = {
        "one": Profile(match=Match(vendor="dell")),
        "two": Profile(match=Match(pool="front")),
        "all": Profile(match=Match()),
    }
    with pytest.raises(SiteError, match="web-1: profiles one, two fit equally well"):
        profiles.select(known, spec(), R750)


def test_the_role_decides_before_any_match() -> None:
    assert profiles.select({"dell": Profile(match=Match(vendor="dell"))}, spec(profile="other"), R750) == "other"


def test_without_the_machine_the_document_is_asked() -> None:
    known = {"dell": Profile(match=Match(vendor="dell", model="R750"))}
    gone = Unknown(Reason.unreachable)
    assert profiles.select(known, spec(vendor="Dell", labels={"model": "r750"}), gone) == "dell"
    assert profiles.select(known, spec(vendor="Dell", labels={"model": "r750"}), None) == "dell"
    assert profiles.select(known, spec(), gone) is None
    assert profiles.select(known, spec(vendor="hpe"), SystemIdentity("1", "/", "Dell", "R750")) == "dell", (
        "it knows better"
    )


def test_a_site_has_its_own_and_those_that_ship(make_site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Profile(match=Match(vendor="dell"), boot_mode="UEFI")
    monkeypatch.setattr("metalimmu.desired.load.shipped", lambda: {"base": ours, "mine": ours})
    folder = make_site(
        {
            "profiles/mine.yaml": "match: {vendor: hpe}\n",
            "profiles/other.yaml": "extends: base\n",
            "roles/web.yaml": "image: web@1\nprofile: base\n",
            "hosts/a.yaml": "- {name: a, bmc: 'redfish+https://10.0.0.1', role: web, vendor: dell}\n- {name: b, bmc: 'redfish+https://10.0.0.2'}\n",
        }
    )
    docs = load(folder)
    assert set(docs.profiles) == {"base", "mine", "other"}
    assert docs.profiles["base"] == Profile(boot_mode="UEFI"), "what ships is never chosen by itself"
    assert docs.profiles["mine"].match == Match(vendor="hpe"), "the site's own wins"
    assert docs.files["profile", "mine"] == "profiles/mine.yaml"
    assert ("profile", "base") not in docs.files
    assert [e.setting for e in profiles.resolve(docs.profiles, "other").expectations] == ["boot.mode"]
    assert (spec_of(docs, "a", root=folder).profile, spec_of(docs, "a", root=folder).vendor) == ("base", "dell")
    assert spec_of(docs, "b", root=folder).profile is None


def test_what_ships_can_be_resolved() -> None:
    for name in profiles.shipped():
        assert profiles.resolve(profiles.shipped(), name).expectations


def test_the_schema_helps_an_editor_with_neutral_keys() -> None:
    definition = schema("profile")["$defs"]["Profile"]
    assert definition["properties"]["bios"]["properties"]["sriov"]["description"].endswith(": enabled, disabled")
    assert definition["properties"]["match"], "no field is lost"


def test_no_document_has_a_type_that_crashes_msgspec() -> None:
    """msgspec 0.22.0 frees a union of a str with a pattern and a list or mapping wrongly: the process ends with a
    segmentation fault some conversions later, in other code.
    """
    dangerous = []
    for kind in below(Document):
        for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            types = [
                getattr(t, "type", t) if isinstance(t, inspect.Metadata) else t
                for t in getattr(field.type, "types", ())
            ]
            constrained = any(isinstance(t, inspect.StrType) and t.pattern for t in types)
            if constrained and any(isinstance(t, inspect.ListType | inspect.DictType) for t in types):
                dangerous.append(f"{kind.__name__}.{field.name}")
    assert not dangerous


def below(kind: type[Document]) -> Iterator[type[Document]]:
    for one in kind.__subclasses__():
        yield one
        yield from below(one)
