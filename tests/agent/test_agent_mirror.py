"""A root of two disks: each holds the whole image, boots alone, and carries metadata that mdadm takes for its own."""

from __future__ import annotations

import re
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from agent_rig import MIB, FakeController, seed_extent, until

from metalimmu.agent import gpt, mirror, signatures
from metalimmu.agent.block import Device
from metalimmu.agent.disks import reader
from metalimmu.agent.mirror import HalvesDiffer, Mirror
from metalimmu.errors import DiskUnsuitable
from metalimmu.wire.messages import RootDisk

SECOND = "pci0000:00/0000:00:06.0/virtio2/block"


def examined(disk: Path) -> dict[str, str]:
    done = subprocess.run(["mdadm", "--examine", disk], capture_output=True, text=True, check=True, timeout=60)
    return {k.strip(): v.strip() for k, _, v in (line.partition(" : ") for line in done.stdout.splitlines()) if v}


@pytest.fixture
def halves(root, fake):
    """The second one is 8 MiB larger. Both are sparse behind an old beginning."""
    disk = root.disk("vda", 64 * MIB, content=b"old system! " * 50_000, serial="disk-1")
    other = root.disk("vdb", 72 * MIB, content=b"another old " * 50_000, serial="disk-2", where=SECOND)
    fake.assignment = replace(fake.assignment, mirrored=True, host="node-1")
    return disk, other


def check_half(fake: FakeController, disk: Path) -> None:
    data = disk.read_bytes()
    size = mirror.array_size(64 * MIB)
    table = gpt.parse(data[:MIB], 512)
    assert table.alternate == size // 512 - 1, "the table ends with the array, not with the disk"
    want = bytearray(fake.image.data)
    have = bytearray(data[: len(want)])
    for line in fake.reports[-1].changed:
        at, length = map(int, line.split()[0].split("+"))
        for part in (want, have):
            part[at : min(at + length, len(part))] = bytes(max(0, min(at + length, len(part)) - at))
    assert have == want


def test_both_hold_the_image_and_are_one_array(fake, halves, start):
    agent = start(fake)
    agent.finish()
    for half in halves:
        check_half(fake, half)
    one, two = map(examined, halves)
    assert (one["Version"], one["Raid Level"], one["Raid Devices"], one["Name"]) == ("1.0", "raid1", "2", "node-1:root")
    assert one["Array UUID"] == two["Array UUID"]
    assert one["Device UUID"] != two["Device UUID"]
    assert "correct" in one["Checksum"]
    assert "correct" in two["Checksum"]
    assert [x["Device Role"] for x in (one, two)] == ["Active device 0", "Active device 1"]
    assert one["Array Size"].startswith(f"{mirror.array_size(64 * MIB) >> 10} KiB")
    report = fake.reports[0]
    assert (report.disk.serial, report.mirror.serial) == ("disk-1", "disk-2")
    assert report.fetched_chunks == len(fake.image.frames), "fetched once, written twice"
    # blkid sees a member of an array, and no boot loader is misled: the table is where it always is.
    found = signatures.scan(reader(str(halves[0])), 64 * MIB, 512)
    assert {"gpt", "linux_raid_member"} <= {s.type for s in found}
    extent = seed_extent(fake.image.manifest, report)
    assert (
        halves[0].read_bytes()[extent.offset :][: extent.length]
        == halves[1].read_bytes()[extent.offset :][: extent.length]
    )


def test_the_next_version_knows_its_own_array_and_fetches_what_differs(fake, halves, start, image, image2):
    start(fake).finish()
    first = examined(halves[0])["Array UUID"]
    fake.assignment = replace(
        fake.assignment, digest=image2.digest, image="web@2", previous_digest=image.digest, deployment="d2"
    )
    fake.image, fake.images = image2, [image]
    start(fake).finish()
    for half in halves:
        check_half(fake, half)
    assert fake.reports[1].fetched_chunks < len(image2.frames)
    assert fake.reports[1].kept_chunks
    assert examined(halves[1])["Array UUID"] != first, "an array is of one deployment: an old half is never its member"


def test_what_only_one_half_holds_is_written_anew(fake, halves, start, image, image2):
    """A disk was replaced: the delta is of what both have."""
    start(fake).finish()
    halves[1].write_bytes(b"a new disk? " * (72 * MIB // 12))
    fake.assignment = replace(fake.assignment, digest=image2.digest, previous_digest=image.digest, deployment="d2")
    fake.image, fake.images = image2, [image]
    start(fake).finish()
    for half in halves:
        check_half(fake, half)
    assert fake.reports[1].kept_chunks == 0


def test_a_half_that_reads_back_different_is_found(fake, halves, start):
    """After all was written, before the disk may boot."""
    broken = threading.Event()
    real = Device.read_into

    def read_into(self, view, offset):
        real(self, view, offset)
        if self.path.endswith("vdb") and offset == 8 * MIB and not isinstance(self, Mirror):
            broken.set()
            view[100] ^= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "read_into", read_into)
        start(fake)
        until(lambda: fake.failures)
    assert broken.is_set()
    assert (fake.failures[0].code, fake.failures[0].phase) == ("ReadBackDiffers", "read-back")
    assert re.search(r"vda and .*vdb.*not the same on both", fake.failures[0].message)
    assert not any(halves[0].read_bytes()[:MIB]), "it cannot boot"


def test_somebody_elses_array_is_not_ours(fake, halves, start):
    size = halves[0].stat().st_size
    block = mirror.superblock("x", "other:root", 0, number=0, disk=size, size=mirror.array_size(size))
    with halves[0].open("r+b") as file:
        file.seek(mirror.superblock_at(size))
        file.write(block)
    before = [h.read_bytes() for h in halves]
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "ForeignSignature"
    assert [h.read_bytes() for h in halves] == before


def test_a_former_half_beside_a_new_single_root_is_refused_until_it_may_be_wiped(fake, halves, start):
    """It would boot, and be taken for the root by its identifiers."""
    start(fake).finish()
    fake.assignment = replace(fake.assignment, mirrored=False, root_disk=RootDisk(serial="disk-1"), fence=8)
    start(fake)
    until(lambda: fake.failures)
    assert "vdb" in fake.failures[0].message
    assert "vda" not in fake.failures[0].message, "the root's own metadata is no obstacle"


class TestSizes:
    def test_the_metadata_lies_behind_the_array_with_room_for_a_bitmap(self):
        for size in (64 * MIB, 64 * MIB + 512, 500_107_862_016, 3_840_755_982_336):
            at = mirror.superblock_at(size)
            assert at % 4096 == 0
            assert size - at >= 8192
            assert at - mirror.array_size(size) >= MIB
            assert size - mirror.array_size(size) < 4 * MIB

    def test_a_disk_that_is_too_small(self, tmp_path):
        for name in "ab":
            (tmp_path / name).write_bytes(bytes(3 * MIB))
        with (
            Device(str(tmp_path / "a")) as a,
            Device(str(tmp_path / "b")) as b,
            pytest.raises(DiskUnsuitable, match="too small"),
        ):
            Mirror((a, b))

    def test_reads_compare(self, tmp_path):
        for name in "ab":
            (tmp_path / name).write_bytes(bytes(16 * MIB))
        with Device(str(tmp_path / "a")) as a, Device(str(tmp_path / "b")) as b:
            both = Mirror((a, b))
            both.write(4096, b"x" * 512)
            assert both.read(4096, 512) == b"x" * 512
            b.write(4096, b"y" * 512)
            with pytest.raises(HalvesDiffer):
                both.read(4096, 512)
