"""Files of the old system: what goes into the archive, what does not, and that nothing is written before they are safe."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from agent_rig import MIB, log_text, partitioned, until
from test_agent_run import check_disk

from metalimmu.agent import salvage
from metalimmu.agent.deploy import Deployment
from metalimmu.errors import SalvageFailed
from metalimmu.wire.messages import Disk, Salvage


class Quiet:
    def check(self):
        pass


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: m for m in tar}


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}


def packed(root: Path, *paths: str, limit: int = MIB) -> tuple[bytes, salvage.Taken]:
    taken = salvage.Taken()
    return b"".join(salvage.archive(root, Salvage(paths, limit), taken, limit, Quiet())), taken


@pytest.fixture
def disk(root):
    """Sparse: an old system at its beginning, nothing behind."""
    return root.disk("vda", 64 * MIB, content=b"old system! " * 50_000, serial="disk-1")


@pytest.fixture
def old(tmp_path) -> Path:
    """The old system's root."""
    root = tmp_path / "old"
    for name, content in {
        "var/log/syslog": "lines\n" * 1000,
        "var/log/app/one.log": "1",
        "var/log/app/two.log": "22",
        "var/log/empty": "",
        "var/crash/dump.0": "core",
        "etc/shadow": "secret",
        "home/a/notes.txt": "A",
        "home/b/notes.txt": "B",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


class TestTheArchive:
    def test_folders_with_all_below_files_and_patterns_each_once(self, old):
        data, taken = packed(old, "/var/log", "/var/log/app", "/home/*/notes.txt", "/var/crash/dump.?", "/nothing/here")
        assert set(contents(data)) == {
            "var/log/syslog", "var/log/app/one.log", "var/log/app/two.log", "var/log/empty", "var/crash/dump.0",
            "home/a/notes.txt", "home/b/notes.txt",
        }  # fmt: skip
        assert contents(data)["var/log/syslog"] == b"lines\n" * 1000
        assert (taken.files, taken.left_out, taken.unreadable) == (7, 0, [])

    def test_links_are_kept_as_links_and_never_followed(self, old):
        (old / "var/log/out").symlink_to("/etc/shadow")
        (old / "var/log/dir").symlink_to("../../etc")
        (old / "linked").symlink_to("etc")
        data, _ = packed(old, "/var/log", "/linked/shadow", "/../../etc/passwd", "/var/log/../../etc/shadow")
        found = members(data)
        assert found["var/log/out"].issym()
        assert found["var/log/dir"].linkname == "../../etc"
        assert not any("shadow" in name or "passwd" in name for name in contents(data))

    def test_what_is_no_file_is_left_out(self, old):
        os.mkfifo(old / "var/log/pipe")
        assert "var/log/pipe" not in members(packed(old, "/var/log")[0])

    def test_what_does_not_fit_is_left_out_and_counted(self, old):
        data, taken = packed(old, "/var/log", limit=1000)
        assert set(contents(data)) == {"var/log/app/one.log", "var/log/app/two.log", "var/log/empty"}
        assert (taken.left_out, taken.left_bytes) == (1, 6000)
        assert "1 files with 0.0 MB left out: over the limit" in taken.told(salvage.Volume("/dev/sda2", "ext4", "sda2"))

    def test_a_file_that_cannot_be_read_to_its_end_leaves_the_archive_whole(self, old, monkeypatch):
        real = Path.open

        class Broken(io.BytesIO):
            def read(self, n=-1):
                if self.tell():
                    raise OSError(5, "Input/output error")
                return super().read(min(n, 100))

        def opened(path, *args, **more):
            file = real(path, *args, **more)
            if path.name != "one.log":
                return file
            with file:
                return contextlib.closing(Broken(file.read()))

        (old / "var/log/app/one.log").write_bytes(b"x" * 500)
        monkeypatch.setattr(Path, "open", opened)
        data, taken = packed(old, "/var/log")
        assert contents(data)["var/log/app/one.log"] == b"x" * 100 + bytes(400)
        assert contents(data)["var/log/app/two.log"] == b"22"
        assert taken.unreadable == ["/var/log/app/one.log (its last 400 bytes)"]

    def test_names_of_all_kinds_and_long_ones(self, old):
        name = "ü" * 60 + "/" + "x" * 200
        (old / "var/log" / name).parent.mkdir()
        (old / "var/log" / name).write_text("long")
        (old / "var/log/new\nline").write_text("n")
        assert contents(packed(old, "/var/log")[0])[f"var/log/{name}"] == b"long"


def test_file_systems_are_found_and_the_others_named(tmp_path):
    from metalimmu.agent.signatures import Signature

    disk = Disk("/dev/nvme0n1", 1)
    signs = [Signature("gpt", 0), Signature("vfat", 1, partition=1), Signature("ext4", 1, partition=2), Signature("xfs", 1, partition=3), Signature("crypto_LUKS", 1, partition=4)]  # fmt: skip
    found, others = salvage.volumes(disk, signs)
    assert [(v.device, v.name, v.options) for v in found] == [("/dev/nvme0n1p2", "nvme0n1p2", "noload"), ("/dev/nvme0n1p3", "nvme0n1p3", "norecovery")]  # fmt: skip
    assert others == ["/dev/nvme0n1p4 is crypto_LUKS: not looked into"]
    assert salvage.volumes(Disk("/dev/sda", 1), [Signature("ext4", 0)])[0][0].device == "/dev/sda"


def test_a_device_that_cannot_be_mounted_says_why(tmp_path):
    with (
        pytest.raises(SalvageFailed, match="cannot be opened"),
        salvage.mounted(str(tmp_path / "gone"), "ext4", "noload", at=tmp_path / "at"),
    ):
        pass


@pytest.fixture
def old_disk(root, tmp_path) -> Path:
    """A disk with a real ext4 on its second partition."""
    data = partitioned(tmp_path, 40 * MIB)
    fs = tmp_path / "root.ext4"
    with fs.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", fs], check=True, capture_output=True, timeout=60)
    data[6 * MIB : 22 * MIB] = fs.read_bytes()
    return root.disk("vda", 64 * MIB, content=bytes(data), serial="disk-1")


@pytest.fixture
def mounts(monkeypatch, old):
    """The kernel's mount is played: the folder is what the disk held."""
    seen = []

    @contextlib.contextmanager
    def mount(device, kind, options):
        seen.append((device.rpartition("/")[2], kind, options))
        if not old.is_dir():
            raise SalvageFailed("cannot be mounted: Structure needs cleaning")
        yield old

    monkeypatch.setattr(Deployment, "__post_init__", _with(mount, Deployment.__post_init__))
    return seen


def _with(mount, after):
    def post(self):
        after(self)
        self.mount = mount

    return post


def test_files_are_with_the_controller_before_the_first_write(fake, old_disk, mounts, start):
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB))
    before = old_disk.read_bytes()
    states = []
    fake.orders = lambda p: (
        states.append((p.phase, bool(fake.salvaged), old_disk.read_bytes() == before)) or fake_orders(fake, p)
    )
    start(fake).finish()
    check_disk(fake, old_disk)
    assert mounts == [("vda2", "ext4", "noload")]
    assert set(contents(zstandard.ZstdDecompressor().stream_reader(fake.salvaged["vda2"]).read())) == {
        "var/log/syslog", "var/log/app/one.log", "var/log/app/two.log", "var/log/empty",
    }  # fmt: skip
    assert all(saved for _, saved, untouched in states if not untouched), "nothing was written before they were safe"
    assert fake.reports[0].salvaged[0].endswith("vda2 (ext4): 4 files, 0.0 MB")


def fake_orders(fake, progress):
    fake.orders, kept = None, fake.orders
    try:
        return fake.give_orders(progress)
    finally:
        fake.orders = kept


def test_a_connection_that_breaks_begins_the_archive_anew(fake, old_disk, mounts, start):
    fake.salvage_breaks = 2
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB))
    start(fake).finish()
    assert len(contents(zstandard.ZstdDecompressor().stream_reader(fake.salvaged["vda2"]).read())) == 4


@pytest.mark.parametrize("required", [True, False])
def test_what_cannot_be_saved_stops_it_only_where_it_is_required(fake, old_disk, mounts, start, old, required):
    old.rename(old.with_name("gone"))
    before = old_disk.read_bytes()
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB, required))
    agent = start(fake)
    if required:
        until(lambda: fake.failures)
        assert (fake.failures[0].code, fake.failures[0].phase) == ("SalvageFailed", "salvage")
        assert "Structure needs cleaning" in fake.failures[0].message
        assert old_disk.read_bytes() == before
    else:
        agent.finish()
        assert "not saved" in fake.reports[0].salvaged[0]
        assert "not saved" in log_text(fake, agent)


def test_a_controller_that_takes_no_more(fake, old_disk, mounts, start, old):
    (old / "var/log/noise").write_bytes(os.urandom(400_000))
    fake.salvage_limit = 100_000
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB, required=True))
    start(fake)
    until(lambda: fake.failures)
    assert "takes no more" in fake.failures[0].message


def test_a_controller_without_room_says_so_before_anything_is_sent(fake, old_disk, mounts, start):
    fake.salvage_room = False
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB, required=True))
    start(fake)
    until(lambda: fake.failures)
    assert "no room here" in fake.failures[0].message
    assert not fake.salvaged


def test_required_and_nothing_there(fake, disk, mounts, start):
    """The disk holds no file system: there may be a mistake in the hints, or somebody else was faster."""
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB, required=True))
    before = disk.read_bytes()
    start(fake)
    until(lambda: fake.failures)
    assert "no file to save" in fake.failures[0].message
    assert disk.read_bytes() == before


def test_it_is_not_done_again_when_the_machine_restarts_in_mid_erase(fake, old_disk, mounts, start):
    fake.assignment = replace(fake.assignment, salvage=Salvage(("/var/log",), MIB, required=True), begun="erase")
    start(fake).finish()
    assert mounts == []
