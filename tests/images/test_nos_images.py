"""Installers for switches in the image store: kept and read back byte for byte."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest

from metalimmu.errors import ImageError, ImageExists, UsageError
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.nos import add_nos, platform_table
from metalimmu.images.serve import ImageFile

GLOB = ("x86_64-kvm_x86_64-r*",)


def installer(folder: Path, size: int = 2_100_003) -> Path:
    file = folder / "sonic.bin"
    file.write_bytes(b"#!/bin/sh\n" + random.Random(1).randbytes(size - 10))
    return file


def test_added_and_read_back_whatever_its_size(tmp_path: Path) -> None:
    file, catalogue = installer(tmp_path), Catalogue(tmp_path / "images")
    image = add_nos(catalogue, file, "sonic@202411.1", nos="sonic", platforms=GLOB, build_id="b")
    nos = image.manifest.nos
    assert nos is not None
    assert (image.manifest.kind, image.manifest.size, nos.version) == ("nos", 2_100_003, "202411.1")
    assert (nos.sha256, nos.min_ram) == (hashlib.sha256(file.read_bytes()).hexdigest(), 3 * 2_100_003)
    assert catalogue.get("sonic@202411.1").digest == image.digest
    served = ImageFile(image.manifest, catalogue.chunks)
    assert b"".join(served.pread(at, 300_000) for at in range(0, served.size, 300_000)) == file.read_bytes()
    assert add_nos(catalogue, file, "sonic@202411.1", nos="sonic", platforms=GLOB, build_id="b").digest == image.digest
    with pytest.raises(ImageExists):
        add_nos(catalogue, file, "sonic@202411.1", nos="sonic", platforms=("other",), build_id="b")


def test_what_is_no_installer(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "images")
    file = tmp_path / "updater"
    file.write_bytes(b"#!/bin/sh\n# ONIE-UPDATER-COOKIE\n")
    with pytest.raises(ImageError, match="updates ONIE itself"):
        add_nos(catalogue, file, "onie@1", nos="sonic", platforms=GLOB)
    file.write_bytes(b"")
    with pytest.raises(ImageError, match="is empty"):
        add_nos(catalogue, file, "onie@1", nos="sonic", platforms=GLOB)
    with pytest.raises(ImageError, match="cannot be read"):
        add_nos(catalogue, tmp_path / "none", "onie@1", nos="sonic", platforms=GLOB)
    with pytest.raises(UsageError, match="no platform"):
        add_nos(catalogue, installer(tmp_path), "onie@1", nos="sonic", platforms=())


def sonic(file: Path, platforms: str | None) -> Path:
    """A script, the mark, and a tar: as sonic-buildimage puts an installer together."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:") as tar:
        for name, data in (("fs.zip", random.Random(2).randbytes(700_001)), ("platforms_asic", platforms)):
            if data is not None:
                found = data.encode() if isinstance(data, str) else data
                entry = tarfile.TarInfo(f"installer/{name}")
                entry.size = len(found)
                tar.addfile(entry, io.BytesIO(found))
    file.write_bytes(b"#!/bin/sh\necho 'exit_marker is below'\nexit 0\nexit_marker\n" + body.getvalue())
    return file


def test_a_sonic_says_itself_for_which_platforms_it_is(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "images")
    file = sonic(
        tmp_path / "sonic-x.bin", "x86_64-kvm_x86_64-r0\nx86_64-accton_as7726_32x-r0\nx86_64-accton_as7712_32x-r0\n"
    )
    warned: list[str] = []

    def added(ref: str, *globs: str) -> tuple[str, ...]:
        nos = add_nos(catalogue, file, ref, nos="sonic", platforms=globs, warn=warned.append).manifest.nos
        assert nos is not None
        return nos.platforms

    assert added("sonic@1", "x86_64-accton_*") == ("x86_64-accton_as7726_32x-r0", "x86_64-accton_as7712_32x-r0")
    assert len(added("sonic@2")) == 3
    with pytest.raises(UsageError, match="supports no platform x86_64-dell_") as refused:
        added("sonic@3", "x86_64-accton_*", "x86_64-dell_*")
    assert "its table has 3: x86_64-kvm_x86_64-r0" in refused.value.hint
    assert not warned


@pytest.mark.parametrize("table", [None, ""])
def test_where_it_does_not_say_the_operator_is_believed_and_told(tmp_path: Path, table: str | None) -> None:
    file = sonic(tmp_path / "sonic-x.bin", table)
    warned: list[str] = []
    for found in (file, installer(tmp_path)):
        assert platform_table(found) is None
        image = add_nos(
            Catalogue(tmp_path / "images"), found, f"{found.stem}@1", nos="sonic", platforms=GLOB, warn=warned.append
        )
        assert image.manifest.nos is not None
        assert image.manifest.nos.platforms == GLOB
    assert [w.split(" has ")[0] for w in warned] == ["sonic-x.bin", "sonic.bin"]
