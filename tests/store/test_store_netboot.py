"""Offers and discovered machines."""

from __future__ import annotations

import pytest
from store_rig import deployment

from metalimmu.boot.ports import Asked, Sighting
from metalimmu.store import netboot
from metalimmu.store.records import Beat
from metalimmu.wire.messages import Failure

MAC = "52:54:00:00:00:01"


def test_an_offer_is_what_a_machine_needs_to_be_known(store):
    store.add_deployment(deployment("d1"))
    assert store.offers() == []
    store.update_deployment("d1", offered=5.0, method="pxe")
    (offer,) = store.offers()
    assert (offer.deployment, offer.host, offer.fence, offer.image) == ("d1", "n1", 1, "web@1")
    assert (offer.nics, offer.serial, offer.uuid, offer.asked, offer.offered) == ((MAC,), "SN1", "", 0, 5.0)
    assert store.deployment("d1").method == "pxe"


@pytest.mark.parametrize(
    "fields",
    [
        {"offered": None},
        {"ended": 1.0},
        {"go": True},
        {"stop": "no"},
        {"stage": "done"},
        {"failure": Failure("X", "y")},
    ],
)
def test_what_is_over_is_not_offered(store, fields):
    store.add_deployment(deployment("d1", offered=5.0))
    assert store.offers()
    store.update_deployment("d1", **fields)
    assert store.offers() == []


def test_a_machine_that_waits_for_its_go_may_come_back_and_one_without_an_agent_too(store):
    store.add_deployment(deployment("d1", offered=5.0, stage="wait"))
    store.add_deployment(deployment("d2", offered=5.0, stage="done", kind="installer", answers_hash="a2"))
    assert {o.deployment for o in store.offers()} == {"d1", "d2"}


def test_boots_are_added_up(store):
    store.add_deployment(deployment("d1", offered=5.0))
    store.asked([Asked("d1", "n1", 7.0, "first"), Asked("d1", "n1", 9.0, "second"), Asked("gone", "n2", 9.0, "x")])
    store.beat([Beat(deployment="d1", seen=11.0)])
    store.asked([Asked("d1", "n1", 10.0, "third")])
    record = store.deployment("d1")
    assert (record.asked, record.asked_at, record.last_seen) == (3, 10.0, 11.0)
    assert [e.text for e in store.history("n1", kind="netboot", run="d1")] == ["first", "second", "third"]


def test_sightings_are_merged(store):
    store.sighted([Sighting(MAC, serial="SN9", vendor="ACME", via="ipxe", why="nobody", last_seen=5.0)])
    store.sighted([Sighting(MAC, uuid="u", via="grub", why="a copy", last_seen=9.0, times=3)])
    (seen,) = store.discovered()
    assert (seen.serial, seen.vendor, seen.uuid, seen.via, seen.why) == ("SN9", "ACME", "u", "grub", "a copy")
    assert (seen.first_seen, seen.last_seen, seen.times) == (5.0, 9.0, 4)
    store.forget_discovered(MAC)
    assert store.discovered() == []


def test_the_oldest_are_forgotten(store, monkeypatch):
    monkeypatch.setattr(netboot, "KEPT", 3)
    store.sighted([Sighting(f"m{i}", last_seen=float(i)) for i in range(5)])
    assert [d.mac for d in store.discovered()] == ["m4", "m3", "m2"]
    assert [d.mac for d in store.discovered(limit=1)] == ["m4"]
