"""The lab's switches without a controller: ONIE's discovery, a NOS with ZTP, a pair, two slots, rescue."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import switch_rig
from switch_rig import Source, Switch, installer

from metalimmu import paths
from metalimmu.images import lab_switch
from metalimmu_emulator import switch
from metalimmu_emulator.lab import Lab

pytestmark = [pytest.mark.emulator, pytest.mark.long]
MODES = b"yes\nDefault boot: ONIE mode: unknown\n"


@pytest.fixture
def parts() -> Path:
    return lab_switch.build(switch.FILES, paths.cache() / "lab" / "switch").folder


@pytest.fixture
def rack(parts: Path, lab_up: Callable[..., Lab]) -> Iterator[tuple[Source, Switch, Switch]]:
    lab = lab_up(servers=0, switches=2, switch_disk=parts / "onie.raw")
    source = Source(lab.spec.media_port)
    server = switch_rig.serve(source)
    yield source, Switch(lab, "sw-1"), Switch(lab, "sw-2")
    server.shutdown()
    server.server_close()


def test_a_pair_from_bare_to_two_slots(rack: tuple[Source, Switch, Switch], parts: Path) -> None:
    source, one, two = rack
    first, second = installer(parts, "1"), installer(parts, "2")
    source.installers = {one.spec.serial: [first[:-1] + b"x", first], two.spec.serial: [first]}
    source.names = {one.spec.serial: "sw-1", two.spec.serial: "sw-2"}
    for each in (one, two):
        each.power("On")
    for each in (one, two):
        each.until_said("ZTP: SUCCESS")

    # ONIE said who it is; an installer that fails is fetched again in the next round; a switch with a NOS asks no more.
    asked = source.of(one.spec.serial)
    assert [a.path for a in asked] == ["/switch"] * 2
    assert asked[0].headers["onie-eth-addr"] == one.switch.base_mac != one.spec.mac
    assert asked[0].headers["onie-operation"] == "os-install"
    assert asked[0].headers["onie-machine"] == "kvm_x86_64"
    assert "the checksum of the payload is wrong" in one.console()
    assert "(exit code 1)" in one.console()
    assert {a.headers["product-name"] for a in source.of(one.spec.serial, ztp=True)} == {"x86_64-kvm_x86_64-r0"}
    assert one.ssh("cat /host/reported; hostname; decode-syseeprom -s").split() == ["reported", "sw-1", one.spec.serial]

    # The pair has found itself; a broken session is seen on both sides, a peer's bond that is down as single.
    def pair(switch: Switch) -> tuple[bool, bool, set[str]]:
        said = json.loads(switch.ssh("clagctl -j"))
        return (
            said["status"]["peerAlive"],
            said["status"]["backupActive"],
            {b["status"] for b in said["clagIntfs"].values()},
        )

    well = (True, True, {"dual"})
    one.until(lambda: pair(one) == well == pair(two), "the pair is well")
    lldp = json.loads(one.ssh("lldpctl -f json0"))["lldp"][0]["interface"]
    assert {i["chassis"][0]["name"][0]["value"] for i in lldp} == {"spine-1", "spine-2", "sw-2"}
    two.ssh(": >/run/pair-broken")
    one.until(lambda: pair(one) == (False, True, {"single"}), "a broken session is seen")
    two.power("ForceOff")

    # Two slots: the new one for the next start only; after that the machine is back where it was.
    one.ssh("cat >/host/new.bin && sonic-installer install -y /host/new.bin && rm /host/new.bin", stdin=second)
    one.ssh("sonic-installer set-default LAB-OS-1 && sonic-installer set-next-boot LAB-OS-2")
    assert one.ssh("sonic-installer list").split() == [
        "Current:",
        "LAB-OS-1",
        "Next:",
        "LAB-OS-2",
        "Available:",
        "LAB-OS-1",
        "LAB-OS-2",
    ]
    key = one.ssh("cat /etc/ssh/*.pub")
    one.reboot()
    one.until_said("lab-nos 2 is up")
    assert one.ssh("sonic-installer list").split()[:4] == ["Current:", "LAB-OS-2", "Next:", "LAB-OS-1"]
    assert one.ssh("cat /etc/ssh/*.pub; hostname") == f"{key}sw-1\n"

    # Into ONIE without its mode: rescue, as there is a NOS, and nothing is asked for. After it the NOS starts, the old one.
    count = len(source.asked)
    one.ssh("grub-reboot ONIE")
    one.reboot()
    one.until_said("Rescue Mode. Installer disabled")
    one.until(lambda: one.try_ssh("onie-nos-mode -g && onie-boot-mode -l").stdout == MODES, "SSH of rescue")
    one.reboot()
    one.until_said("lab-nos 1 is up", times=2)
    assert one.ssh("hostname; sonic-installer list").split()[:3] == ["sw-1", "Current:", "LAB-OS-1"]
    assert len(source.asked) == count
