"""A plan by another method than virtual media, and what a run may fall back to."""

from __future__ import annotations

import msgspec
from test_plan_reimage import IMAGE, SEEN, SLOT, SPEC

from metalimmu.desired.types import HostSpec
from metalimmu.observed.types import MediaSlot, WriteRequest
from metalimmu.plan.method import METHODS, Choice
from metalimmu.plan.reimage import Memory, Requests, Seen, plan_reimage
from metalimmu.plan.types import ImageFacts, Plan

ASKED = {
    name: (WriteRequest("PATCH", f"/{name}", {}),)
    for name in ("insert", "override", "http-boot", "pxe", "eject", "withdraw")
}


def planned(method: str, *others: str) -> Plan:
    return plan_reimage(
        msgspec.convert(SPEC, HostSpec),
        msgspec.convert(IMAGE, ImageFacts),
        Memory(),
        msgspec.convert(SEEN, Seen),
        transfer=1000,
        requests=Requests(will=ASKED),
        slot=msgspec.convert(SLOT, MediaSlot),
        choice=Choice(method=method, why="because", others=others),
    )


def test_the_steps_of_a_method_ask_what_was_rehearsed_for_it() -> None:
    plan = planned("pxe")
    names = [s.name for s in plan.steps]
    assert names[:4] == ["preflight", "media", "offer", "pxe"]
    assert plan.step("pxe").requests == ASKED["pxe"]
    assert plan.step("withdraw").requests == ASKED["withdraw"]
    assert plan.step("offer").requests == ()
    assert (plan.method, plan.method_why, plan.slot, plan.ways) == ("pxe", "because", None, ())


def test_limits_are_those_of_virtual_media() -> None:
    by = {m: planned(m) for m in METHODS}
    media = by["virtual-media"]
    assert [s.limit for s in by["pxe"].steps] == [s.limit for s in media.steps]
    assert [s.boots for s in by["uefi-http"].steps] == [s.boots for s in media.steps]
    assert all(p.boots == 2 for p in by.values())


def test_falling_back_gives_the_plan_that_the_other_method_would_have_had() -> None:
    plan = planned(*METHODS)
    assert [w.method for w in plan.ways] == ["uefi-http", "pxe"]
    http = plan.by(plan.ways[0])
    assert http.steps == planned("uefi-http").steps
    assert [w.method for w in http.ways] == ["pxe"]
    assert http.by(http.ways[0]).steps == plan.by(plan.ways[1]).steps == planned("pxe").steps
    assert plan.by(plan.ways[1]).ways == ()


def test_it_may_fall_back_to_media_too() -> None:
    plan = planned("pxe", "virtual-media")
    assert plan.slot is not None
    assert plan.by(plan.ways[0]).steps == planned("virtual-media").steps


def test_it_survives_the_store() -> None:
    plan = planned(*METHODS)
    assert Plan.decode(msgspec.json.decode(msgspec.json.encode(plan.encode()))) == plan


def test_a_plan_of_an_older_version_has_no_other_way() -> None:
    old = planned("virtual-media").encode()
    for name in ("ways", "rejected", "method_why"):
        del old[name]
    assert Plan.decode(old).ways == ()
