"""Which disk: every reason to leave one alone, and the choice by hints."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agent_rig import MIB, FakeRoot

from metalimmu.agent import disks
from metalimmu.errors import DiskSelectionError
from metalimmu.wire.messages import Disk, RootDisk

AHCI = "pci0000:00/0000:00:1f.2/ata{n}/host{n}/target{n}:0:0/{n}:0:0:0/block"
SAS = "pci0000:00/0000:02:00.0/host0/target0:2:{n}/0:2:{n}:0/block"
NVME = "pci0000:00/0000:00:05.0/nvme/nvme{n}"


def named(root: FakeRoot) -> dict[str, Disk]:
    return {d.path.rpartition("/")[2]: d for d in disks.list_disks(root.root)}


def vpd80(serial: str) -> bytes:
    return b"\0\x80" + len(serial).to_bytes(2, "big") + serial.encode()


def test_sata_nvme_virtio_and_raid_volumes(root):
    root.disk(
        "sda",
        8 * MIB,
        where=AHCI.format(n=1),
        device__vendor="ATA",
        device__model="SAMSUNG MZ7LH480",
        device__vpd_pg80=vpd80("      S45PNA0M512345"),
        device__wwid="naa.5002538e09876543",
        device__type="0",
    )
    root.disk(
        "nvme0n1",
        8 * MIB,
        where=NVME.format(n=0),
        wwid="eui.0025385a91b04321",
        device__model="SAMSUNG MZQL2960HCJR",
        device__serial="S64FNE0R512345",
    )
    root.disk("vda", 8 * MIB, serial="disk-1", device__vendor="0x1af4")
    root.disk(
        "sdb",
        8 * MIB,
        where=SAS.format(n=1),
        queue__rotational="1",
        device__vendor="DELL",
        device__model="PERC H755 Front",
        device__wwid="naa.6f4ee080123400002b1c0d0a11223344",
        device__type="0",
    )
    found = named(root)
    sda, nvme, vda, sdb = (found[n] for n in ("sda", "nvme0n1", "vda", "sdb"))
    assert (sda.model, sda.serial, sda.wwn, sda.transport, sda.by_path) == (
        "ATA SAMSUNG MZ7LH480",
        "S45PNA0M512345",
        "naa.5002538e09876543",
        "sata",
        "pci-0000:00:1f.2-ata-1",
    )
    assert (nvme.serial, nvme.wwn, nvme.transport, nvme.by_path) == (
        "S64FNE0R512345",
        "eui.0025385a91b04321",
        "nvme",
        "pci-0000:00:05.0-nvme-1",
    )
    assert (vda.model, vda.serial, vda.transport, vda.by_path) == ("", "disk-1", "virtio", "pci-0000:00:04.0")
    assert (sdb.model, sdb.rotational, sdb.by_path) == ("DELL PERC H755 Front", True, "pci-0000:02:00.0-scsi-0:2:1:0")
    assert [d.unusable for d in found.values()] == ["", "", "", ""]


@pytest.mark.parametrize(
    ("name", "attributes", "reason"),
    [
        ("sr0", {"where": AHCI.format(n=2), "device__type": "5"}, "CD or DVD"),
        ("sdb", {"where": "pci0000:00/0000:00:14.0/usb1/1-1/host9/target9:0:0/9:0:0:0/block"}, "USB"),
        ("sdb", {"removable": "1"}, "removable"),
        ("sdb", {"ro": "1"}, "read-only"),
        ("mmcblk0boot0", {"where": "platform/mmc0/mmc0:0001/block"}, "eMMC"),
        ("sdb", {"device__vendor": "AMI", "device__model": "Virtual HDisk0"}, "virtual media"),
        ("sdb", {"device__vendor": "iDRAC", "device__model": "LCDRIVE"}, "virtual media"),
        ("sdb", {"device__vendor": "IPMI", "device__model": "Virtual Disk"}, "virtual media"),
        ("sdb", {"device__vendor": "HPE", "device__model": "Internal SD-CARD"}, "virtual media"),
        ("sdb", {"device__type": "13"}, "SCSI device type 13"),
    ],
)
def test_never_a_candidate(root, name, attributes, reason):
    root.disk("vda", 8 * MIB)
    root.disk(name, 8 * MIB, **({"where": SAS.format(n=1)} | attributes))
    found = named(root)
    assert reason in found[name].unusable
    assert disks.choose(list(found.values()), RootDisk()).path.endswith("/vda")


def test_a_disk_without_medium(root):
    root.disk("sdb", 0, where=SAS.format(n=1))
    assert "size is zero" in named(root)["sdb"].unusable


def test_a_disk_that_cannot_be_read_does_not_stop_the_others(root):
    root.disk("vda", 8 * MIB)
    root.disk("sdb", 8 * MIB, where=SAS.format(n=1)).unlink()
    found = named(root)
    assert "cannot be read" in found["sdb"].unusable
    assert disks.choose(list(found.values()), RootDisk()).path.endswith("/vda")


def test_loop_ram_dm_and_hidden_paths_are_not_even_listed(root):
    for name in ("loop0", "ram1", "zram0", "dm-0", "md127", "nbd3", "fd0"):
        root.disk(name, MIB, where="virtual/block")
    root.disk("nvme0c1n1", MIB, where=NVME.format(n=1), hidden="1")
    assert named(root) == {}


def test_paths_with_one_wwn_are_one_disk(root):
    for n, name in enumerate(("sda", "sdb", "sdc")):
        wwid = "naa.5000c500a1b2c3d4" if name != "sdc" else "naa.5000c500a1b2c3d5"
        root.disk(name, 8 * MIB, where=SAS.format(n=n), device__wwid=wwid, device__vpd_pg80=vpd80(f"Z{wwid[-1]}"))
    found = named(root)
    assert found["sdb"].unusable.endswith("another path to " + found["sda"].path)
    assert found["sdc"].unusable == ""
    assert disks.choose(list(found.values()), RootDisk(wwn="0x5000c500a1b2c3d4")).path == found["sda"].path


def test_a_wwn_that_two_disks_share_by_mistake_does_not_make_them_one(root):
    for n, name in enumerate(("sda", "sdb")):
        root.disk(
            name, 8 * MIB, where=SAS.format(n=n), device__wwid="naa.5000000000000001", device__vpd_pg80=vpd80(name)
        )
    assert [d.unusable for d in named(root).values()] == ["", ""]


BASE = Disk(
    "/dev/sda",
    480_000_000_000,
    model="ATA SAMSUNG MZ7LH480",
    serial="S45P",
    wwn="naa.5002538e09876543",
    by_path="pci-0000:00:1f.2-ata-1",
)
OTHER = replace(BASE, path="/dev/sdb", size=4_000_000_000_000, model="SEAGATE ST4000", serial="Z1", wwn="naa.5000c500aa", rotational=True, by_path="pci-0000:00:1f.2-ata-2")  # fmt: skip


@pytest.mark.parametrize(
    "hints",
    [
        RootDisk(serial="s45p"),
        RootDisk(wwn="0x5002538E09876543"),
        RootDisk(wwn="5002538e09876543"),
        RootDisk(model="samsung  mz7lh480"),
        RootDisk(model="ATA SAMSUNG MZ7LH480"),
        RootDisk(max_size=1_000_000_000_000),
        RootDisk(rotational=False),
        RootDisk(by_path="/dev/disk/by-path/pci-0000:00:1f.2-ata-1"),
        RootDisk(by_path="pci-0000:00:1f.2-ata-1", min_size=1),
    ],
)
def test_hints_that_name_one_disk(hints):
    assert disks.choose([OTHER, BASE], hints) is BASE


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        (RootDisk(), "2 disks of 2 fit (root_disk has no hints)"),
        (RootDisk(serial="S45"), "no disk of 2 fit root_disk serial=S45"),
        (RootDisk(model="SAMSUNG"), "model ATA SAMSUNG MZ7LH480"),
        (RootDisk(min_size=1), "2 disks"),
        (RootDisk(serial="S45P", rotational=True), "not rotational"),
        (RootDisk(wwn="0x1"), "wwn naa.5002538e09876543"),
    ],
)
def test_not_exactly_one(hints, words):
    with pytest.raises(DiskSelectionError) as caught:
        disks.choose([BASE, OTHER], hints)
    assert words in caught.value.message
    assert "/dev/sda" in caught.value.message
    assert "/dev/sdb" in caught.value.message


def test_no_disk_at_all_hints_at_drivers():
    with pytest.raises(DiskSelectionError, match="no disk at all") as caught:
        disks.choose([], RootDisk())
    assert "RAID volumes" in caught.value.hint


def test_the_list_is_used_once_it_has_stopped_changing(root, monkeypatch):
    root.disk("vda", 8 * MIB)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            root.disk("sdb", 8 * MIB, where=SAS.format(n=1))

    monkeypatch.setattr(disks.time, "sleep", nap)
    found = disks.settled(root.root, ())
    assert [d.path.rpartition("/")[2] for d in found] == ["sdb", "vda"]
    assert len(naps) == 2
    assert disks.settled(root.root, found) == found
    assert len(naps) == 2
    assert disks.settled(root.root, found, looks=10) == found
    assert len(naps) == 2 + 9


@pytest.mark.parametrize("hints", [{"serial": "S"}, {"wwn": "0x5"}, {"by_path": "pci-0"}])
def test_a_disk_that_is_named_need_not_be_waited_for(hints):
    assert disks.patience(RootDisk(**hints)) == 1
    assert disks.patience(RootDisk(min_size=1)) == 10
