"""ISOs and what boots a kernel: what is taken, what is refused, and what is served."""

from __future__ import annotations

import contextlib
import io
import random
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.cli.image import image as command
from metalimmu.errors import ImageError, ImageExists, UsageError
from metalimmu.images import eltorito, kinds
from metalimmu.images.add import store
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.serve import ImageFile, PartFile
from metalimmu.wire.codec import WireError
from metalimmu.wire.manifest import CHUNK, Bootable, Manifest, Part

BIOS, UEFI = 0x00, 0xEF


def iso(*platforms: int, sectors: int = 40, label: bytes = b"VENDOR_1") -> bytes:
    """An ISO 9660 file with a boot catalogue: the first platform as the default entry, others in sections."""
    data = bytearray(2048 * sectors)
    data[16 * 2048 : 16 * 2048 + 7] = b"\x01CD001\x01"
    data[16 * 2048 + 40 : 16 * 2048 + 72] = label.ljust(32)
    struct.pack_into("<I", data, 16 * 2048 + 80, sectors)
    if platforms:
        data[17 * 2048 : 17 * 2048 + 30] = b"\x00CD001\x01EL TORITO SPECIFICATION"
        struct.pack_into("<I", data, 17 * 2048 + 71, 19)
        entries = bytes([1, platforms[0]]) + bytes(28) + b"\x55\xaa" + b"\x88" + bytes(31)
        for i, platform in enumerate(platforms[1:], 2):
            entries += bytes([0x91 if i == len(platforms) else 0x90, platform, 1, 0]) + bytes(28) + b"\x88" + bytes(31)
        data[19 * 2048 : 19 * 2048 + len(entries)] = entries
    return bytes(data)


def facts(data: bytes) -> eltorito.IsoFacts:
    return eltorito.read(lambda offset, length: data[offset : offset + length], len(data))


@pytest.mark.parametrize(
    ("platforms", "firmware"),
    [((BIOS,), ("bios",)), ((UEFI,), ("uefi",)), ((BIOS, UEFI), ("uefi", "bios")), ((UEFI, BIOS), ("uefi", "bios"))],
)
def test_what_can_boot_an_iso(platforms: tuple[int, ...], firmware: tuple[str, ...]) -> None:
    assert facts(iso(*platforms)) == eltorito.IsoFacts("VENDOR_1", firmware, 2048 * 40)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no ISO 9660"),
        (bytes(100_000), "no ISO 9660"),
        (iso(BIOS)[:-2048], "the file has"),
        (iso(), "no El Torito"),
        (iso(0x01), "no El Torito"),  # PowerPC
    ],
)
def test_what_is_no_bootable_iso(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        facts(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_garbage_in_a_boot_catalogue_is_no_fault_of_ours(data: st.DataObject) -> None:
    good = bytearray(iso(BIOS, UEFI))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(17 * 2048, 20 * 2048))] = data.draw(st.integers(0, 255))
    found = None
    with contextlib.suppress(ImageError):
        found = facts(bytes(good))
    assert found is None or found.firmware


def test_an_iso_is_kept_byte_for_byte(tmp_path: Path) -> None:
    content = iso(BIOS, UEFI, sectors=1200)
    file = tmp_path / "vendor.iso"
    file.write_bytes(content)
    catalogue = Catalogue(tmp_path / "store")
    made = kinds.add_iso(catalogue, file, "firmware@1")
    assert (made.manifest.kind, made.manifest.firmware) == ("iso", ("uefi", "bios"))
    assert kinds.add_iso(catalogue, file, "firmware@1").digest == made.digest
    served = ImageFile(made.manifest, catalogue.chunks)
    assert served.pread(0, served.size + 1) == content
    file.write_bytes(iso(BIOS, sectors=1200))
    with pytest.raises(ImageExists):
        kinds.add_iso(catalogue, file, "firmware@1")


def test_an_iso_that_is_none_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(bytes(100_000))
    catalogue = Catalogue(tmp_path / "store")
    with pytest.raises(ImageError):
        kinds.add_iso(catalogue, tmp_path / "x.iso", "firmware@1")
    assert catalogue.refs() == []


@settings(max_examples=60, deadline=None)
@given(
    reads=st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.integers(0, CHUNK + 5)), min_size=1, max_size=8),
    slots=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 300_000)), max_size=3, unique_by=lambda s: s[0]),
)
def test_slots_are_spliced_in_wherever_it_is_read(
    reads: list[tuple[int, int]], slots: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    catalogue, manifest, content = _content(tmp_path_factory)
    filled = {number * 400_000: bytes([number + 1]) * size for number, size in slots}
    expected = bytearray(content)
    for offset, data in filled.items():
        expected[offset : offset + len(data)] = data
    file = ImageFile(manifest, catalogue.chunks, filled)
    for offset, length in reads:
        assert file.pread(offset, length) == expected[offset : offset + length]


_MADE: list[tuple[Catalogue, Manifest, bytes]] = []


def _content(folder: pytest.TempPathFactory) -> tuple[Catalogue, Manifest, bytes]:
    if not _MADE:
        catalogue = Catalogue(folder.mktemp("served"))
        content = random.Random(1).randbytes(CHUNK) + bytes(CHUNK) + random.Random(2).randbytes(700_001)
        chunks, size = store(io.BytesIO(content), catalogue.chunks)
        _MADE.append((catalogue, Manifest("iso", "x86_64", size, chunks), content))
    return _MADE[0]


def test_a_part_is_a_file_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    catalogue, manifest, content = _content(tmp_path_factory)
    part = PartFile(ImageFile(manifest, catalogue.chunks), Part("kernel", CHUNK - 10, 30))
    assert part.size == 30
    assert part.pread(0, 100) == content[CHUNK - 10 : CHUNK + 20]
    assert part.pread(29, 9) == content[CHUNK + 19 : CHUNK + 20]
    assert part.pread(30, 9) == b""


def test_a_slot_outside_of_the_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    catalogue, manifest, _ = _content(tmp_path_factory)
    with pytest.raises(ImageError, match="not inside"):
        ImageFile(manifest, catalogue.chunks, {manifest.size - 1: b"ab"})


def test_a_manifest_of_a_disk_is_what_it_was_before_there_were_kinds() -> None:
    old = Manifest("disk", "x86_64", CHUNK, (None,))
    assert b"boots" not in old.encode()
    boots = Bootable((Part("kernel", 0, 10),), "MI-1", "quiet", "preseed")
    new = Manifest("installer", "x86_64", CHUNK, (None,), boots=boots)
    assert Manifest.decode(new.encode()) == new
    with pytest.raises(WireError, match="outside"):
        Manifest.decode(Manifest("live", "x86_64", 10, (None,), boots=Bootable((Part("kernel", 5, 6),), "x")).encode())


@pytest.mark.parametrize(
    ("arguments", "from_media"),
    [("boot=live", True), ("boot=live toram", False), ("rd.live.ram=1", False), ("nottoram=1", True)],
)
def test_what_runs_from_its_media(arguments: str, from_media: bool) -> None:
    assert Bootable((Part("squashfs", 0, 1),), "x", arguments).from_media is from_media
    assert not Bootable((Part("kernel", 0, 1),), "x", arguments).from_media


KERNEL = bytes(0x202) + b"HdrS" + bytes(1000)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "disk"}, "no kind that has a kernel"),
        ({"kind": "installer", "answers": "windows"}, "no installer asks for windows"),
        ({"kind": "live", "answers": "preseed"}, "has no installer"),
        ({"kind": "live", "architecture": "aarch64"}, "cannot be made yet"),
        ({"kind": "live", "arguments": "a='b'"}, "single quotes"),
        ({"kind": "live", "place": "../x"}, "no place for a squashfs"),
    ],
)
def test_what_cannot_be_media(tmp_path: Path, options: dict[str, str], says: str) -> None:
    kernel = tmp_path / "linux"
    kernel.write_bytes(KERNEL)
    with pytest.raises(UsageError, match=says):
        kinds.add_bootable(Catalogue(tmp_path / "store"), kernel, "x@1", initrd=kernel, **options)  # type: ignore[arg-type]


def test_what_is_no_kernel(tmp_path: Path) -> None:
    kernel = tmp_path / "linux"
    kernel.write_bytes(b"MZ" + bytes(4000))
    with pytest.raises(ImageError, match="no Linux kernel"):
        kinds.add_bootable(Catalogue(tmp_path / "store"), kernel, "x@1", kind="live", initrd=kernel)


# the command


def run(tmp_path: Path, *args: str) -> tuple[int, str]:
    found = CliRunner().invoke(command, ["add", *args, "--images", str(tmp_path / "store")])
    return found.exit_code, f"{found.output} {found.exception}"


def test_the_command_adds_an_iso(tmp_path: Path) -> None:
    (tmp_path / "vendor.iso").write_bytes(iso(UEFI))
    status, said = run(tmp_path, str(tmp_path / "vendor.iso"), "firmware@1", "--kind", "iso")
    assert status == 0, said
    assert "firmware@1 sha256:" in said
    assert "boots uefi" in said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--kind", "installer"), "needs --initrd"),
        (("--initrd", "FILE"), "--initrd is not for --kind disk"),
        (("--kind", "iso", "--answers", "preseed"), "--answers is not for --kind iso"),
        (("--kind", "live", "--platform", "x"), "--platform is not for --kind live"),
        (("--kind", "nos", "--platform", "x"), "needs --nos"),
    ],
)
def test_options_of_another_kind(tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    file = tmp_path / "linux"
    file.write_bytes(KERNEL)
    words = [str(file) if a == "FILE" else a for a in args]
    status, said = run(tmp_path, str(file), "x@1", *words)
    assert status != 0
    assert says in said
