"""Installers for switches in the image store: kept and read back byte for byte."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from metalimmu.errors import ImageError, ImageExists, UsageError
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.nos import add_nos
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
