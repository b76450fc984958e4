"""Things on other disks that would hurt the new system: named, and wiped only when asked."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from agent_rig import MIB, as_image, fill, partitioned, until
from test_agent_run import check_disk

from metalimmu.agent import disks, seed
from metalimmu.wire.messages import RootDisk

SECOND = "pci0000:00/0000:00:06.0/virtio2/block"


@pytest.fixture
def first_disk_wanted(fake):
    fake.assignment = replace(fake.assignment, root_disk=RootDisk(serial="disk-1"))


@pytest.fixture
def second(root, first_disk_wanted, tmp_path):
    """Makes a second disk with these contents: offset -> bytes."""

    def make(pieces: dict[int, bytes], table: bytes = b""):
        data = bytearray(table or bytes(24 * MIB))
        for at, piece in pieces.items():
            data[at : at + len(piece)] = piece
        return root.disk("vdb", 24 * MIB, content=bytes(data), serial="disk-2", where=SECOND)

    return make


def other_table(tmp_path) -> bytes:
    """Another system's disk: the same partitions, other identifiers."""
    data = bytes(partitioned(tmp_path, 24 * MIB))
    file = tmp_path / "other.img"
    file.write_bytes(data)
    script = f"label: gpt\nstart={2 * MIB // 512}, size={4 * MIB // 512}, type=U\ntype=L\n"
    subprocess.run(["sfdisk", "-q", file], input=script, text=True, check=True, capture_output=True, timeout=60)
    return file.read_bytes()


CASES = {
    "md": ({4096: b"\xfc\x4e\x2b\xa9\1\0\0\0" + bytes(200)}, "linux_raid_member", "RAID metadata"),
    "imsm": ({24 * MIB - 1024: b"Intel Raid ISM Cfg Sig. 1.1.00"}, "isw_raid_member", "RAID metadata"),
    "cidata": ({0: seed.fat({"user-data": b"x"}, 16 * MIB)}, "LABEL=cidata", "cloud-init"),
}


@pytest.mark.parametrize("case", CASES)
def test_stops_and_names_it(fake, disk, second, start, case):
    pieces, name, why = CASES[case]
    other = second(pieces)
    before = disk.read_bytes(), other.read_bytes()
    start(fake)
    until(lambda: fake.failures)
    failure = fake.failures[0]
    assert failure.code == "ForeignSignature"
    assert "vdb" in failure.message
    assert name in failure.message
    assert why in failure.message
    assert "wipe_signatures" in failure.hint
    assert (disk.read_bytes(), other.read_bytes()) == before


@pytest.mark.parametrize("case", CASES)
def test_wipes_only_the_signature_when_asked(fake, disk, second, start, case):
    pieces, name, _ = CASES[case]
    other = second(pieces)
    before = other.read_bytes()
    fake.assignment = replace(fake.assignment, wipe_signatures=True)
    start(fake).finish()
    check_disk(fake, disk)
    assert any("wiped" in note and name in note and "vdb" in note for note in fake.reports[0].notes)
    after = other.read_bytes()
    changed = [i for i in range(0, len(after), 512) if after[i : i + 512] != before[i : i + 512]]
    assert len(changed) == 1, "one sector"
    listed = disks.list_disks(disk.parent.parent)
    assert [d.signatures for d in listed if d.serial == "disk-2"] == [()]


def test_the_esp_of_an_old_system(fake, disk, second, start, tmp_path):
    table = other_table(tmp_path)
    other = second({2 * MIB: seed.fat({"x": b"1"}, 4 * MIB, label="EFI")}, table)
    start(fake)
    until(lambda: fake.failures)
    assert "EFI system partition of another system" in fake.failures[0].message
    assert "partition 1" in fake.failures[0].message
    fake.assignment = replace(fake.assignment, wipe_signatures=True, fence=8)
    until(lambda: fake.reports)
    check_disk(fake, disk)
    after = other.read_bytes()
    assert not any(after[2 * MIB : 2 * MIB + 512])
    assert after[: 2 * MIB] == table[: 2 * MIB], "the table stays"


def test_the_images_own_identifiers(fake, disk, second, start, image):
    second({}, image.data[: 24 * MIB])
    start(fake)
    until(lambda: fake.failures)
    message = fake.failures[0].message
    assert "the image's own identifier" in message
    assert "11111111-2222-3333-4444-555555555555" in message
    fake.assignment = replace(fake.assignment, wipe_signatures=True, fence=8)
    until(lambda: fake.reports)
    check_disk(fake, disk)


def test_the_images_own_file_system(fake, root, disk, first_disk_wanted, start, tmp_path):
    """An ext4 with the UUID of the image's root, without any table."""
    uuid = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff"
    file = tmp_path / "ext4.img"
    file.write_bytes(bytes(12 * MIB))
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-U", uuid, file], check=True, capture_output=True, timeout=60)
    data = fill(partitioned(tmp_path, 24 * MIB), [22])
    data[6 * MIB : 18 * MIB] = file.read_bytes()
    fake.image = as_image(bytes(data))
    fake.assignment = replace(fake.assignment, digest=fake.image.digest)
    root.disk("vdb", 12 * MIB, content=file.read_bytes(), where=SECOND)
    start(fake)
    until(lambda: fake.failures)
    assert f"ext4 UUID={uuid}" in fake.failures[0].message
    assert max(fake.asked.values()) == 1
    fake.assignment = replace(fake.assignment, wipe_signatures=True, fence=8)
    until(lambda: fake.reports)
    check_disk(fake, disk)


def test_lvm_luks_and_plain_data_on_a_second_disk_are_left_alone(fake, disk, second, start):
    other = second({512: b"LABELONE" + bytes(16) + b"LVM2 001" + b"x" * 32})
    before = other.read_bytes()
    start(fake).finish()
    check_disk(fake, disk)
    assert other.read_bytes() == before
    assert fake.reports[0].notes == ()


def test_raid_metadata_on_the_chosen_disk_too(fake, root, start):
    """At the disk's end it would outlive the image, and firmware would take the disk for a RAID member."""
    data = bytearray(b"\xff" * (64 * MIB))
    data[-1024:-1000] = b"Intel Raid ISM Cfg Sig. "
    disk = root.disk("vda", 64 * MIB, content=bytes(data))
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "ForeignSignature"
    assert disk.read_bytes() == data
    fake.assignment = replace(fake.assignment, wipe_signatures=True, fence=8)
    until(lambda: fake.reports)
    check_disk(fake, disk)
    assert b"Intel Raid" not in disk.read_bytes()


def test_an_old_system_on_the_chosen_disk_is_no_obstacle(fake, root, start, tmp_path):
    old = other_table(tmp_path)
    disk = root.disk("vda", 64 * MIB, content=old)
    start(fake).finish()
    check_disk(fake, disk)


def test_usb_and_virtual_media_are_not_looked_at(fake, root, disk, start):
    """Our own boot media may show up as one."""
    root.disk(
        "sdz",
        24 * MIB,
        content=seed.fat({}, 16 * MIB),
        where="pci0000:00/0000:00:14.0/usb1/1-1/host9/target9:0:0/9:0:0:0/block",
    )
    start(fake).finish()
    check_disk(fake, disk)
