"""Which deployment is the machine that asks? Cases, and what holds for all of them."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.boot.select import Asker, Offer, asker, choose, keys, offer_keys

UUID = "4c4c4544-0058-4b10-8032-b7c04f503133"
SWAPPED = str(uuid.UUID(bytes_le=uuid.UUID(UUID).bytes))
MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
ONE = Offer("d1", "node-1", (MAC,), UUID, "SN1", 5)
TWO = Offer("d2", "node-2", (OTHER_MAC,), str(uuid.uuid4()), "SN2", 6)


@pytest.mark.parametrize(
    ("machine", "wins", "why"),
    [
        (asker(MAC, UUID, "SN1"), "d1", "serial number and UUID and MAC"),
        (asker(MAC), "d1", "by MAC"),
        (asker("", UUID), "d1", "by UUID"),
        (asker("", SWAPPED.upper()), "d1", "by UUID"),
        (asker("", "", " sn1 "), "d1", "by serial number"),
        (asker("52-54-00-00-00-01"), "d1", "by MAC"),
        (asker("525400000001"), "d1", "by MAC"),
        (asker("52:54:00:00:00:99", UUID), "d1", "by UUID"),  # booted from a NIC that no document names
        (asker("52:54:00:00:00:99"), None, "no deployment is for it"),
        (asker("", "", "Default string"), None, "does not say who it is"),
        (asker("", "00000000-0000-0000-0000-000000000000"), None, "does not say who it is"),
        (asker("00:00:00:00:00:00", "x", "0000"), None, "does not say who it is"),
    ],
)
def test_one_offer(machine: Asker, wins: str | None, why: str) -> None:
    found = choose(machine, [ONE, TWO])
    assert (found.offer.deployment if found.offer else None) == wins
    assert why in found.why
    assert not found.conflict


@pytest.mark.parametrize(
    "machine", [asker(MAC, str(uuid.uuid4())), asker(MAC, "", "SN-other"), asker(MAC, UUID, "SN-other")]
)
def test_a_copied_mac_is_not_the_machine(machine: Asker) -> None:
    found = choose(machine, [ONE, TWO])
    assert found.offer is None
    assert found.conflict
    assert "node-1 has another" in found.why


def test_what_a_stranger_says_is_no_second_line_of_a_log() -> None:
    said = asker("", f"{{\n{UUID[1:]}}}", "SN1\r\n2026 all is well\x1b[2J")
    assert (said.serial, said.uuid) == ("SN12026 all is well[2J", "")
    assert asker("", "", "\x1b\n") == Asker()


def test_the_copy_gets_its_own_deployment_and_the_machine_its_own() -> None:
    copy = Offer("d3", "node-3", (MAC,), str(uuid.uuid4()), "SN3", 9)
    assert choose(asker(MAC, copy.uuid, "SN3"), [ONE, copy]).offer is copy
    assert choose(asker(MAC, UUID, "SN1"), [copy, ONE]).offer is ONE


def test_two_hosts_with_one_mac_and_nothing_else_said() -> None:
    copy = Offer("d3", "node-3", (MAC,), "", "", 9)
    found = choose(asker(MAC), [ONE, copy])
    assert (found.offer, found.conflict) == (None, True)
    assert "node-1 or node-3" in found.why


def test_more_agreement_wins_then_serial_before_uuid_before_mac() -> None:
    by_two = Offer("a", "a", (MAC,), UUID, "", 1)
    by_serial = Offer("b", "b", (), "", "SN1", 9)
    assert choose(asker(MAC, UUID, "SN1"), [by_two, by_serial]).offer is by_two
    by_uuid, by_mac = Offer("c", "c", (), UUID, "", 9), Offer("d", "d", (MAC,), "", "", 99)
    assert choose(asker(MAC, UUID, "SN1"), [by_mac, by_uuid, by_serial]).offer is by_serial
    assert choose(asker(MAC, UUID, "SN1"), [by_mac, by_uuid]).offer is by_uuid


def test_of_one_host_the_newest_fence() -> None:
    newer = Offer("d9", "node-1", (MAC,), UUID, "SN1", 7)
    assert choose(asker(MAC), [newer, ONE]).offer is newer
    assert choose(asker(MAC), [ONE, newer]).offer is newer


MACS = st.sampled_from(["", MAC, OTHER_MAC, "52:54:00:00:00:03"])
UUIDS = st.sampled_from(["", UUID, SWAPPED, str(uuid.UUID(int=7)), str(uuid.UUID(int=0))])
SERIALS = st.sampled_from(["", "SN1", "sn1", "SN2", "Default string"])
OFFERS = st.builds(
    Offer,
    st.uuids().map(str),
    st.sampled_from(["node-1", "node-2", "node-3"]),
    st.lists(MACS.filter(bool), max_size=2).map(tuple),
    UUIDS,
    SERIALS,
    st.integers(1, 9),
)


@settings(max_examples=300, deadline=None)
@given(MACS, UUIDS, SERIALS, st.lists(OFFERS, max_size=5), st.randoms())
def test_for_all(mac: str, uuid_: str, serial: str, offers: list[Offer], shuffled) -> None:
    machine = asker(mac, uuid_, serial)
    found = choose(machine, offers)
    again = list(offers)
    shuffled.shuffle(again)
    assert choose(machine, again) == found  # the order of offers does not matter
    agreeing = [o for o in offers if offer_keys(o) & set(keys(machine))]
    assert choose(machine, agreeing) == found  # an index by keys loses nothing
    if found.offer is not None:
        assert offer_keys(found.offer) & set(keys(machine))
        assert choose(machine, [found.offer]).offer is found.offer
