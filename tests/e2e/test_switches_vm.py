"""A switch from bare through ONIE to one NOS, to another and back; then by its two slots, and back again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import e2e_rig
import pytest

from metalimmu.cli import lab_switches
from metalimmu_emulator.lab import Lab

pytestmark = pytest.mark.e2e

NAME = "sw-1"
INSTALLED = "ONIE: NOS install successful"


Up = Callable[..., e2e_rig.Rig]


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Up]:
    """A lab with one switch, bare and powered off."""
    images = tmp_path / "images"
    disk = lab_switches.ensure(images, None)
    with ExitStack() as stack:

        def up(**shape: Any) -> e2e_rig.Rig:
            wanted = {"servers": 0, "switches": 1, "switch_disk": disk} | shape
            lab = Lab.up(tmp_path / "lab", images=images, ramdisks=tmp_path / "ramdisks", **wanted)
            return stack.enter_context(e2e_rig.rig(lab))

        yield up


def reimaged(rig: e2e_rig.Rig, *args: str) -> Callable[[str], None]:
    """The check that follows: this image runs, it is proven, and the store says so."""
    said = rig(*args, "--yes")
    print(said)

    def runs(ref: str) -> None:
        host = rig.host(NAME)
        assert (host.state, host.proof) == ("active", "proven"), said
        assert host.image == ref, said
        version = ref.partition("@")[2]
        assert f"lab-nos {version} is up" in rig.console(NAME).rpartition("[lab]")[2]

    return runs


def test_through_onie_to_another_nos_and_back(switch: Up) -> None:
    """On QEMU's own network: DHCP names one address for all, which knows who asks by the headers."""
    rig = switch()
    reimaged(rig, "reimage", NAME)("lab-nos@1")
    rig.role("leaf", image="lab-nos@2", boot="onie")
    reimaged(rig, "reimage", NAME)("lab-nos@2")
    rig.role("leaf", image="lab-nos@1")
    reimaged(rig, "reimage", NAME)("lab-nos@1")
    assert rig.console(NAME).count(INSTALLED) == 3


def test_two_slots_on_a_real_segment(switch: Up) -> None:
    """A bridge, and dnsmasq as the controller's child: the installer's one-time address comes in option 125, ZTP's in option 67."""
    rig = switch(network=True)
    reimaged(rig, "reimage", NAME)("lab-nos@1")
    said = rig.console(NAME)
    assert re.search(r"Fetched http://10\.[0-9.]+:[0-9]+/onie/[^/]{20,}/onie-installer \(VIVSO\)", said), said
    own = rig.lab.server(NAME).switch
    assert own is not None
    assert f"eth0 has {own.address} by its configuration" in said

    rig.role("leaf", image="lab-nos@2")
    reimaged(rig, "reimage", NAME)("lab-nos@2")
    reimaged(rig, "rollback", NAME)("lab-nos@1")
    assert rig.console(NAME).count(INSTALLED) == 1  # by the slots
