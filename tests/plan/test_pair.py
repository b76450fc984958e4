"""May a switch of a pair go? One thing wrong at a time."""

from __future__ import annotations

import msgspec
import pytest

from metalimmu.observed.switch import Bond, Pair, SwitchFacts
from metalimmu.plan.pair import Around, findings, text, warnings, wrong

BONDS = (Bond(name="bond1", up=True, dual=True), Bond(name="bond2", up=True, dual=True))
PAIR = Pair(alive=True, backup=True, link=True, bonds=BONDS)
FACTS = SwitchFacts(nos="sonic", version="1", controller_port="eth0", traffic="normal", pair=PAIR)
AROUND = Around(name="leaf-1", peer="leaf-2", facts=FACTS, peer_facts=FACTS)


def change(**fields: object) -> Around:
    return msgspec.structs.replace(AROUND, **fields)


def pair(**fields: object) -> SwitchFacts:
    return msgspec.structs.replace(FACTS, pair=msgspec.structs.replace(PAIR, **fields))


def test_a_pair_that_is_well_may_lose_one() -> None:
    assert wrong(findings(AROUND)) == ()


DOWN = (Bond(name="bond1", up=False, dual=False), BONDS[1])


@pytest.mark.parametrize(
    ("around", "words"),
    [
        (change(peer_facts=None, peer_why="timed out"), "pair.peer: no answer (timed out)"),
        (change(peer_facts=pair(alive=False)), "leaf-2's session is down"),
        (change(peer_facts=pair(backup=False)), "leaf-2's backup link is down"),
        (change(peer_facts=pair(link=False)), "leaf-2's peer link is down"),
        (change(facts=pair(alive=False)), "its own session is down"),
        (change(facts=pair(backup=False)), "its own backup link is down"),
        (change(peer_facts=pair(bonds=DOWN)), "pair.bonds: down: bond1"),
        (change(peer_facts=pair(bonds=BONDS[1:])), "pair.bonds: unknown to it: bond1"),
        (change(peer_facts=pair(bonds=())), "pair.bonds: unknown to it: bond1, bond2"),
        (change(peer_facts=pair(backup=None)), "leaf-2's backup link is not said"),
        (change(facts=pair(backup=None)), "its own backup link is not said"),
        (change(peer_serial="B2"), "the serial of what answers as leaf-2 is not said, not B2"),
        (change(peer_serial="B2", peer_facts=msgspec.structs.replace(FACTS, serial="A1")), "is A1, not B2"),
        (change(peer_base_mac="02:00:00:00:00:02", peer_facts=msgspec.structs.replace(FACTS, base_mac="02:00:00:00:00:01")), "the base MAC of what answers as leaf-2 is 02:00:00:00:00:01"),
        (change(peer_facts=msgspec.structs.replace(FACTS, pair=None, unknown={"pair": "exit 1"})), "pair.session: unknown (exit 1)"),
        (change(facts=msgspec.structs.replace(FACTS, pair=None)), "pair.own: unknown (it has none)"),
        (change(peer_facts=msgspec.structs.replace(FACTS, traffic="maintenance")), "pair.traffic: maintenance"),
        (change(peer_busy="run 7 of bob"), "pair.run: run 7 of bob"),
        (change(peer_quarantine="back: timed out"), "pair.state: quarantine: back: timed out"),
        (change(facts=msgspec.structs.replace(FACTS, controller_port="Ethernet0")), "path: Ethernet0"),
        (change(facts=msgspec.structs.replace(FACTS, controller_port="")), "path: unknown"),
        (change(controller_leaves=("leaf-1",)), "the controller hangs on leaf-1 alone"),
        (change(peer=None), "pair: a session with a peer"),
        (change(facts=None, peer_facts=pair(bonds=DOWN)), "down: bond1"),
    ],
)  # fmt: skip
def test_what_forbids_it(around: Around, words: str) -> None:
    assert words in text(wrong(findings(around)))


@pytest.mark.parametrize(
    "around",
    [
        change(controller_leaves=("leaf-1", "leaf-2")),
        change(facts=pair(bonds=DOWN), peer_facts=pair(bonds=DOWN)),  # this one does not carry that bond either
        change(facts=pair(backup=None, has_backup=False, link=None)),  # this NOS has none
        change(facts=pair(bonds=(*BONDS, Bond(name="bond9", up=True, dual=False)))),  # of a host that hangs on it alone
        change(peer_serial="b2", peer_base_mac="02:00:00:00:00:02", peer_facts=msgspec.structs.replace(FACTS, serial="B2", base_mac="02:00:00:00:00:02")),
        change(peer=None, facts=msgspec.structs.replace(FACTS, pair=None)),
        change(facts=None, peer_facts=pair(alive=False)),  # of a switch that is gone nobody has a session
        change(facts=None, idle=True, peer_facts=None, peer_why="never installed"),
    ],
)  # fmt: skip
def test_what_does_not(around: Around) -> None:
    assert wrong(findings(around)) == ()


def test_two_idle_switches_of_a_pair_do_not_go_at_once() -> None:
    assert wrong(findings(change(facts=None, idle=True, peer_busy="run 7")))


def test_who_is_cut_off_is_said() -> None:
    single = Bond(name="bond9", up=True, dual=False)
    said = warnings(change(single_homed=("db-1", "db-2"), peer_facts=pair(bonds=(*BONDS, single))))
    assert said == [
        "cut off while it is reimaged, since they hang on it alone: db-1, db-2",
        "bonds that only leaf-2 carries already: bond9",
    ]
    assert warnings(change(facts=pair(bonds=(*BONDS, single)))) == [
        "cut off while it is reimaged, bonds that it alone carries: bond9"
    ]
    assert "all that hangs on it is cut off" in warnings(change(peer=None))[0]
