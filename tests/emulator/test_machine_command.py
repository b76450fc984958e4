"""The QEMU command line, a pure function."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metalimmu_emulator.machine import DiskSpec, ServerSpec, Start, command

SERVER = ServerSpec(
    name="node-1",
    uuid="11111111-2222-4333-8444-555555555555",
    serial="LAB0001",
    mac="52:54:00:00:00:01",
    disks=(DiskSpec(1 << 30, "DISK0"), DiskSpec(1 << 30, "DISK1", "ahci", "disk1.raw")),
)
START = Start(firmware="uefi", order=("disk0",), qmp_fd=7)


def text(server: ServerSpec = SERVER, start: Start = START) -> str:
    return " ".join(command(server, start))


def test_emulation_is_forced_and_kvm_only_on_request() -> None:
    assert "-accel tcg -cpu qemu64" in text()
    assert "kvm" not in text()
    assert "-accel kvm -cpu host" in text(replace(SERVER, kvm=True))


def test_qemu_dies_with_its_supervisor() -> None:
    assert command(SERVER, START)[:4] == ["setpriv", "--pdeathsig", "KILL", "--"]


@pytest.mark.parametrize(
    ("firmware", "there", "not_there"),
    [
        ("uefi", "OVMF_CODE_4M.fd", "smm=on"),
        ("secure", "q35,smm=on", "graphics=off"),
        ("bios", "q35,graphics=off", "pflash"),
    ],
)
def test_firmware(firmware: str, there: str, not_there: str) -> None:
    line = text(start=replace(START, firmware=firmware))
    assert there in line
    assert not_there not in line


def test_secure_boot_has_microsofts_keys_in_a_store_of_its_own() -> None:
    line = text(start=replace(START, firmware="secure"))
    assert "OVMF_CODE_4M.ms.fd" in line
    assert "file=vars-secure.fd" in line
    assert "driver=cfi.pflash01,property=secure,value=on" in line


def test_the_order_is_the_bootindex_and_nothing_else_is_bootable() -> None:
    line = text(start=replace(START, order=("cd0", "disk0")))
    assert "id=cd0,bootindex=0" in line
    assert "id=disk0,bootindex=1" in line
    assert line.count("bootindex") == 2
    assert "strict=on" in line


def test_identity_and_every_disk_with_its_serial() -> None:
    line = text()
    assert "type=1,manufacturer=metalimmu,product=lab,version=1,serial=LAB0001,uuid=11111111-" in line
    assert "virtio-blk-pci,drive=node-disk0,serial=DISK0" in line
    assert "ide-hd,bus=ide.2,drive=node-disk1,serial=DISK1" in line
    assert "mac=52:54:00:00:00:01" in line


def test_a_fault_gives_the_machine_another_identity_and_clock() -> None:
    line = text(start=replace(START, serial="OTHER", uuid="99999999-0000-4000-8000-000000000000", clock="1999-12-31"))
    assert "serial=OTHER,uuid=99999999-" in line
    assert "-uuid 99999999-" in line
    assert "-rtc base=1999-12-31" in line
    assert "LAB0001" not in line


@pytest.mark.parametrize(("cd", "device"), [("virtio", "scsi-cd,bus=scsi.0"), ("ahci", "ide-cd,bus=ide.1")])
def test_the_cd_drive_is_always_there(cd: str, device: str) -> None:
    assert device in text(replace(SERVER, cd=cd))


USER = replace(SERVER, bootfile="http://10.0.2.2:8080/boot/start.ipxe")
TAP = replace(SERVER, tap="mi1n1")
NETWORK = replace(START, order=("nic0", "disk0"), netboot="pxe")


def test_on_a_segment_the_nic_is_a_tap_and_firmware_boots_it_by_itself() -> None:
    line = text(TAP, NETWORK)
    assert "-netdev tap,id=net0,ifname=mi1n1,script=no,downscript=no" in line
    assert "netdev=net0,mac=52:54:00:00:00:01,romfile=,id=nic0,bootindex=0" in line
    assert "IPv6PXESupport,string=n" in line
    assert "IPv4PXESupport" not in line


def test_http_boot_is_pxe_that_is_not_there() -> None:
    line = text(TAP, replace(NETWORK, netboot="http"))
    assert "opt/org.tianocore/IPv4PXESupport,string=n" in line
    assert "opt/org.tianocore/IPv6PXESupport,string=n" in line


def test_without_a_segment_qemus_own_ipxe_follows_the_address_that_its_dhcp_names() -> None:
    line = text(USER, NETWORK)
    assert "user,id=net0,ipv6=off,bootfile=http://10.0.2.2:8080/boot/start.ipxe" in line
    assert "romfile=" not in line
    assert "romfile=" in text(USER)  # which costs half a second where the network is not booted
    assert "romfile=" not in text(replace(USER, nic="e1000"))


def test_bios_has_a_rom_for_its_nic_always() -> None:
    assert "romfile=" not in text(TAP, replace(NETWORK, firmware="bios"))
    assert "org.tianocore" not in text(TAP, replace(NETWORK, firmware="bios"))


def test_only_a_boot_from_the_network_is_told_how() -> None:
    assert "org.tianocore" not in text(TAP)
