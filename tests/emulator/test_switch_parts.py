"""What makes a lab's switch, without starting one: QEMU's options, the site's documents, and programs that run on any shell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from metalimmu.cli import cli
from metalimmu.desired.check import check
from metalimmu.errors import UsageError
from metalimmu_emulator import layout, making, site
from metalimmu_emulator.layout import LabSpec
from metalimmu_emulator.machine import ServerSpec, Start, command
from metalimmu_emulator.network import Segment
from metalimmu_emulator.switch import FILES, key
from metalimmu_emulator.switch import machine as switching

SH = shutil.which("sh") or "/bin/sh"
AWK = shutil.which("awk") or "/usr/bin/awk"
START = Start(firmware="bios", order=("disk0",), qmp_fd=3)


def rack(count: int) -> tuple[ServerSpec, ...]:
    return making.switches(count, "secret", "ssh-ed25519 AAAA", "http://10.0.2.2:8080/switch", kvm=False)


def lab(folder: Path, switches: tuple[ServerSpec, ...]) -> LabSpec:
    spec = LabSpec(
        name="lab",
        user="admin",
        password="secret",
        servers=switches,
        bmc_ports=(0,) * len(switches),
        ipmi_ports=(0,) * len(switches),
        media_port=8080,
        machines_port=8443,
        image="tiny@1",
        ramdisk="lab",
        images=str(folder / "images"),
        ramdisks=str(folder / "ramdisks"),
        switch_image="lab-nos@1",
    )
    disk = folder / "onie.raw"
    disk.write_bytes(b"onie" + bytes(1 << 20))
    making.create(folder / "lab", spec, private=key.create()[0], factory=disk)
    return spec


def test_pairs_are_two_neighbours_and_the_last_of_an_odd_number_is_alone() -> None:
    found = [s.switch for s in rack(3)]
    assert all(found)
    assert [(s.peer, s.place) for s in found if s] == [("sw-2", 1), ("sw-1", 2), ("", 0)]
    assert len({s.base_mac for s in found if s} | {s.mac for s in rack(3)}) == 6
    with pytest.raises(UsageError, match="16"):
        rack(17)


def test_the_management_port_comes_before_the_links_of_the_pair() -> None:
    words = command(rack(2)[1], START)
    devices = [
        words[i + 1].split(",id=")[1].split(",")[0]
        for i, w in enumerate(words)
        if w == "-device" and "virtio-net" in words[i + 1]
    ]
    assert devices == ["nic0", "port1", "port2"]  # eth0, eth1, eth2: by place on the bus
    (user,) = (w for w in words if w.startswith("user,id=net0"))
    assert "bootfile=http://10.0.2.2:8080/switch" in user
    assert any("remote.path=../sw-1/link1.sock" in w for w in words)


def test_an_eeprom_with_a_comma_stays_one_value() -> None:
    switch = rack(1)[0].switch
    assert switch is not None
    said = switching.smbios(replace(switch, password="a,b"))
    assert "value=metalimmu.password=a,,b" in said
    assert "metalimmu.pair" not in said  # alone


def test_on_a_segment_a_switch_has_an_address_of_its_own() -> None:
    segment = Segment("br0", "10.77.3.0/24", ("br0n1", "br0n2"))
    found = making.plugged(rack(2), segment, 8080)
    assert [s.switch.ssh for s in found if s.switch] == ["10.77.3.2:22", "10.77.3.3:22"]
    assert "tap,id=net0,ifname=br0n2,script=no,downscript=no" in command(found[1], START)
    assert making.alike(found, making.plugged(rack(2), segment, 9))


@pytest.mark.parametrize("segment", [None, Segment("br0", "10.77.3.0/24", ("br0n1", "br0n2"))])
def test_the_site_of_switches_has_no_mistake(tmp_path: Path, segment: Segment | None) -> None:
    spec = lab(tmp_path, making.plugged(rack(2), segment, 8080) if segment else rack(2))
    written = site.write(tmp_path / "lab", spec, (7001, 7002))
    assert not list(check(written).problems)
    assert not (written / "roles" / "web.yaml").exists()
    disk = layout.server_folder(tmp_path / "lab", "sw-2") / "disk0.raw"
    assert disk.read_bytes()[:4] == b"onie"
    assert (written / "switch_key").stat().st_mode & 0o777 == 0o600


def test_typing_into_a_console_of_a_lab_that_is_down(tmp_path: Path) -> None:
    written = site.write(tmp_path / "lab", lab(tmp_path, rack(2)), (7001, 7002))
    said = CliRunner().invoke(cli, ["--site", str(written), "console", "sw-1"])
    assert isinstance(said.exception, UsageError)
    assert "metalimmu console sw-1 --read-only" in said.exception.hint


# --- programs of the switch


def run(*words: str | Path) -> str:
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
def editenv(tmp_path: Path) -> Callable[..., str]:
    file = tmp_path / "grubenv"
    file.write_bytes(b"# GRUB Environment Block\n".ljust(1024, b"#"))

    def call(*words: str) -> str:
        said = run(SH, FILES / "common/usr/bin/grub-editenv", file, *words)
        data = file.read_bytes()
        assert len(data) == 1024
        assert data.startswith(b"# GRUB Environment Block\n")
        return said

    return call


def test_grubs_environment_block_keeps_its_form(editenv: Callable[..., str]) -> None:
    editenv("set", "onie_mode=install", "onie_nos_mode=yes")
    editenv("set", "onie_mode=rescue")
    assert editenv("list").split() == ["onie_nos_mode=yes", "onie_mode=rescue"]
    editenv("unset", "onie_mode", "nothing")
    assert editenv("list") == "onie_nos_mode=yes\n"


def test_json_becomes_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(
        '{"ztp": {"01-a": {"url": {"source": "http://x/\\"y\\""}}, "l": [1, true, {"b": null}], "e": {}}}\n'
    )
    said = run(AWK, "-f", FILES / "nos/usr/bin/json", file)
    assert said.splitlines() == [
        '/ztp/01-a/url/source\thttp://x/"y"',
        "/ztp/l/0\t1",
        "/ztp/l/1\ttrue",
        "/ztp/l/2/b\tnull",
        "/ztp/e\t{}",
    ]


@pytest.mark.parametrize("text", ['{"a": [1,}', '{"a": "x}', "{} x", "", "<html>"])
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    done = subprocess.run([AWK, "-f", FILES / "nos/usr/bin/json", file], capture_output=True, check=False, timeout=30)
    assert done.returncode != 0
