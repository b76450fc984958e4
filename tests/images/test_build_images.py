"""Real builds from a Debian mirror: what is inside, the same bytes twice, and how little an update moves."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import image_builds as built
import pytest

from metalimmu.errors import ImageError, ToolError, UsageError
from metalimmu.images import build as building
from metalimmu.images import tree
from metalimmu.images.add import add
from metalimmu.images.build import build
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.chunks import Reader, reassemble
from metalimmu.images.verify import diff, verify
from metalimmu.wire.manifest import CHUNK

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def debian_pair() -> tuple[Catalogue, tuple[str, str, str]]:
    """debian@1 with one package at its older version, debian@2 built on it with today's: (package, old, new)."""
    package, old = built.older_package()
    store, _ = built.image("debian@1", "debian", packages=(f"{package}={old}",))
    store, second = built.image("debian@2", "debian", base="debian@1")
    return store, (package, old, second.provenance["packages"][package])


def _tree(store: Catalogue, ref: str) -> tree.Tree:
    return tree.decode(store.document(ref, building.TREE) or b"")


def _text(store: Catalogue, listed: tree.Tree, path: str) -> str:
    """A small file of debian@2, found in the image by its SHA-256: it starts at a block of the file system."""
    image, entry = store.get("debian@2"), listed[path]
    reader = Reader(image.manifest.chunks, image.manifest.size, store.chunks)
    for offset in range(0, image.manifest.size, 4096):
        if image.manifest.chunks[offset // CHUNK] is not None:
            data = reader.read(offset, entry.size)
            if hashlib.sha256(data).hexdigest() == entry.sha256:
                return data.decode()
    raise AssertionError(f"/{path} is not in one piece in the image")


def test_an_update_of_one_package_moves_few_chunks(debian_pair: tuple[Catalogue, tuple[str, str, str]]) -> None:
    store, (package, old, new) = debian_pair
    first, second = store.get("debian@1"), store.get("debian@2")
    differing = {
        name: (first.provenance["packages"].get(name), version)
        for name, version in second.provenance["packages"].items()
        if first.provenance["packages"].get(name) != version
    }
    assert differing == {package: (old, new)}
    moved = diff(store, first, second)
    share = moved.fetch / len(second.manifest.distinct())
    print(
        f"{package} {old} -> {new}: {moved.fetch} of {len(second.manifest.distinct())} chunks ({share:.1%}), {moved.fetch_bytes} of {moved.whole_bytes} bytes"
    )
    assert 0 < share <= 0.05
    assert moved.fetch_bytes <= 0.05 * moved.whole_bytes
    verify(store)


def test_a_version_built_on_its_base_holds_what_its_packages_brought(
    debian_pair: tuple[Catalogue, tuple[str, str, str]], tmp_path: Path
) -> None:
    """Its file system, read with debugfs, against the listing of the new tree: every path, mode, owner and content."""
    store, _ = debian_pair
    image = store.get("debian@2")
    disk = tmp_path / "disk.raw"
    reassemble(image.manifest, store.chunks, disk)
    offset = image.manifest.size - (1 << 20) - image.provenance["plan"]["root_size"]
    device = f"{disk}?offset={offset}"
    assert subprocess.run(["e2fsck", "-f", "-n", device], capture_output=True, check=False).returncode == 0
    (tmp_path / "root").mkdir()
    subprocess.run(["debugfs", "-R", f"rdump / {tmp_path / 'root'}", device], check=True, capture_output=True)
    wanted = _tree(store, "debian@2")
    stage = tree.Stage(tmp_path / "stage")
    found = {str(p.relative_to(tmp_path / "root")) for p in (tmp_path / "root").rglob("*")} - {"lost+found"}
    assert found == {p for p, e in wanted.items() if e.kind not in {"char", "block", "fifo"}}
    for path, entry in wanted.items():
        real = tmp_path / "root" / path
        if entry.kind == "file":
            assert stage.keep(real.read_bytes()) == entry.sha256, path
        elif entry.kind == "symlink":
            assert str(real.readlink()) == entry.target
    asked = [p for p, e in wanted.items() if e.kind in {"file", "dir"}]
    script = "\n".join(f'stat "/{p}"' for p in asked)
    said = subprocess.run(
        ["debugfs", "-f", "-", device], input=script, check=True, capture_output=True, text=True
    ).stdout
    stats = re.findall(r"Mode:\s+(\d+).*?User:\s+(\d+)\s+Group:\s+(\d+)", said, re.DOTALL)
    assert len(stats) == len(asked)
    for path, (mode, user, group) in zip(asked, stats, strict=True):
        assert (int(mode, 8), int(user), int(group)) == (wanted[path].mode, wanted[path].uid, wanted[path].gid), path


def test_nothing_of_the_building_machine_is_inside(debian_pair: tuple[Catalogue, tuple[str, str, str]]) -> None:
    store, _ = debian_pair
    image, listed = store.get("debian@2"), _tree(store, "debian@2")
    assert listed["etc/machine-id"].size == 0
    assert listed["etc/resolv.conf"].target == "../run/systemd/resolve/stub-resolv.conf"
    for path, entry in listed.items():
        made_here = (
            "etc/ssh/ssh_host_",
            "var/lib/apt/lists/deb",
            "boot/.metalimmu",
            "root/.ssh/",
            "root/.bash_history",
            "home/",
        )
        assert not path.startswith(made_here), path
        assert entry.kind != "file" or not path.startswith(("tmp/", "var/tmp/", "var/log/", "run/", "dev/")), path
        assert not path.endswith(".deb")
    for document, field in (("passwd", "uid"), ("group", "gid")):
        known = {int(line.split(":")[2]) for line in _text(store, listed, f"etc/{document}").splitlines()}
        assert {getattr(e, field) for e in listed.values()} <= known
    assert "metalimmu-proof.service" in {Path(p).name for p in listed if "multi-user.target.wants" in p}
    assert image.manifest.efi_loader == "\\EFI\\debian\\shimx64.efi"
    assert image.manifest.firmware == ("uefi", "bios")
    assert image.manifest.seed in image.manifest.config_extents
    epoch = image.provenance["source_date_epoch"]
    assert max(e.mtime for e in listed.values()) <= epoch
    assert re.search(r"^root:[*!]+:", _text(store, listed, "etc/shadow"), re.MULTILINE)
    assert 'IMAGE_ID="debian"\nIMAGE_VERSION="2"\n' in _text(store, listed, "usr/lib/os-release")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """tiny, built twice in two stores, from the network and from nothing kept."""
    first = build("tiny", "same@1", Catalogue(tmp_path / "a"))
    second = build("tiny", "same@1", Catalogue(tmp_path / "b"))
    assert first.digest == second.digest
    assert first.manifest.build_id == second.manifest.build_id


def test_a_new_version_of_tiny_moves_next_to_nothing() -> None:
    store, first = built.image("tiny@1", "tiny")
    store, second = built.image("tiny@2", "tiny", base="tiny@1")
    moved = diff(store, first, second)
    assert 0 < moved.fetch <= 3  # the file, the table of the FAT, the folder
    assert second.provenance["base"] == {"ref": "tiny@1", "digest": first.digest}
    assert first.manifest.build_id != second.manifest.build_id


def test_a_base_of_another_kind_is_refused(tmp_path: Path) -> None:
    store, _ = built.image("tiny@1", "tiny")
    with pytest.raises(ImageError, match="made by the recipe tiny"):
        build("debian", "x@1", store, base="tiny@1")
    with pytest.raises(UsageError, match="exclude each other"):
        build("tiny", "x@1", store, base="tiny@1", size="1GiB")
    other = Catalogue(tmp_path / "store")
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    add(other, tmp_path / "file", "imported@1")
    with pytest.raises(ImageError, match="not built by metalimmu"):
        build("tiny", "x@1", other, base="imported@1")


def test_a_package_that_is_not_there_is_named(catalogue: Catalogue) -> None:
    with pytest.raises(ToolError, match="no-such-package") as caught:
        build("debian", "x@1", catalogue, packages=["no-such-package"])
    assert "names of the packages" in caught.value.hint
    assert catalogue.images() == []
