"""A lab's real network segment: made and removed as root, refused in one line without what it needs."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from metalimmu.desired.load import load
from metalimmu.desired.resolve import resolve
from metalimmu.errors import LabError, ToolError
from metalimmu_emulator import making, network
from metalimmu_emulator.lab import Lab
from metalimmu_emulator.machine import DiskSpec, ServerSpec
from metalimmu_emulator.network import Segment

MODEL = ServerSpec(name="", uuid="", serial="", mac="", disks=(DiskSpec(1 << 30, ""),))


@pytest.fixture
def segment() -> Iterator[Segment]:
    network.check()
    made = network.choose(2)
    yield made
    network.remove(made)


def there(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def test_it_comes_and_goes(segment: Segment) -> None:
    network.create(segment)
    network.create(segment)  # a second time changes nothing
    said = subprocess.run(
        ["ip", "-4", "addr", "show", segment.bridge], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    assert f"{segment.address}/24" in said
    for tap in segment.taps:
        assert Path("/sys/class/net", tap, "master").resolve().name == segment.bridge
    network.remove(segment)
    assert not any(there(name) for name in (segment.bridge, *segment.taps))
    network.remove(segment)


def test_what_a_reboot_took_is_made_again(segment: Segment) -> None:
    network.create(segment)
    subprocess.run(["ip", "link", "del", segment.taps[1]], check=True, timeout=10)
    network.create(segment)
    assert there(segment.taps[1])


def test_no_two_segments_overlap_and_names_fit_the_kernel(segment: Segment) -> None:
    network.create(segment)
    for _ in range(50):
        other = network.choose(64)
        assert not ipaddress.ip_network(other.network).overlaps(ipaddress.ip_network(segment.network))
        assert all(len(name) <= 15 for name in (other.bridge, *other.taps))
        assert len(set(other.taps)) == 64


def test_addresses() -> None:
    found = Segment("mi1", "10.77.3.0/24", ())
    assert found.address == "10.77.3.1"
    assert found.range == "10.77.3.20-10.77.3.250"
    assert ipaddress.ip_network(f"{found.prefix6}/64").is_private


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.setattr(os, "geteuid", lambda: 1000), "needs root"),
        (lambda m: m.setattr("shutil.which", lambda _name: None), "apt-get install iproute2"),
        (lambda m: m.setattr(network, "TUN", Path("/no/tun")), "/no/tun"),
    ],
)
def test_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None], word: str
) -> None:
    change(monkeypatch)
    with pytest.raises(ToolError) as said:
        network.check()
    assert word in f"{said.value.message}; {said.value.hint}"
    assert "\n" not in said.value.message


def test_a_name_that_the_kernel_refuses_says_what_ip_said() -> None:
    with pytest.raises(LabError, match=r"`ip link add"):
        network.create(Segment("much-too-long-a-name", "10.77.3.0/24", ()))


def test_servers_are_plugged_into_it_or_have_qemus_own() -> None:
    racked = making.servers(2, MODEL)
    plugged = making.plugged(racked, Segment("mi1", "10.77.3.0/24", ("mi1n1", "mi1n2")), 8080)
    assert [(s.tap, s.bootfile) for s in plugged] == [("mi1n1", ""), ("mi1n2", "")]
    alone = making.plugged(racked, None, 8080)
    assert {(s.tap, s.bootfile) for s in alone} == {("", "http://10.0.2.2:8080/boot/start.ipxe")}
    assert making.alike(plugged, making.plugged(racked, Segment("mi2", "10.78.0.0/24", ("mi2n1", "mi2n2")), 9090))


@pytest.mark.emulator
def test_a_lab_on_a_segment(lab_up: Callable[..., Lab]) -> None:
    lab = lab_up(servers=2, network=True)
    segment = lab.spec.segment
    assert segment is not None
    site = yaml.safe_load((lab.site / "site.yaml").read_text())
    assert site["netboot"]["interface"] == segment.bridge
    assert all(segment.address in url for url in site["urls"].values())
    spec = resolve(load(lab.site), "node-2", root=lab.site)
    assert spec.nics == (lab.spec.servers[1].mac,)
    with pytest.raises(LabError, match="with other servers"):
        Lab.up(lab.folder, images=Path(lab.spec.images), ramdisks=Path(lab.spec.ramdisks), servers=2)
    lab.down()
    assert not any(there(name) for name in (segment.bridge, *segment.taps))
