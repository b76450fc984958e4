"""Disks to be kept: no way of the agent writes one, and the lowest functions that write refuse it themselves."""

from __future__ import annotations

import ast
import fcntl
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from agent_rig import MIB, until
from test_agent_foreign import other_table
from test_agent_run import check_disk

import metalimmu.agent
from metalimmu.agent import guard
from metalimmu.agent.block import Buffer, Device
from metalimmu.errors import DiskKept
from metalimmu.wire.messages import Erase, RootDisk

SECOND = "pci0000:00/0000:00:06.0/virtio2/block"


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    guard.keep(())


@pytest.fixture
def disk(root):
    """Sparse: an old system at its beginning, nothing behind."""
    return root.disk("vda", 64 * MIB, content=b"old system! " * 50_000, serial="disk-1")


@pytest.fixture
def data(tmp_path) -> Path:
    file = tmp_path / "data"
    file.write_bytes(os.urandom(2 * MIB))
    return file


class TestTheLowestFunctions:
    """Whoever opens a disk, and by whatever name, ends in one of these."""

    def test_a_kept_disk_cannot_be_opened_for_writing(self, data, tmp_path):
        other = tmp_path / "other-name"
        other.symlink_to(data)
        hard = tmp_path / "hard"
        os.link(data, hard)
        guard.keep([str(data)])
        for name in (data, other, hard):
            with pytest.raises(DiskKept, match="is to be kept, and was about to be written"):
                Device(str(name))

    @pytest.mark.parametrize(
        "write",
        [
            lambda d: d.write_from(Buffer(4096).view, 0),
            lambda d: d.write(0, bytes(4096)),
            lambda d: d.zero(0, MIB),
            lambda d: d.command(0x1234, bytearray(8)),
        ],
    )
    def test_one_that_was_open_already_is_not_written(self, data, write):
        before = data.read_bytes()
        with Device(str(data)) as device:
            guard.keep([str(data)])
            with pytest.raises(DiskKept):
                write(device)
        assert data.read_bytes() == before

    def test_reading_it_is_allowed_to_who_opened_it(self, data):
        with Device(str(data)) as device:
            guard.keep([str(data)])
            assert device.read(0, 4096) == data.read_bytes()[:4096]

    def test_what_is_no_longer_to_be_kept_can_be_written(self, data):
        guard.keep([str(data)])
        guard.keep([])
        with Device(str(data)) as device:
            device.zero(0, 4096)
        assert data.read_bytes()[:4096] == bytes(4096)

    def test_a_disk_that_is_not_there_cannot_be_kept(self, tmp_path):
        with pytest.raises(DiskKept, match="cannot be looked at"):
            guard.keep([str(tmp_path / "gone")])


class TestTheKernel:
    """Block devices, as the kernel shows them; its side is played here and seen for real in the virtual machines."""

    @pytest.fixture
    def kernel(self, monkeypatch, tmp_path):
        state = {"ro": 0, "obeys": True}

        def ioctl(_fd, request, argument=0, *_):
            if request == guard.BLKROSET and state["obeys"]:
                state["ro"] = int.from_bytes(argument, "little")
            return state["ro"].to_bytes(4, "little")

        disk = tmp_path / "sdb"
        disk.write_bytes(b"x")

        def looked(path):
            found = os.lstat(path)
            return os.stat_result((stat.S_IFBLK | 0o600, *found[1:]), {"st_rdev": os.makedev(8, 16)})

        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        real = Path.stat
        monkeypatch.setattr(Path, "stat", lambda path, **more: looked(path) if path == disk else real(path, **more))
        state["disk"] = disk
        return state

    def test_is_told_that_the_disk_is_read_only_and_later_that_it_is_not(self, kernel):
        guard.keep([str(kernel["disk"])])
        assert kernel["ro"] == 1
        guard.keep([])
        assert kernel["ro"] == 0

    def test_a_kernel_that_does_not_obey_is_noticed(self, kernel):
        kernel["obeys"] = False
        with pytest.raises(DiskKept, match="does not make it read-only"):
            guard.keep([str(kernel["disk"])])

    def test_partitions_are_kept_with_their_disk(self, kernel, tmp_path):
        folder = tmp_path / "root/sys/dev/block/8:16/sdb1"
        folder.mkdir(parents=True)
        (folder / "partition").write_text("1\n")
        (folder / "dev").write_text("8:17\n")
        guard.keep([str(kernel["disk"])], tmp_path / "root")
        with pytest.raises(DiskKept):
            guard.check(("block", 8, 17), "anything")
        guard.check(("block", 8, 33), "anything")


def test_nothing_else_in_the_agent_writes_to_devices():
    """Every call that could write a disk stands in block.py, behind the guard. What other modules do with such calls is
    listed here by hand: a new one must be looked at.
    """
    allowed = {
        "block.py": {"os.pwritev", "fcntl.ioctl", "os.open", "_libc.fallocate"},
        "guard.py": {"os.open", "fcntl.ioctl"},  # O_RDONLY; BLKROSET
        "salvage.py": {"os.open", "fcntl.ioctl"},  # O_RDONLY; BLKROSET
        "burnin.py": {"os.preadv"},
        "nvme.py": {"fcntl.ioctl"},  # identify and logs; what changes anything goes through Device.command
        "ata.py": {"fcntl.ioctl"},  # IDENTIFY DEVICE alike
        "efi.py": {"os.open", "os.write", "fcntl.ioctl"},  # efivarfs
        "clock.py": {"os.open", "fcntl.ioctl"},  # the clock
    }
    risky = re.compile(
        r"(os\.(open|write|pwrite|pwritev|writev|sendfile|copy_file_range)|fcntl\.ioctl|_libc\.fallocate|\w+\.write_bytes)$"
    )
    found: dict[str, set[str]] = {}
    for file in Path(metalimmu.agent.__file__).parent.glob("*.py"):
        calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)}
        if hits := {c for c in calls if risky.match(c)} - {"os.preadv"}:
            found[file.name] = hits
    for name, hits in found.items():
        assert hits <= allowed.get(name, set()), f"{name} has a new way to write: {hits - allowed.get(name, set())}"


@pytest.fixture
def kept(root, fake, tmp_path):
    """A second disk full of somebody's data: a member of an array, by a superblock at its end."""
    content = bytearray(other_table(tmp_path))
    content[-8192:-8180] = b"\xfc\x4e\x2b\xa9\1\0\0\0data"
    file = root.disk("vdb", 24 * MIB, content=bytes(content), serial="data-1", where=SECOND)
    fake.assignment = replace(fake.assignment, keep=(RootDisk(serial="data-1"),))
    return file


def test_a_kept_disk_is_left_alone_whatever_is_on_it(fake, disk, kept, start):
    """No hint names the root: there is one disk that may be it. RAID metadata there is no reason to stop."""
    before = kept.read_bytes()
    fake.assignment = replace(fake.assignment, wipe_signatures=True)
    agent = start(fake)
    agent.finish()
    check_disk(fake, disk)
    assert "linux_raid_member" in " ".join(next(d for d in fake.check_ins[0].disks if d.path == str(kept)).signatures)
    assert fake.reports[0].kept == (str(kept),)
    assert any("kept, not to be written" in line for line in agent.lines)
    assert kept.read_bytes() == before


def test_what_would_be_taken_for_the_new_system_stops_it_even_where_wiping_is_allowed(fake, disk, kept, start, image):
    kept.write_bytes(image.data[: 24 * MIB].ljust(24 * MIB, b"\0"))
    before = kept.read_bytes(), disk.read_bytes()
    fake.assignment = replace(fake.assignment, wipe_signatures=True)
    start(fake)
    until(lambda: fake.failures)
    assert (fake.failures[0].code, fake.failures[0].phase) == ("DiskKept", "identify")
    assert "by hand" in fake.failures[0].hint
    assert (kept.read_bytes(), disk.read_bytes()) == before


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"root_disk": RootDisk(serial="data-1")}, "DiskSelectionError"),
        ({"erase": (Erase(RootDisk(serial="data-1"), "zero"),)}, "DiskKept"),
        ({"mirrored": True, "mirror": RootDisk(serial="data-1")}, "DiskSelectionError"),
        ({"keep": (RootDisk(serial="data-1"), RootDisk(serial="data-2"))}, "DiskSelectionError"),
    ],
)
def test_a_contradiction_stops_before_anything_is_written(fake, disk, kept, start, fields, code):
    fake.assignment = replace(fake.assignment, **fields)
    before = kept.read_bytes(), disk.read_bytes()
    start(fake)
    until(lambda: fake.failures)
    assert (fake.failures[0].code, fake.failures[0].phase) == (code, "identify")
    assert (kept.read_bytes(), disk.read_bytes()) == before
