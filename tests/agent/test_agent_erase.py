"""Erasing: what each drive can do, what is done when it cannot, and whether anything of before is left.

The drives are played behind ioctl(2), by the structures of the kernel's and the standards' documents.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest
from agent_drives import SIZE, Ata, Nvme
from agent_rig import MIB, until
from test_agent_run import check_disk

from metalimmu.agent import ata, erase, nvme
from metalimmu.agent.block import Device
from metalimmu.errors import EraseFailed
from metalimmu.wire.messages import Disk, Erase, RootDisk

SECOND = "pci0000:00/0000:00:06.0/virtio2/block"


class Quiet:
    """A Link that listens."""

    def __init__(self) -> None:
        self.lines, self.phases, self.done = [], [], 0

    def phase(self, name, total=0):
        self.phases.append((name, total))

    def advance(self, done, fetched=0):
        self.done += done

    def log(self, line):
        self.lines.append(line)

    def check(self):
        pass


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(SIZE))
    return path


def empty(file: Path) -> bool:
    return not file.read_bytes().strip(b"\0")


def as_disk(file: Path, transport: str = "virtio") -> Disk:
    return Disk(str(file), SIZE, transport=transport)


def run(file: Path, how: str, transport: str = "virtio") -> tuple[str, Quiet]:
    link = Quiet()
    with Device(str(file)) as device:
        return erase.erase(device, as_disk(file, transport), how, link), link


class TestByUs:
    def test_zeros(self, file):
        said, link = run(file, "zero")
        assert file.read_bytes() == bytes(SIZE)
        assert said == f"{file}: zeros; 64 of 64 samples held something before, none does now"
        assert (link.phases, link.done) == ([("erase", SIZE)], SIZE)

    def test_overwriting_leaves_each_place_different_and_nothing_of_before(self, file):
        before = file.read_bytes()
        run(file, "overwrite")
        after = file.read_bytes()
        blocks = {after[at : at + 4096] for at in range(0, SIZE, 4096)}
        assert len(blocks) == SIZE // 4096, "no drive can make them into one"
        assert not any(before[at : at + 64] in after for at in range(0, SIZE, 65536))

    def test_auto_on_a_disk_that_has_no_command_of_its_own(self, file):
        said, _ = run(file, "auto")
        assert "zeros" in said
        assert empty(file)

    @pytest.mark.parametrize(
        ("how", "why"), [("nvme-format", "no NVMe drive"), ("ata", "no ATA drive"), ("magic", "does not know")]
    )
    def test_what_the_disk_cannot_do_is_refused_before_anything(self, file, how, why):
        before = file.read_bytes()
        with pytest.raises(EraseFailed, match=why):
            run(file, how)
        assert file.read_bytes() == before

    def test_a_disk_that_says_done_and_did_nothing_is_found_out(self, file, monkeypatch):
        monkeypatch.setattr(Device, "zero", lambda *_: None)
        with pytest.raises(EraseFailed, match="are not gone"):
            run(file, "zero")

    def test_an_empty_disk_says_that_there_was_nothing_to_compare(self, file):
        file.write_bytes(bytes(SIZE))
        assert "0 of 64 samples" in run(file, "auto")[0]


@pytest.fixture
def drive(file, monkeypatch):
    def make(**fields):
        made = Nvme(file, **fields)
        monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
        return made

    return make


class TestNvme:
    @pytest.mark.parametrize(("crypto", "setting", "word"), [(True, 2, "cryptographic"), (False, 1, "user data")])
    def test_auto_formats_and_keeps_the_format_of_the_blocks(self, drive, file, crypto, setting, word):
        d = drive(crypto=crypto)
        said, link = run(file, "auto", "nvme")
        assert d.asked == [(0x80, 1 | setting << 9)]
        assert word in said
        assert link.phases[0] == ("erase", 0)

    @pytest.mark.parametrize(("sanicap", "action"), [(0b111, 4), (0b110, 2), (0b100, 3)])
    def test_sanitize_takes_the_best_action_and_waits(self, drive, file, sanicap, action, monkeypatch):
        monkeypatch.setattr(nvme.time, "sleep", lambda _: None)
        d = drive(sanicap=sanicap)
        said, _ = run(file, "nvme-sanitize", "nvme")
        assert d.asked == [(0x84, action | 8)]
        assert "sanitize" in said

    def test_a_sanitize_that_fails(self, drive, file, monkeypatch):
        monkeypatch.setattr(nvme.time, "sleep", lambda _: None)
        drive(sanicap=2, ends=3, lies=True)
        with pytest.raises(EraseFailed, match="its sanitize operation failed"):
            run(file, "nvme-sanitize", "nvme")

    def test_a_refused_format_falls_back_with_auto_and_not_when_it_was_asked(self, drive, file):
        """Seen in the field: `format -s2` fails on drives that say they can."""
        d = drive(crypto=True, status=0x2002)
        with pytest.raises(EraseFailed, match="status 0x2002"):
            run(file, "nvme-format", "nvme")
        d.asked.clear()
        said, link = run(file, "auto", "nvme")
        assert "zeros" in said
        assert any("nvme-format did not work" in line for line in link.lines)

    def test_a_drive_that_lies_is_found_out_and_with_auto_written_over(self, drive, file):
        drive(lies=True)
        with pytest.raises(EraseFailed, match="are not gone"):
            run(file, "nvme-format", "nvme")
        assert "zeros" in run(file, "auto", "nvme")[0]

    @pytest.mark.parametrize(
        ("fields", "how", "why"),
        [
            ({"format": False}, "nvme-format", "no Format NVM"),
            ({"whole": 2, "namespaces": (1, 2)}, "nvme-format", "all namespaces"),
            ({"sanicap": 0}, "nvme-sanitize", "cannot sanitize"),
            ({"sanicap": 2, "namespaces": (1, 7)}, "nvme-sanitize", "all namespaces"),
        ],
    )
    def test_what_would_take_other_namespaces_along_is_refused(self, drive, file, fields, how, why):
        d = drive(**fields)
        before = file.read_bytes()
        with pytest.raises(EraseFailed, match=why):
            run(file, how, "nvme")
        assert (d.asked, file.read_bytes()) == ([], before)


@pytest.fixture
def sata(file, monkeypatch):
    def make(**fields):
        made = Ata(file, **fields)
        monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
        return made

    return make


class TestAta:
    @pytest.mark.parametrize("enhanced", [True, False])
    def test_auto_lets_the_drive_erase_itself_and_leaves_no_password(self, sata, file, enhanced):
        d = sata(enhanced=enhanced)
        said, _ = run(file, "auto", "sata")
        assert ("enhanced" in said) is enhanced
        assert d.password == b""
        assert [c for c in d.asked if c != 0xEC] == [0xF1, 0xF3, 0xF4]

    def test_a_drive_that_was_cut_off_in_its_erase_is_unlocked_and_erased_again(self, sata, file):
        d = sata(password=ata.PASSWORD, locked=True)
        run(file, "ata", "sata")
        assert [c for c in d.asked if c != 0xEC] == [0xF2, 0xF3, 0xF4]

    def test_after_a_refusal_the_password_is_taken_off_again(self, sata, file):
        d = sata(fails=0xF4)
        with pytest.raises(EraseFailed, match="0xf4"):
            run(file, "ata", "sata")
        assert d.password == b""

    @pytest.mark.parametrize(
        ("fields", "why"), [({"frozen": True}, "frozen"), ({"supported": False}, "no security feature set")]
    )
    def test_one_that_cannot_is_refused_and_with_auto_zeroed(self, sata, file, fields, why):
        d = sata(**fields)
        with pytest.raises(EraseFailed, match=why):
            run(file, "ata", "sata")
        said, link = run(file, "auto", "sata")
        assert "zeros" in said
        assert any(why in line for line in link.lines)
        assert set(d.asked) == {0xEC}

    def test_a_scsi_disk_is_no_ata_drive(self, sata, file):
        sata(fails=0xEC)
        assert "zeros" in run(file, "auto", "sas")[0]


@pytest.fixture
def disk(root):
    """Sparse: an old system at its beginning, nothing behind."""
    return root.disk("vda", 64 * MIB, content=b"old system! " * 50_000, serial="disk-1")


@pytest.fixture
def second(root, fake):
    fake.assignment = replace(fake.assignment, root_disk=RootDisk(serial="disk-1"))
    return root.disk("vdb", 24 * MIB, content=os.urandom(24 * MIB), serial="disk-2", where=SECOND)


def test_disks_are_erased_before_and_after(fake, root, disk, second, start):
    third = root.disk(
        "vdc", 8 * MIB, content=b"secret data " * 600_000, serial="disk-3", where=SECOND.replace("6", "7")
    )
    named = [Erase(RootDisk(serial=f"disk-{n}"), "zero", when) for n, when in ((2, "before"), (3, "after"))]
    fake.assignment = replace(fake.assignment, erase=(Erase(None, "overwrite"), *named))
    states = []
    fake.fault = lambda _: states.append((empty(second), empty(third))) and False
    start(fake).finish()
    check_disk(fake, disk)
    assert b"old system!" not in disk.read_bytes(), "all of the root disk, not only what the image covers"
    assert set(states[1:]) == {(True, False)}
    assert empty(third)
    report = fake.reports[0]
    assert [line.partition(":")[0].rpartition("/")[2] for line in report.erased] == ["vda", "vdb", "vdc"]
    assert {"erase", "erase-after"} <= report.seconds.keys()


def test_no_other_disk_is_touched(fake, disk, second, start):
    before = second.read_bytes()
    fake.assignment = replace(fake.assignment, erase=(Erase(None, "zero"),))
    start(fake).finish()
    assert second.read_bytes() == before


def test_what_one_disk_cannot_do_stops_all_before_anything(fake, disk, second, start):
    before = disk.read_bytes(), second.read_bytes()
    fake.assignment = replace(fake.assignment, erase=(Erase(None, "zero"), Erase(RootDisk(serial="disk-2"), "ata")))
    start(fake)
    until(lambda: fake.failures)
    assert (fake.failures[0].code, fake.failures[0].phase) == ("EraseFailed", "identify")
    assert (disk.read_bytes(), second.read_bytes()) == before


def test_an_erase_is_done_once_when_the_machine_restarts_in_mid_write(fake, disk, start):
    fake.assignment = replace(
        fake.assignment, erase=(Erase(None, "zero"),), begun="write", previous_digest=fake.image.digest
    )
    start(fake).finish()
    assert fake.reports[0].erased == ()
    check_disk(fake, disk)


def test_foreign_metadata_on_a_disk_that_is_erased_is_no_obstacle(fake, disk, second, start):
    with second.open("r+b") as f:
        f.seek(4096)
        f.write(b"\xfc\x4e\x2b\xa9\1\0\0\0" + bytes(200))
    fake.assignment = replace(fake.assignment, erase=(Erase(RootDisk(serial="disk-2")),))
    start(fake).finish()
    assert empty(second)
