from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import disk

from metalimmu.errors import ImageCorrupt, ImageError, ImageExists, NotFound, UsageError
from metalimmu.images import gc
from metalimmu.images.add import add
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.chunks import reassemble
from metalimmu.images.verify import verify
from metalimmu.wire.manifest import CHUNK, Extent, Manifest

# Runs of content: what a chunk is made of, so that a megabyte costs hypothesis one draw.
RUNS = st.lists(
    st.tuples(st.sampled_from([None, b"\0", b"a", b"bc", b"d"]), st.integers(1, 3 * CHUNK // 512)),
    min_size=1,
    max_size=5,
)


def _sparse(path: Path, runs: list[tuple[bytes | None, int]]) -> bytes:
    """Write runs of 512-byte sectors, holes for None; returns the content."""
    content = b"".join((pattern or b"\0") * (sectors * 512 // len(pattern or b"\0")) for pattern, sectors in runs)
    with path.open("wb") as file:
        file.truncate(len(content))
        offset = 0
        for pattern, sectors in runs:
            if pattern is not None:
                file.seek(offset)
                file.write(content[offset : offset + sectors * 512])
            offset += sectors * 512
    return content


@settings(max_examples=40, deadline=None)
@given(runs=RUNS)
def test_what_goes_in_comes_out(runs: list[tuple[bytes | None, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tmp, catalogue = Path(folder), Catalogue(Path(folder) / "store")
        content = _sparse(tmp / "disk", runs)
        image = add(catalogue, tmp / "disk", "a@1")
        reassemble(image.manifest, catalogue.chunks, tmp / "out")
        assert (tmp / "out").read_bytes() == content
        assert Manifest.decode(catalogue.manifest_bytes("a@1")) == image.manifest
        for i, sha in enumerate(image.manifest.chunks):
            piece = content[i * CHUNK : (i + 1) * CHUNK]
            assert (sha is None) == (not any(piece))
            assert sha is None or sha == hashlib.sha256(piece).hexdigest()


def test_a_hole_and_written_zeros_are_the_same_image(catalogue: Catalogue, tmp_path: Path) -> None:
    a = add(catalogue, disk(tmp_path / "a", "x..y."), "a@1")
    b = add(catalogue, disk(tmp_path / "b", "x00y0"), "b@1")
    assert a.digest == b.digest
    assert list(a.manifest.zero_extents()) == [Extent(CHUNK, 2 * CHUNK), Extent(4 * CHUNK, CHUNK)]


def test_a_chunk_is_one_frame_named_by_its_content(catalogue: Catalogue, tmp_path: Path) -> None:
    image = add(catalogue, disk(tmp_path / "a", "xyx"), "a@1")
    first, second, third = image.manifest.chunks
    assert first == third != second
    assert first is not None
    frame = catalogue.chunk_path(first).read_bytes()
    assert catalogue.chunk_path(first) == catalogue.root / "chunks" / first[:2] / f"{first}.zst"
    assert zstandard.frame_content_size(frame) == CHUNK
    assert hashlib.sha256(zstandard.ZstdDecompressor().decompress(frame)).hexdigest() == first
    assert len(list(catalogue.chunks.all())) == 2


def test_an_image_never_changes(catalogue: Catalogue, tmp_path: Path) -> None:
    one = add(catalogue, disk(tmp_path / "a", "x"), "a@1")
    with pytest.raises(ImageExists) as caught:
        add(catalogue, disk(tmp_path / "b", "y"), "a@1")
    other = add(catalogue, disk(tmp_path / "b", "y"), "a@2")
    assert one.digest in caught.value.message
    assert other.digest in caught.value.message
    again = add(catalogue, disk(tmp_path / "a", "x"), "a@1")
    assert (again.digest, again.added) == (one.digest, one.added)
    assert [i.ref for i in catalogue.images()] == ["a@1", "a@2"]
    assert catalogue.by_digest(other.digest) == other


def test_adding_again_mends_a_corrupt_chunk(catalogue: Catalogue, tmp_path: Path) -> None:
    image = add(catalogue, disk(tmp_path / "a", "xy"), "a@1")
    bad = image.manifest.chunks[1]
    assert bad is not None
    catalogue.chunk_path(bad).write_bytes(zstandard.compress(b"something else"))
    with pytest.raises(ImageCorrupt) as caught:
        verify(catalogue)
    assert bad in caught.value.message
    assert "a@1" in caught.value.message
    add(catalogue, tmp_path / "a", "a@1")
    assert verify(catalogue).chunks == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_verify_finds_every_damage(catalogue: Catalogue, tmp_path: Path, damage: str) -> None:
    image = add(catalogue, disk(tmp_path / "a", "x.y"), "a@1")
    path = catalogue.chunk_path(image.manifest.chunks[2] or "")
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.write_bytes(zstandard.compress(bytes(CHUNK)))
    with pytest.raises(ImageCorrupt, match=path.stem):
        verify(catalogue, ["a@1"])


def test_verify_finds_a_changed_manifest(catalogue: Catalogue, tmp_path: Path) -> None:
    add(catalogue, disk(tmp_path / "a", "xy"), "a@1")
    path = catalogue.root / "catalogue" / "a" / "1" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"kind":"disk"', b'"kind":"live"'))
    for refs in ([], ["a@1"]):
        with pytest.raises(ImageCorrupt, match="provenance says"):
            verify(Catalogue(catalogue.root), refs)


@pytest.mark.parametrize(
    "ref", ["a", "a@", "@1", "../a@1", "a@../1", "A@1", "a@1\n", "a/b@1", "a@1/2", "a@" + "1" * 300]
)
def test_a_reference_cannot_leave_the_catalogue(catalogue: Catalogue, tmp_path: Path, ref: str) -> None:
    with pytest.raises(UsageError):
        add(catalogue, disk(tmp_path / "a", "x"), ref)
    with pytest.raises(UsageError):
        catalogue.get(ref)


def test_an_unknown_image_names_the_versions_there_are(catalogue: Catalogue, tmp_path: Path) -> None:
    add(catalogue, disk(tmp_path / "a", "x"), "a@1")
    with pytest.raises(NotFound) as caught:
        catalogue.get("a@2")
    assert "a has: 1" in caught.value.hint


# --- formats


def _packed(raw: Path, form: str) -> Path:
    base, _, packing = form.partition(".")
    path = raw
    if base != "raw":
        path = raw.with_name(f"disk.{base}")
        options = ["-o", "subformat=streamOptimized"] if base == "vmdk" else []
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", base, *options, raw, path], check=True)
    if packing:
        pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}[packing]
        path.with_suffix(".packed").write_bytes(pack(path.read_bytes()))
        path = path.with_suffix(".packed")
    # The name says nothing: content does.
    return path.rename(raw.with_name("download"))


@pytest.mark.parametrize(
    "form", ["qcow2", "vmdk", "vhdx", "raw.gz", "raw.xz", "raw.zst", "qcow2.gz", "qcow2.xz", "vhdx.zst"]
)
def test_every_format_gives_the_same_image(catalogue: Catalogue, tmp_path: Path, form: str) -> None:
    raw = disk(tmp_path / "disk.raw", ".x0y..")
    expected = add(catalogue, raw, "a@1").digest
    image = add(catalogue, _packed(raw, form), "b@1")
    assert image.digest == expected
    assert image.provenance["source"]["format"] == form
    assert not list((catalogue.root / "tmp").iterdir())


def test_many_frames_are_one_stream(catalogue: Catalogue, tmp_path: Path) -> None:
    content = disk(tmp_path / "a", "x.y").read_bytes()
    expected = add(catalogue, tmp_path / "a", "a@1").digest
    half = len(content) // 2
    for name, pack in {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress}.items():
        (tmp_path / name).write_bytes(pack(content[:half]) + pack(content[half:]))
        assert add(catalogue, tmp_path / name, f"{name}@1").digest == expected


@pytest.mark.parametrize("packing", ["gz", "xz", "zst"])
@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_a_file_cut_short_is_refused(catalogue: Catalogue, tmp_path: Path, packing: str, keep: float) -> None:
    path = _packed(disk(tmp_path / "disk.raw", "xyz"), f"raw.{packing}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ImageError, match="cut short"):
        add(catalogue, path, "a@1")
    assert catalogue.images() == []


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vhdx"])
def test_a_container_cut_short_is_refused(catalogue: Catalogue, tmp_path: Path, form: str) -> None:
    path = _packed(disk(tmp_path / "disk.raw", "xyzabcdefg"), form)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ImageError):
        add(catalogue, path, "a@1")
    assert catalogue.images() == []


def test_a_bomb_ends(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(ImageError, match="unpacks to more"):
        add(catalogue, tmp_path / "bomb", "a@1", max_size=1 << 20)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "big", "8T"], check=True)
    with pytest.raises(ImageError, match="at most"):
        add(catalogue, tmp_path / "big", "a@1")


def _qcow2(path: Path, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "4M"], check=True)
    return path


def test_a_qcow2_cannot_read_other_files(catalogue: Catalogue, tmp_path: Path) -> None:
    secret = disk(tmp_path / "secret", "x")
    backed = _qcow2(tmp_path / "backed", "-b", str(secret), "-F", "raw")
    with pytest.raises(ImageError, match="backing file"):
        add(catalogue, backed, "a@1")
    outside = _qcow2(tmp_path / "outside", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on")
    with pytest.raises(ImageError, match="external data file"):
        add(catalogue, outside, "a@1")
    # Packed, it is the same file.
    (tmp_path / "packed").write_bytes(gzip.compress(backed.read_bytes()))
    with pytest.raises(ImageError, match="backing file"):
        add(catalogue, tmp_path / "packed", "a@1")
    assert catalogue.images() == []
    assert not list(catalogue.chunks.all())


def test_a_vmdk_cannot_read_other_files(catalogue: Catalogue, tmp_path: Path) -> None:
    raw = disk(tmp_path / "disk.raw", "x")
    flat = tmp_path / "flat.vmdk"
    subprocess.run(
        ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", "-f", "raw", raw, flat], check=True
    )
    with pytest.raises(ImageError, match="other files"):
        add(catalogue, flat, "a@1")
    sparse = tmp_path / "sparse.vmdk"
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", "-f", "raw", raw, sparse], check=True)
    data = sparse.read_bytes()
    start = data.index(b"RW 2048 SPARSE")
    line = data[start : data.index(b"\n", start)]
    for forged in (b'RW 2048 FLAT "/etc/passwd" 0', b' rw 2048 FLAT "/etc/passwd" 0'):
        sparse.write_bytes(data.replace(line, forged + b" " * (len(line) - len(forged))))
        with pytest.raises(ImageError, match="other files"):
            add(catalogue, sparse, "a@1")
    # Without a capacity QEMU takes the descriptor for the truth, whatever length the header gives it.
    sparse.write_bytes(data[:12] + bytes(8) + data[20:])
    with pytest.raises(ImageError, match="other files"):
        add(catalogue, sparse, "a@1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"x" * 1000, "cut short|whole sectors"),
        (b"PK\x03\x04" + bytes(2000), "zip"),
        (bytes(257) + b"ustar" + bytes(2000), "tar"),
        (b"# Disk DescriptorFile\n", "vmdk descriptor"),
        (gzip.compress(gzip.compress(bytes(4096), mtime=0), mtime=0), "twice"),
        (b"QFI\xfb" + bytes(4092), "qemu-img|damaged"),
    ],
)
def test_what_is_no_disk_image_is_refused(catalogue: Catalogue, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Exception, match=message) as caught:
        add(catalogue, tmp_path / "file", "a@1")
    assert getattr(caught.value, "hint", "")
    assert catalogue.images() == []


def test_a_missing_file_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere"):
        add(catalogue, tmp_path / "nowhere", "a@1")


def test_a_missing_tool_names_its_package(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qcow2 = _qcow2(tmp_path / "q")
    monkeypatch.setattr(shutil, "which", lambda *_a, **_k: None)
    with pytest.raises(Exception, match="qemu-img") as caught:
        add(catalogue, qcow2, "a@1")
    assert "qemu-utils" in caught.value.hint  # type: ignore[attr-defined]


# --- a full disk


def test_a_full_disk_leaves_nothing_half(catalogue: Catalogue, tmp_path: Path) -> None:
    """Files may not grow past 300 kB: what the kernel says then (EFBIG) is one of the ways of a full disk."""
    raw = disk(tmp_path / "a", "xy")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(ImageError, match="no space left") as caught:
            add(catalogue, raw, "a@1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "gc" in caught.value.hint
    assert catalogue.images() == []
    assert not list(catalogue.chunks.all())
    assert add(catalogue, raw, "a@1").manifest.size == 2 * CHUNK


def test_a_disk_that_fills_up_at_the_manifest(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = disk(tmp_path / "a", "xy")

    def no_space(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("metalimmu.images.catalogue.write_synced", no_space)
        with pytest.raises(ImageError, match="no space left"):
            add(catalogue, raw, "a@1")
    assert catalogue.images() == []
    assert gc.collect(catalogue).chunks == 2
    assert not list(catalogue.chunks.all())


def test_a_file_that_changes_while_it_is_read(catalogue: Catalogue, tmp_path: Path) -> None:
    raw = disk(tmp_path / "a", "x" * 40)

    def grow(phase: str, done: int, total: int) -> None:
        with raw.open("ab") as file:
            file.write(b"more")

    with pytest.raises(ImageError, match="changed from"):
        add(catalogue, raw, "a@1", progress=grow)
