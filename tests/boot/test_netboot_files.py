from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from metalimmu.boot.media import FileSegment
from metalimmu.boot.netboot_files import NAMES, SQUASHFS, Pieces, netboot_file
from metalimmu.errors import ImageError

SLOT = b"slot" * 100


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    """A file of 64 KiB in which no two places look alike."""
    path = tmp_path / "boot.iso"
    path.write_bytes(random.Random(1).randbytes(64 << 10))
    return path


PARTS = {"vmlinuz": [2048, 5000], "initrd": [10240, 4], "root": [20480, 30001]}


def opened(iso: Path, name: str) -> Pieces:
    return netboot_file(name, iso, PARTS, SLOT)


def test_kernel_and_initrd_are_ranges_of_the_iso(iso: Path) -> None:
    for name in ("vmlinuz", "initrd"):
        offset, size = PARTS[name]
        with opened(iso, name) as file:
            assert file.size == size
            assert file.pread(0, size + 10) == iso.read_bytes()[offset : offset + size]
            assert file.segments() == [FileSegment(iso, offset, size)]


def test_the_slot_is_the_deployments_own(iso: Path) -> None:
    with opened(iso, "slot.cpio") as file:
        assert file.pread(0, 1 << 20) == SLOT


def test_the_squashfs_is_in_an_archive_that_cpio_unpacks(iso: Path, tmp_path: Path) -> None:
    with opened(iso, "root.cpio") as file:
        archive = file.pread(0, file.size)
        assert len(archive) == file.size
        assert file.size % 4 == 0  # another archive follows
    target = tmp_path / "out"
    target.mkdir()
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=target, check=True, timeout=30)
    offset, size = PARTS["root"]
    assert (target / SQUASHFS).read_bytes() == iso.read_bytes()[offset : offset + size]


def test_any_range_is_what_it_is_in_the_whole(iso: Path) -> None:
    with opened(iso, "root.cpio") as file:
        whole = file.pread(0, file.size)
        for start in (0, 1, 100, 131, 132, 133, 30100, 30132, 30133, file.size - 1, file.size, file.size + 5):
            for length in (0, 1, 131, 40000):
                assert file.pread(start, length) == whole[start : start + length], (start, length)
        with pytest.raises(ValueError, match="no such range"):
            file.pread(-1, 1)


def test_a_ramdisk_of_an_older_version_says_what_to_do(iso: Path) -> None:
    with pytest.raises(ImageError, match="older metalimmu") as said:
        netboot_file("vmlinuz", iso, {}, SLOT)
    assert "ramdisk build" in said.value.hint


def test_there_are_no_other_files(iso: Path) -> None:
    for name in ("boot.iso", "", "../boot.iso", "VMLINUZ"):
        assert name not in NAMES
        with pytest.raises(KeyError):
            opened(iso, name)


def test_a_damaged_ramdisk_is_an_error_and_leaves_nothing_open(iso: Path) -> None:
    iso.write_bytes(b"short")
    with pytest.raises(ImageError, match="which has 5"):
        opened(iso, "root.cpio")
    with pytest.raises(ImageError, match="cannot read"):
        Pieces([FileSegment(iso.parent / "none", 0, 1)])


def test_one_that_becomes_shorter_is_an_error(iso: Path) -> None:
    with opened(iso, "vmlinuz") as file:
        iso.write_bytes(b"short")
        with pytest.raises(ImageError, match="became shorter"):
            file.pread(0, file.size)


def test_closing_twice_is_closing(iso: Path) -> None:
    file = opened(iso, "root.cpio")
    file.close()
    file.close()
