"""The whole way of the agent against a controller on the loopback, with a file as disk."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace

import pytest
from agent_rig import (
    MAC,
    MIB,
    TOKEN,
    FakeController,
    FakeRoot,
    as_image,
    assignment,
    fill,
    log_text,
    partitioned,
    run_time_config,
    seed_extent,
    until,
)

from metalimmu.agent import gpt, signatures
from metalimmu.wire.manifest import Extent, read_back_digest
from metalimmu.wire.messages import Orders, Refusal, RootDisk


def check_disk(fake: FakeController, disk) -> None:
    """The disk is the image with exactly the declared changes, and its table is good."""
    data = disk.read_bytes()
    want = bytearray(fake.image.data)
    changed = [tuple(map(int, line.split()[0].split("+"))) for line in fake.reports[-1].changed]
    have = bytearray(data[: len(want)])
    for at, length in changed:
        for part in (want, have):
            part[at : min(at + length, len(part))] = bytes(max(0, min(at + length, len(part)) - at))
    assert have == want
    table = gpt.parse(data[:MIB], 512)
    assert table.alternate == len(data) // 512 - 1


def test_writes_reads_back_configures_reports_and_restarts_on_go(fake, disk, start):
    agent = start(fake)
    agent.finish()
    assert agent.machine.reboots == 1
    report = fake.reports[0]
    check_disk(fake, disk)
    assert report.read_back == read_back_digest(fake.image.manifest.chunks)
    assert report.digest == fake.image.digest
    assert report.config_digest == fake.config.digest
    assert report.kept_chunks == 0
    assert report.fetched_chunks == len(fake.image.frames)
    assert report.fetched_bytes == sum(map(len, fake.image.frames.values()))
    assert report.zero_bytes == sum(e.length for e in fake.image.manifest.zero_extents())
    assert report.resumed == 0
    assert report.fence == 7
    assert report.efi_entries == ("0000 metalimmu web@1 \\EFI\\BOOT\\BOOTX64.EFI",)
    assert set(fake.asked.values()) == {1}, "equal chunks are fetched once"
    assert not fake.failures
    extent = seed_extent(fake.image.manifest, report)
    on_seed = disk.read_bytes()[extent.offset : extent.offset + extent.length]
    found = list(signatures.probe(lambda at, n: on_seed[at : at + n], 0, extent.length, 512))
    assert [(s.type, s.label) for s in found] == [("vfat", "cidata")]
    assert b"#cloud-config" in on_seed


def test_tells_what_the_machine_is(fake, root, disk, start):
    root.disk("sdz", 8 * MIB, where="pci0000:00/0000:00:14.0/usb1/1-1/host9/target9:0:0/9:0:0:0/block")
    start(fake).finish()
    check_in = fake.check_ins[0]
    assert (check_in.identity.serial, check_in.identity.nics[0].mac) == ("7XK2P13", MAC)
    assert (check_in.firmware, check_in.memory) == ("uefi", 1000000 * 1024)
    assert [(d.path.rpartition("/")[2], d.unusable) for d in check_in.disks] == [("sdz", "USB"), ("vda", "")]


def test_phases_are_told_in_order(fake, disk, start):
    fake.slow = 0.15
    start(fake).finish()
    seen = list(dict.fromkeys(p.phase for p in fake.progress))
    order = ["identify", "zero", "write", "read-back", "config", "wait"]
    assert seen == [p for p in order if p in seen]
    assert seen[-1] == "wait"
    assert all(p.done <= p.total for p in fake.progress if p.total)


def test_the_token_is_in_no_log_and_on_no_plain_connection(fake, disk, start, certificate, image):
    plain = FakeController(certificate, image, fake.assignment, plain=True).start()
    try:
        agent = start(plain)
        agent.finish()
        assert plain.tokens == {""}
        assert plain.assignment.chunk_base.startswith("http://")
        assert TOKEN not in log_text(plain, agent)
    finally:
        plain.stop()


def test_no_first_byte_boots_before_everything_else_was_read_back(fake, disk, start):
    """While the write runs, the disk has neither boot sector nor tables."""
    seen: list[bool] = []

    def look(chunk):
        if chunk.sha != fake.image.manifest.chunks[0]:
            data = disk.read_bytes()
            seen.append(any(data[:MIB]) or any(data[-MIB:]))
        return False

    fake.fault = look
    start(fake).finish()
    assert len(seen) >= 5
    assert not any(seen)


def test_only_what_differs_is_fetched(fake, disk, start, image, image2):
    start(fake).finish()
    fake.assignment = replace(fake.assignment, digest=image2.digest, image="web@2", previous_digest=image.digest)
    fake.image, fake.images = image2, [image]
    before = dict(fake.asked)
    start(fake).finish()
    check_disk(fake, disk)
    new = {sha for sha in fake.asked if fake.asked[sha] > before.get(sha, 0)}
    changed = set(image2.frames) - set(image.frames)
    assert changed <= new
    assert new <= changed | {image2.manifest.chunks[0]}, "the first chunk only besides, since its table was changed"
    report = fake.reports[-1]
    places = [i for i, c in enumerate(image2.manifest.chunks) if i and c and c == image.manifest.chunks[i]]
    assert report.kept_chunks == len(places)
    assert report.resumed == 0


def test_a_previous_image_that_is_not_on_the_disk_costs_nothing_but_time(fake, disk, start, image2):
    fake.images = [image2]
    fake.assignment = replace(fake.assignment, previous_digest=image2.digest)
    start(fake).finish()
    check_disk(fake, disk)
    assert fake.reports[-1].kept_chunks == 0


def test_a_previous_image_that_was_removed_means_no_delta(fake, disk, start):
    fake.assignment = replace(fake.assignment, previous_digest="sha256:" + "0" * 64)
    agent = start(fake)
    agent.finish()
    check_disk(fake, disk)
    assert any("no delta" in line for line in agent.lines)


def test_the_same_image_again_fetches_one_chunk(fake, disk, start, image):
    start(fake).finish()
    fake.asked.clear()
    fake.assignment = replace(fake.assignment, previous_digest=image.digest)
    start(fake).finish()
    check_disk(fake, disk)
    assert set(fake.asked) == {image.manifest.chunks[0]}
    assert fake.reports[-1].resumed == 0, "a finished disk was not broken off"


@pytest.mark.parametrize("stage", ["wait", "done"])
def test_a_stage_without_writing_writes_nothing(fake, disk, start, stage):
    before = hashlib.sha256(disk.read_bytes()).digest()
    fake.assignment = replace(fake.assignment, stage=stage)
    fake.orders = lambda p: Orders(7, go=len(fake.progress) > 3, stage=stage)
    agent = start(fake)
    agent.finish()
    assert {p.phase for p in fake.progress[1:]} == {"wait"}
    assert hashlib.sha256(disk.read_bytes()).digest() == before
    assert not fake.asked
    assert not fake.failures


def test_a_refused_check_in_is_asked_again_and_nothing_is_written(fake, disk, start):
    before = disk.read_bytes()
    fake.refusal = (409, Refusal("IdentityMismatch", "this token belongs to another machine"))
    agent = start(fake)
    until(lambda: len(fake.check_ins) > 3)
    assert disk.read_bytes() == before
    assert any("belongs to another machine" in line for line in agent.lines)
    fake.refusal = None
    agent.finish()
    check_disk(fake, disk)


def test_another_machine_is_never_written(fake, disk, start):
    before = disk.read_bytes()
    fake.assignment = replace(fake.assignment, serial="OTHER99")
    agent = start(fake)
    until(lambda: fake.failures)
    failure = fake.failures[0]
    assert failure.code == "IdentityMismatch"
    assert "OTHER99" in failure.message
    assert "7XK2P13" in failure.message
    assert failure.evidence["serial"] == "7XK2P13"
    assert disk.read_bytes() == before
    until(lambda: len(fake.check_ins) > 3)
    assert len(fake.failures) == 1, "one failure is told once"
    assert not agent.ended.is_set()


def test_after_a_failure_only_a_newer_fence_starts_again(fake, disk, start):
    good = fake.assignment
    fake.assignment = replace(good, serial="OTHER99")
    agent = start(fake)
    until(lambda: fake.failures)
    asked = len(fake.check_ins)
    fake.assignment = good
    until(lambda: len(fake.check_ins) > asked + 3)
    assert not fake.asked
    fake.assignment = replace(good, fence=8)
    agent.finish()
    check_disk(fake, disk)
    assert fake.reports[0].fence == 8


def test_an_assignment_with_an_older_fence_is_ignored(fake, disk, start):
    before = disk.read_bytes()
    agent = start(fake, fence=9)
    until(lambda: len(fake.check_ins) > 3)
    assert disk.read_bytes() == before
    assert {c.fence for c in fake.check_ins} == {9}
    assert any("fence 7 ignored: 9 was seen" in line for line in agent.lines)
    fake.assignment = replace(fake.assignment, fence=9)
    agent.finish()
    check_disk(fake, disk)


def test_orders_with_an_older_fence_are_ignored(fake, disk, start):
    newest = threading.Event()

    def orders(progress):
        if progress.phase != "wait":
            return Orders(7)
        if not newest.is_set():
            newest.set()
            return Orders(9)
        return Orders(8, go=True) if len(fake.progress) % 2 else Orders(8, stop="old worker")

    fake.orders = orders
    agent = start(fake)
    until(lambda: sum("orders with fence 8 ignored: 9 was seen" in line for line in agent.lines) > 1)
    assert agent.machine.reboots == 0
    fake.orders = lambda p: Orders(9, go=True)
    agent.finish()
    assert fake.failures == []


def test_go_is_obeyed_only_when_all_is_written(fake, disk, start):
    fake.slow = 0.1
    fake.orders = lambda p: Orders(7, go=True)
    start(fake).finish()
    assert fake.reports
    check_disk(fake, disk)


def test_stop_ends_the_write(fake, disk, start):
    fake.slow = 0.3
    fake.orders = lambda p: Orders(7, stop="cancelled by anna") if p.phase == "write" else Orders(7)
    agent = start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "AgentRefused"
    assert "cancelled by anna" in fake.failures[0].message
    asked = sum(fake.asked.values())
    assert asked < len(fake.image.frames)
    state = disk.read_bytes()
    until(lambda: len(fake.check_ins) > 3)
    assert sum(fake.asked.values()) == asked
    assert disk.read_bytes() == state
    fake.orders, fake.slow = None, 0
    fake.assignment = replace(fake.assignment, fence=8)
    agent.finish()
    check_disk(fake, disk)
    assert max(fake.asked.values()) <= 2


def test_a_seed_partition_of_the_image_is_used(fake, root, start, tmp_path):
    data = fill(partitioned(tmp_path, 16 * MIB, seed=True), [2, 8, 9])
    fake.image = as_image(bytes(data), seed=Extent(6 * MIB, MIB))
    fake.assignment = replace(fake.assignment, digest=fake.image.digest)
    fake.config = run_time_config({"user-data": "x" * 100_000})
    disk = root.disk("vda", 40 * MIB)
    start(fake).finish()
    check_disk(fake, disk)
    on_seed = disk.read_bytes()[6 * MIB : 7 * MIB]
    assert b"x" * 100_000 in on_seed
    assert f"{6 * MIB}+{MIB} seed" in fake.reports[0].changed


def test_without_run_time_config_no_seed_is_made(fake, disk, start):
    fake.config = run_time_config({})
    start(fake).finish()
    assert not any("seed" in line for line in fake.reports[0].changed)
    check_disk(fake, disk)


def test_a_disk_as_large_as_the_image(fake, root, start, image):
    fake.config = run_time_config({})
    disk = root.disk("vda", len(image.data))
    start(fake).finish()
    assert disk.read_bytes() == image.data
    assert fake.reports[0].changed == ()


def test_sectors_of_4096_bytes(fake, root, start, tmp_path):
    data = fill(partitioned(tmp_path, 16 * MIB, 4096), [2, 3, 9])
    fake.image = as_image(bytes(data), sector_size=4096)
    fake.assignment = replace(fake.assignment, digest=fake.image.digest)
    disk = root.disk("nvme0n1", 48 * MIB, sector=4096, where="pci0000:00/0000:00:05.0/nvme/nvme0")
    start(fake).finish()
    table = gpt.parse(disk.read_bytes()[:MIB], 4096)
    assert table.alternate == 48 * MIB // 4096 - 1
    assert [p.name for p in table.partitions()][-1] == "cidata"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"root_disk": RootDisk(serial="nope")}, "DiskSelectionError", ("no disk", "serial=nope", "vda", "disk-1")),
        ({"root_disk": RootDisk(min_size=1 << 40)}, "DiskSelectionError", ("too few",)),
    ],
)
def test_no_disk_fits(fake, disk, start, change, code, words):
    before = disk.read_bytes()
    fake.assignment = replace(fake.assignment, **change)
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == code
    assert all(word in fake.failures[0].message for word in words), fake.failures[0].message
    assert [d.serial for d in fake.failures[0].disks] == ["disk-1"]
    assert disk.read_bytes() == before


def test_two_disks_fit(fake, root, disk, start):
    root.disk("vdb", 64 * MIB, serial="disk-2", where="pci0000:00/0000:00:06.0/virtio2/block")
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "DiskSelectionError"
    assert "2 disks of 2" in fake.failures[0].message
    assert "disk-2" in fake.failures[0].message


@pytest.mark.parametrize(
    ("size", "sector", "fields", "words"),
    [
        (16 * MIB, 512, {}, "the disk has 16777216 bytes, the image 25166336"),
        (30 * MIB, 512, {}, "the seed needs 16777216"),
        (64 * MIB, 4096, {}, "logical sectors of 4096"),
        (64 * MIB, 512, {"partition_table": "none"}, "no partition table and no seed"),
        (64 * MIB, 512, {"partition_table": "gpt", "corrupt": True}, "GPT"),
    ],
)
def test_an_unsuitable_disk_is_not_touched(fake, root, start, image, size, sector, fields, words):
    data = bytearray(image.data)
    if fields.pop("corrupt", False):
        data[512:520] = b"NOT PART"
    fake.image = as_image(bytes(data), **fields)
    fake.assignment = replace(fake.assignment, digest=fake.image.digest)
    disk = root.disk("vda", size, sector=sector, content=b"x" * size)
    start(fake)
    until(lambda: fake.failures)
    assert fake.failures[0].code == "DiskUnsuitable"
    assert words in fake.failures[0].message, fake.failures[0].message
    assert disk.read_bytes() == b"x" * size


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architecture": "aarch64"}, "is for aarch64, the machine is"),
        ({"firmware": ("bios",)}, "boots with bios, the machine booted with uefi"),
        ({"kind": "nos"}, "of kind nos"),
    ],
)
def test_an_image_for_other_machines(fake, disk, start, image, fields, words):
    before = disk.read_bytes()
    fake.image = as_image(image.data, **fields)
    fake.assignment = replace(fake.assignment, digest=fake.image.digest)
    start(fake)
    until(lambda: fake.failures)
    assert words in fake.failures[0].message
    assert disk.read_bytes() == before


def test_a_run_time_config_that_lies_about_its_digest(fake, disk, start):
    before = disk.read_bytes()
    fake.config = replace(fake.config, digest="0" * 64)
    start(fake)
    until(lambda: fake.failures)
    assert "digest" in fake.failures[0].message
    assert disk.read_bytes() == before


def test_bios_machines_get_no_boot_entries(certificate, image, tmp_path, start):
    root = FakeRoot(tmp_path / "bios", uefi=False)
    disk = root.disk("vda", 64 * MIB)
    fake = FakeController(certificate, image, assignment(image)).start()
    try:
        from agent_rig import RunningAgent

        RunningAgent(fake, root).start().finish()
        assert fake.check_ins[0].firmware == "bios"
        assert fake.reports[0].efi_entries == ()
        check_disk(fake, disk)
    finally:
        fake.stop()


def test_the_clock_is_set_to_the_controllers(fake, disk, start):
    fake.assignment = replace(fake.assignment, clock=1_800_000_000.0)
    agent = start(fake)
    agent.finish()
    assert agent.machine.clocks == [1_800_000_000.0]
