"""The ramdisk boots: BIOS, UEFI, secure boot; from CD and USB; finds its boot data, network and controller."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from ramdisk_vm import Vm, listener

import metalimmu
from metalimmu import paths
from metalimmu.boot.media import SplicedIso, slot
from metalimmu.images import ramdisk
from metalimmu.images.ramdisk import Ramdisk
from metalimmu.images.ramdisk_debian import LOADER
from metalimmu.wire.messages import Boot

pytestmark = pytest.mark.e2e

MAC = "52:54:00:12:34:56"
VIRTIO_CD = ("-device", "virtio-scsi-pci", "-device", "scsi-cd,id=cd,drive=iso,bootindex=0")
IDE_CD = ("-device", "ide-cd,id=cd,drive=iso,bus=ide.1,bootindex=0")
USB_STICK = ("-device", "qemu-xhci", "-device", "usb-storage,drive=iso,bootindex=0")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Ramdisk:
    return ramdisk.build("lab", tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def generic(tmp_path_factory: pytest.TempPathFactory) -> Ramdisk:
    return ramdisk.build("generic", tmp_path_factory.mktemp("generic"))


@contextmanager
def booted(
    made: Ramdisk,
    folder: Path,
    firmware: str,
    devices: Sequence[str],
    *,
    port: int = 0,
    network: dict[str, str] | None = None,
    media: str = "cdrom",
    memory: int = 512,
    damage: bytes = b"",
) -> Iterator[Vm]:
    """A VM with `made` in its drive; without a port its slot stays empty. `damage`: the bytes after it are spoilt."""
    boot = Boot(f"https://10.0.2.2:{port}", "t" * 43, "ab" * 32, "dep-1", network or {})
    iso = folder / "spliced.iso"
    with SplicedIso(
        made.iso, made.slot_offset, slot(boot, made.slot_size) if port else bytes(made.slot_size)
    ) as source:
        source.write_to(iso)
    if damage:
        _spoil(iso, damage)
    drive = ("-drive", f"if=none,id=iso,file={iso},format=raw,readonly=on,media={media}")
    vm = Vm(folder, firmware, [*drive, *devices], memory=memory)
    try:
        yield vm
    finally:
        vm.close()


def _spoil(iso: Path, after: bytes) -> None:
    with iso.open("r+b") as file, mmap.mmap(file.fileno(), 0) as whole:
        place = whole.find(after)
        while place % 2048:  # the same letters inside of some other file
            place = whole.find(after, place + 1)
        whole[place + 8192] ^= 0xFF


def nic(model: str, mac: str = MAC, more: str = "", name: str = "n0") -> tuple[str, ...]:
    return ("-netdev", f"user,id={name}{more}", "-device", f"{model},netdev={name},mac={mac}")


def test_bios_by_dhcp_and_the_media_may_go_while_it_runs(lab, tmp_path):
    with (
        listener() as port,
        booted(lab, tmp_path, "bios", [*IDE_CD, *nic("virtio-net-pci")], port=port) as vm,
    ):
        vm.wait("copied into memory")
        # Not forced: a drive that is mounted or open would refuse it.
        assert vm.qmp("eject", id="cd") == {"return": {}}
        said = vm.wait("metalimmu: check-in")  # the agent runs
    assert f"metalimmu ramdisk {metalimmu.__version__} on kernel {lab.kernel}" in said
    assert "found boot.json" in said
    assert f"NIC eth0 {MAC} virtio_net link up" in said
    assert "eth0: address 10.0.2.15/24 gateway 10.0.2.2" in said
    assert f"the controller 10.0.2.2:{port} answers through eth0" in said


def test_uefi_with_a_static_address_asks_for_no_dhcp(lab, tmp_path):
    given = {"mac": MAC, "address": "10.0.2.77/24", "gateway": "10.0.2.2", "dns": "10.0.2.3", "mtu": "1400"}
    other = nic("virtio-net-pci", "52:54:00:00:00:01", ",restrict=on", "n1")
    devices = [*VIRTIO_CD, *other, *nic("virtio-net-pci")]
    with listener() as port, booted(lab, tmp_path, "uefi", devices, port=port, network=given) as vm:
        said = vm.wait("starting the agent")
    assert "eth1: address 10.0.2.77/24 gateway 10.0.2.2" in said
    assert f"the controller 10.0.2.2:{port} answers through eth1" in said
    assert "asking for DHCP" not in said
    assert "Secure boot disabled" in said


def test_secure_boot_with_microsofts_keys(lab, tmp_path):
    with (
        listener() as port,
        booted(lab, tmp_path, "secure", [*VIRTIO_CD, *nic("virtio-net-pci")], port=port) as vm,
    ):
        said = vm.wait("starting the agent")
    assert "Secure boot enabled" in said
    assert "found boot.json" in said


def test_media_without_a_deployment_does_nothing(lab, tmp_path):
    with booted(lab, tmp_path, "bios", [*IDE_CD, *nic("virtio-net-pci")]) as vm:
        said = vm.wait("this media was not made for a deployment: doing nothing")
    assert "found boot.json" not in said
    assert "asking for DHCP" not in said


def test_a_squashfs_that_arrives_damaged_is_not_used(lab, tmp_path):
    devices = [*IDE_CD, *nic("virtio-net-pci")]
    with listener() as port, booted(lab, tmp_path, "bios", devices, port=port, damage=b"hsqs") as vm:
        said = vm.wait("cannot be read or is damaged, trying again")
    assert "copied into memory" not in said


def test_generic_with_ahci_e1000_and_a_gibibyte_takes_the_nic_that_leads_to_the_controller(generic, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(1 << 30)
    devices = [
        *("-drive", f"if=none,id=disk,file={disk},format=raw", "-device", "ide-hd,drive=disk,bus=ide.0"),
        *IDE_CD,
        *nic("e1000", "52:54:00:00:00:01", ",restrict=on,net=10.0.9.0/24", "n1"),
        *nic("e1000"),
    ]
    with listener() as port, booted(generic, tmp_path, "bios-q35", devices, port=port, memory=1024) as vm:
        said = vm.wait("metalimmu: check-in")
        assert "starting the agent" in vm.second_console()  # where some BMCs have their serial over LAN
    assert "NIC eth0 52:54:00:00:00:01 e1000 link up" in said
    assert "eth0: address 10.0.9.15/24" in said
    assert f"the controller 10.0.2.2:{port} does not answer through eth0" in said
    assert f"the controller 10.0.2.2:{port} answers through eth1" in said


def test_generic_as_usb_stick_in_uefi(generic, tmp_path):
    devices = [*USB_STICK, *nic("e1000e")]
    with listener() as port, booted(generic, tmp_path, "secure", devices, port=port, media="disk", memory=1024) as vm:
        said = vm.wait("starting the agent")
    assert "media /dev/sda" in said
    assert "Secure boot enabled" in said


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    first, again = (ramdisk.build("lab", tmp_path / name) for name in ("first", "again"))
    assert again.sha256 == first.sha256
    assert again.iso.read_bytes() == first.iso.read_bytes()


def test_sizes_are_reported_and_the_slot_is_where_it_says(lab):
    assert lab.sizes["iso"] == lab.iso.stat().st_size
    assert lab.sizes["iso"] > lab.sizes["squashfs"] > lab.sizes["initrd"] > 0
    with SplicedIso(lab.iso, lab.slot_offset, b"") as iso:
        assert iso.pread(lab.slot_offset, lab.slot_size) == bytes(ramdisk.SLOT_SIZE)
        assert iso.pread(32768 + 40, 32).rstrip() == lab.label.encode()


def test_the_tools_that_make_it_are_started_by_their_own_loader(lab):
    """Debian's libc6 has an absolute link in lib64: on Debian 13 the tools of Debian 12 met another libc's loader and died."""
    trees = list((paths.cache() / "ramdisk").glob("tools-*"))
    assert trees
    assert all((tree / LOADER).resolve().is_relative_to(tree.resolve()) for tree in trees)
