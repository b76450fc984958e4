"""A reimaged switch against what it must be, and against what was around it before."""

from __future__ import annotations

import msgspec
import pytest

from metalimmu.observed.switch import Bond, Neighbour, Pair, Slots, SwitchFacts
from metalimmu.plan.settled import config_hash, differing, lost, wrong
from metalimmu.plan.types import ImageFacts
from metalimmu.wire.manifest import Nos

IMAGE = ImageFacts(
    ref="s@2", digest="d", kind="nos", architecture="x86_64", firmware=(), size=1, all_bytes=1, build_id="b2", nos=Nos("sonic", "2", "", ("*",))
)  # fmt: skip
SPINE = Neighbour(port="Ethernet0", system="spine-1", remote_port="e4")
PAIR = Pair(alive=True, backup=True, link=None, bonds=(Bond(name="bond1", up=True, dual=True),))
NOW = SwitchFacts(
    nos="sonic", version="2", build_id="b2", nos_mode="yes", onie_mode="unknown", links={"Ethernet0": "up", "Ethernet8": "down"},
    neighbours=(SPINE,), pair=PAIR, slots=Slots(current="S-2", next="S-2"),
)  # fmt: skip
BEFORE = msgspec.structs.replace(NOW, version="1", build_id="b1")


def changed(**fields: object) -> SwitchFacts:
    return msgspec.structs.replace(NOW, **fields)


def test_all_is_well() -> None:
    assert wrong(NOW, IMAGE, BEFORE, config=None, slot="S-2") == []
    assert wrong(NOW, IMAGE, None, config=None) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (changed(version="1"), "it runs sonic 1, not sonic 2"),
        (changed(build_id="x"), "its build is x, not b2"),
        (changed(nos_mode="no"), "ONIE's NOS mode is no"),
        (changed(nos_mode="", unknown={"nos_mode": "no such file"}), "no such file, not yes"),
        (changed(onie_mode="install"), "ONIE would install again"),
        (changed(neighbours=()), "neighbours that are missing: Ethernet0 to spine-1 e4"),
        (changed(links={"Ethernet0": "down"}), "ports that were up and are not: Ethernet0"),
        (changed(pair=None), "its pair: it has none"),
        (changed(pair=Pair(alive=False, backup=None, link=None)), "the session with its peer is down"),
        (changed(pair=Pair(alive=True, backup=None, link=None)), "bonds that both carried and do not: bond1"),
        (changed(slots=Slots(current="S-1", next="S-1")), "it runs S-1, not S-2"),
    ],
)
def test_what_is_not(facts: SwitchFacts, words: str) -> None:
    (said,) = wrong(facts, IMAGE, BEFORE, config=None, slot="S-2")
    assert words in said


def test_another_nos_names_its_ports_otherwise() -> None:
    cumulus = msgspec.structs.replace(
        BEFORE,
        nos="cumulus",
        links={"swp1": "up"},
        neighbours=(Neighbour(port="swp1", system="spine-1", remote_port="e4"),),
    )
    assert wrong(NOW, IMAGE, cumulus, config=None) == []
    gone = msgspec.structs.replace(cumulus, neighbours=(Neighbour(port="swp1", system="spine-9"),))
    assert wrong(NOW, IMAGE, gone, config=None) == ["neighbours that are missing: spine-9"]


def test_a_config_that_stays_where_it_is_may_lose_nothing_in_an_upgrade() -> None:
    before = '{"VLAN": {"Vlan10": {"vlanid": "10"}}, "BUFFER": {"p": {"size": "[A|x]"}}, "VERSIONS": {"DATABASE": {"VERSION": "1"}}}'
    assert (
        lost(
            before,
            '{"BUFFER": {"p": {"size": "[A|x]"}}, "VERSIONS": {"DATABASE": {"VERSION": "1"}}, "VLAN": {"Vlan10": {"vlanid": "10"}}}',
        )
        == []
    )
    assert lost(before, before.replace('"10"}', '"11"}')) == [
        "its config is not the one from before in: VLAN|Vlan10|vlanid"
    ]
    migrated = before.replace('"1"', '"2"').replace("[A|x]", "x")
    assert lost(before, migrated) == []  # it says that it has brought it to another schema
    assert lost(before, migrated.replace("VLAN", "OTHER")) == ["its config is not the one from before in: VLAN"]
    assert lost(before, "") == ["its config is gone, or cannot be read"]
    assert lost("set a\n", "set b") == ["its config is not the one from before"]
    assert wrong(NOW, IMAGE, BEFORE, config=None, kept=before) == ["its config is gone, or cannot be read"]
    assert config_hash('{"a": 1, "b": 2}') == config_hash('{"b":2,"a":1}') != config_hash("")


def test_config_places_are_said_and_values_never() -> None:
    served = '{"A": {"x": "secret", "y": 1}, "B": {}}'
    assert differing(served, '{"B": {}, "A": {"y": 1, "x": "secret", "own": 2}, "MORE": 1}') == []
    assert differing(served, '{"A": {"x": "other"}}') == ["its config differs in: A|x, A|y, B"]
    assert differing(served, "") == ["its config cannot be read"]
    assert "no JSON" in differing(served, "{")[0]
