"""A BMC that lies, refuses or does nothing: each time a clear error and a hint, nothing left behind, and the host mends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_rig import Rig, failed

pytestmark = pytest.mark.e2e

NODE = "node-1"
SHORT = {"power": "4s", "media": "4s", "check_in": "12s", "bmc": "20s"}


@pytest.fixture(scope="module")
def shared(up_for_all) -> Rig:
    made = up_for_all("faulty")
    made.limits(**SHORT)
    return made


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    """The machine off, its BMC in order, no quarantine."""
    yield shared
    shared.lab.clear_fault(NODE)
    shared.reset_by_hand("ForceOff")
    if shared.host().quarantine:
        shared("release", NODE, "--reason", "the test is over")


def refused(rig: Rig) -> str:
    said = failed(rig("reimage", NODE, "--yes", status=1))
    _, boot, media = rig.bmc()
    assert (boot, media) == ("", ""), "override and media are taken back"
    lease = rig.store.lease(NODE)
    assert lease is None or lease.run is None
    host = rig.host()
    assert (host.state, host.proof, host.image) == ("enrolled", "unproven", None)
    assert host.error is not None
    assert host.error.hint
    return said


def test_it_is_the_bmc_of_another_machine(rig: Rig) -> None:
    rig.lab.fault(NODE, "wrong-serial", serial="ELSEWHERE1")
    asked = len(rig.lab.requests(NODE))
    said = refused(rig)
    assert "is of machine ELSEWHERE1" in said
    assert rig.lab.server(NODE).serial in said
    assert rig.writes(since=asked) == [], "nothing was touched"
    assert rig.bmc()[0] == "Off"
    assert rig.host().quarantine is None


def test_it_refuses_the_media(rig: Rig) -> None:
    rig.lab.fault(NODE, "refuse-media")
    assert "are refused" in refused(rig)
    assert rig.bmc()[0] == "Off"
    assert rig.host().quarantine is None


def test_it_ignores_the_override(rig: Rig) -> None:
    rig.lab.fault(NODE, "override-ignored")
    said = refused(rig)
    assert "override: no success within 4 s" in said
    assert "None Disabled" in said
    assert rig.bmc()[0] == "Off"
    assert rig.host().quarantine is None


def test_power_does_not_change(rig: Rig) -> None:
    rig.lab.fault(NODE, "no-power-effect", action="On")
    assert "power: no success within 4 s: power is Off" in refused(rig)
    assert rig.host().quarantine is not None, "nobody knows what it did"


def test_the_machine_never_reads_the_media(rig: Rig) -> None:
    rig.lab.fault(NODE, "media-not-read")
    assert "not one byte of it was read" in refused(rig)
    quarantine = rig.host().quarantine
    assert quarantine is not None
    assert quarantine.reason.startswith("check-in: ")


def test_the_override_reads_back_and_the_machine_boots_its_disk(rig: Rig) -> None:
    rig.lab.fault(NODE, "override-ignored", visible=True)
    said = refused(rig)
    assert "not one byte of it was read" in said
    assert "boot order" in said
    assert rig.host().quarantine is not None
