"""The slot's archive and the spliced ISO."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.boot.media import FileSegment, SplicedIso, slot
from metalimmu.errors import ImageError
from metalimmu.wire import codec, cpio
from metalimmu.wire.messages import Boot

SIZE = 64 << 10
BOOT = Boot(url="https://10.1.0.5:8443", token="t" * 43, pin="ab" * 32, deployment="dep-1", network={"vlan": "210"})


def cpio_names(archive: bytes, folder: Path) -> list[str]:
    """What GNU cpio lists; the kernel's unpacker is the end-to-end test's."""
    done = subprocess.run(["cpio", "-itv", "--quiet"], input=archive, capture_output=True, check=True, cwd=folder)
    return [" ".join(line.split()) for line in done.stdout.decode().splitlines()]


def test_cpio_golden():
    # c_magic, then 13 fields of 8 hexadecimal digits: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
    # rdevminor namesize check; name and data padded to 4 bytes (kernel documentation, initramfs-buffer-format).
    one = "00000001 00008100 00000000 00000000 00000001 00000000 00000005" + " 00000000" * 4 + " 00000002 00000000"
    end = "00000000 00000000 00000000 00000000 00000001 00000000 00000000" + " 00000000" * 4 + " 0000000B 00000000"
    assert cpio.pack([cpio.file("a", b"hello", 0o400)]) == (
        b"070701" + one.replace(" ", "").encode() + b"a\0hello\0\0\0"
        b"070701" + end.replace(" ", "").encode() + b"TRAILER!!!\0\0\0\0"
    )


def test_cpio_reads_back_every_kind(tmp_path):
    archive = cpio.pack(
        [
            cpio.directory("dev"),
            cpio.file("dev/file", b"123", 0o755),
            cpio.symlink("link", "dev/file"),
            cpio.character_device("dev/console", 5, 1),
        ]
    )
    lines = cpio_names(archive, tmp_path)
    assert [line.split()[0] for line in lines] == ["drwxr-xr-x", "-rwxr-xr-x", "lrwxrwxrwx", "crw-------"]
    assert lines[2].endswith("link -> dev/file")
    assert " 5, 1 " in lines[3]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_cpio_gives_back_what_went_in(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("cpio")
    archive = cpio.pack([cpio.file(f"f{i}", data) for i, data in enumerate(contents)])
    assert len(archive) % 4 == 0
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, check=True, cwd=folder, capture_output=True)
    assert [(folder / f"f{i}").read_bytes() for i in range(len(contents))] == contents


def test_slot_holds_boot_json_for_root_only(tmp_path):
    made = slot(BOOT, SIZE)
    assert len(made) == SIZE
    subprocess.run(["cpio", "-i", "--quiet"], input=made, check=True, cwd=tmp_path, capture_output=True)
    file = tmp_path / "metalimmu/boot.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert codec.decode(Boot, file.read_bytes()) == BOOT
    assert json.loads(file.read_bytes())["deployment"] == "dep-1"


def test_slot_is_the_same_each_time():
    assert slot(BOOT, SIZE) == slot(BOOT, SIZE)


def test_slot_that_is_too_small_is_refused_with_both_sizes():
    exact = len(slot(BOOT, SIZE).rstrip(b"\0")) // 4 * 4 + 4
    assert len(slot(BOOT, exact)) == exact
    with pytest.raises(ImageError, match=rf"dep-1 takes {exact} bytes, the media's slot has {exact - 4}"):
        slot(BOOT, exact - 4)


# --- the spliced ISO --------------------------------------------------------------------------------------------


def spliced(path: Path, content: bytes, offset: int, part: bytes) -> tuple[SplicedIso, bytes]:
    path.write_bytes(content)
    return SplicedIso(path, offset, part), content[:offset] + part + content[offset + len(part) :]


@st.composite
def cases(draw):
    content = draw(st.binary(min_size=1, max_size=200))
    offset = draw(st.integers(0, len(content)))
    part = draw(st.binary(max_size=len(content) - offset))
    start = draw(st.integers(0, len(content) + 10))
    length = draw(st.one_of(st.none(), st.integers(0, len(content) + 10)))
    return content, offset, part, start, length


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(1, 50))
def test_every_range_is_that_of_the_whole(tmp_path_factory, case, block):
    content, offset, part, start, length = case
    path = tmp_path_factory.mktemp("iso") / "boot.iso"
    iso, whole = spliced(path, content, offset, part)
    end = len(whole) if length is None else start + length
    with iso:
        assert iso.size == len(whole)
        parts = iso.segments(start, length)
        read = [p if isinstance(p, bytes) else content[p.offset : p.offset + p.length] for p in parts]
        assert b"".join(read) == whole[start:end]
        assert all(len(data) for data in read)
        pieces = list(iso.blocks(start, length, block=block))
        assert b"".join(pieces) == whole[start:end]
        assert all(0 < len(p) <= block for p in pieces)
        if length is not None:
            assert iso.pread(start, length) == whole[start:end]


def test_segments_name_the_file_around_the_slot(tmp_path):
    path = tmp_path / "boot.iso"
    iso, _ = spliced(path, bytes(100), 40, b"x" * 20)
    with iso:
        assert iso.segments() == [FileSegment(path, 0, 40), b"x" * 20, FileSegment(path, 60, 40)]
        assert iso.segments(45, 10) == [b"x" * 10]
        assert iso.segments(100, 10) == []


def test_written_copy_is_whole_and_private(tmp_path):
    iso, whole = spliced(tmp_path / "boot.iso", bytes(range(256)) * 20, 1000, b"secret")
    target = tmp_path / "copy.iso"
    target.touch(0o644)
    with iso:
        iso.write_to(target)
    assert target.read_bytes() == whole
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_original_is_never_changed(tmp_path):
    iso, whole = spliced(tmp_path / "boot.iso", bytes(100), 0, b"x" * 100)
    with iso:
        assert iso.pread(0, 100) == whole
    assert (tmp_path / "boot.iso").read_bytes() == bytes(100)


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
def test_negative_ranges_are_refused(tmp_path, offset, length):
    iso, _ = spliced(tmp_path / "boot.iso", bytes(10), 0, b"")
    with iso, pytest.raises(ValueError, match="no such range"):
        iso.segments(offset, length)


@pytest.mark.parametrize("offset", [-1, 95])
def test_slot_outside_of_the_file_is_refused(tmp_path, offset):
    path = tmp_path / "boot.iso"
    path.write_bytes(bytes(100))
    with pytest.raises(ImageError, match="not inside"):
        SplicedIso(path, offset, bytes(10))


def test_missing_iso_says_what_to_do(tmp_path):
    with pytest.raises(ImageError) as caught:
        SplicedIso(tmp_path / "boot.iso", 0, b"")
    assert "ramdisk build" in caught.value.hint


def test_iso_that_shrinks_while_served_is_an_error_not_a_short_answer(tmp_path):
    iso, _ = spliced(tmp_path / "boot.iso", bytes(100), 0, b"x")
    with iso:
        (tmp_path / "boot.iso").write_bytes(bytes(50))
        with pytest.raises(ImageError, match="ends at byte 50"):
            iso.pread(10, 80)
