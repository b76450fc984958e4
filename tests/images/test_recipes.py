from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from metalimmu.errors import ImageError, NotFound, UsageError
from metalimmu.images import build as building
from metalimmu.images import recipes
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.recipes import Order, Recipe, cpio, release
from metalimmu.images.recipes.release import Laid


def _order(recipe: Recipe, version: str = "1", folder: Path = Path()) -> Order:
    return Order(recipe, "web", version, folder, "http://m/debian", ("deb x",), 1_700_000_000, "web")


def test_built_in_recipes_have_no_name_of_their_own(catalogue: Catalogue) -> None:
    for name in ("debian", "tiny"):
        assert recipes.load(name)[0].recipe == name
    with pytest.raises(UsageError) as caught:
        building.build("tiny", None, catalogue)
    assert "--as" in caught.value.hint


def test_a_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(
        'name: web\nversion: "2026.11"\nrecipe: debian\npackages: [nginx-light, "openssl=3.0.15-1~deb12u1"]\nsize: 2GiB\n'
    )
    found, folder = recipes.load(str(path))
    assert (found.name, found.version, folder) == ("web", "2026.11", tmp_path)
    assert building._own_ref(found) == "web@2026.11"
    more = building._with(found, size="4GiB", packages=["jq"], files=tmp_path)
    assert (more.size, more.packages[-1], more.files) == ("4GiB", "jq", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: web\nversion: 2.10\n", "quote it"),
        ("name: web\npackage: [x]\n", "package"),
        ("recipe: ubuntu\n", "ubuntu"),
        ("packages: ['x;reboot']\n", "packages"),
        ("packages: ['-oAPT::x']\n", "packages"),
        ("size: big\n", "size"),
        ("a: [\n", "YAML"),
        ("just text\n", "object"),
    ],
)
def test_a_wrong_recipe_says_what(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ImageError) as caught:
        recipes.load(str(tmp_path / "r.yaml"))
    assert message in caught.value.message + caught.value.hint


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        recipes.load("fedora")
    assert "debian, tiny" in caught.value.hint


def test_options_of_the_command_line_are_checked_too() -> None:
    with pytest.raises(UsageError, match="packages"):
        building._with(Recipe(), packages=["a b"])


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("1.5 GiB", 3 << 29), ("1000MB", 954 << 20), ("100MiB", 100 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert recipes.size_bytes(text) == size


def test_a_size_that_cannot_be() -> None:
    parts = recipes.Parts(None, {}, b"", b"", {})
    with pytest.raises(UsageError, match="too small"):
        building._plan(Recipe(recipe="tiny", size="10MiB"), parts)
    assert building._plan(Recipe(recipe="tiny", size="300MiB"), parts).size == 300 << 20
    with pytest.raises(UsageError, match="too small"):
        building._plan(Recipe(size="100MiB"), recipes.Parts({}, {}, b"", b"", {}))


def test_the_build_id_is_of_the_inputs_alone(tmp_path: Path) -> None:
    def inputs(recipe: Recipe, packages: dict[str, str], version: str = "1") -> dict[str, object]:
        return building._inputs(_order(recipe, version, tmp_path), packages, None)

    base = inputs(Recipe(), {"a": "1"})
    assert base == inputs(Recipe(name="other", version="9"), {"a": "1"})
    assert base != inputs(Recipe(), {"a": "2"})
    assert base != inputs(Recipe(), {"a": "1"}, version="2")
    assert base != inputs(Recipe(customize=["true"]), {"a": "1"})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "x").write_text("1")
    one = inputs(Recipe(files="."), {"a": "1"})
    (tmp_path / "etc" / "x").write_text("2")
    assert one != inputs(Recipe(files="."), {"a": "1"})


def test_os_release_keeps_the_distribution_and_adds_us() -> None:
    text = 'ID=debian\nIMAGE_ID="old"\nBUILD_ID=x\n'
    assert release.os_release(text, name="web", version="1.0+b~1", build_id="ab") == (
        'ID=debian\nIMAGE_ID="web"\nIMAGE_VERSION="1.0+b~1"\nBUILD_ID="ab"\n'
    )


def test_installed_packages() -> None:
    status = """\
Package: b
Status: install ok installed
Version: 1:2-3

Package: gone
Status: deinstall ok config-files
Version: 1

Package: a
Status: install ok installed
Version: 2
Description: x
 Version: not this
"""
    assert release.packages(status) == {"a": "2", "b": "1:2-3"}


def test_a_folder_is_laid_over_as_git_has_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "motd").write_text("hi")
    (tmp_path / "etc" / "motd").chmod(0o664)
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o700)
    (tmp_path / "link").symlink_to("etc/motd")
    laid = release.folder(tmp_path)
    assert laid == {"etc/motd": Laid(b"hi"), "run.sh": Laid(b"#!/bin/sh\n", 0o755), "link": Laid(link="etc/motd")}
    (tmp_path / "t.tar").write_bytes(release.tar(laid, 5))
    with tarfile.open(tmp_path / "t.tar") as tar:
        # No member for a folder: /lib of the tree may be a link.
        assert [(m.name, m.mode, m.uid, m.mtime) for m in tar] == [
            ("etc/motd", 0o644, 0, 5),
            ("link", 0o777, 0, 5),
            ("run.sh", 0o755, 0, 5),
        ]
    with pytest.raises(ImageError, match="no folder"):
        release.folder(tmp_path / "nowhere")


def _unpacked(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read `newc` as its manual page has it: 110 bytes of hex, name and content each padded to four."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        field = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110 : at + 110 + field[11] - 1].decode()
        start = at + 110 + field[11]
        start += -start % 4
        if name == "TRAILER!!!":
            return found
        found[name] = (field[1], data[start : start + field[6]])
        at = start + field[6]
        at += -at % 4


def test_an_initramfs_unpacks_to_what_went_in() -> None:
    files = {"init": Laid(b"#!/bin/sh\n", 0o755), "lib/a/b.ko": Laid(b"x" * 1001), "lib64": Laid(link="lib")}
    data = cpio.archive(files, 1_700_000_000)
    assert data == cpio.archive(dict(reversed(files.items())), 1_700_000_000)
    assert len(data) % 512 == 0
    assert _unpacked(data) == {
        "init": (0o100755, b"#!/bin/sh\n"),
        "lib": (0o040755, b""),
        "lib/a": (0o040755, b""),
        "lib/a/b.ko": (0o100644, b"x" * 1001),
        "lib64": (0o120777, b"lib"),
    }


def test_tiny_takes_no_packages(tmp_path: Path) -> None:
    from metalimmu.images.recipes import tiny
    from metalimmu.images.tree import Stage

    with pytest.raises(UsageError, match="tiny has no packages"):
        tiny.make(_order(Recipe(recipe="tiny", packages=["jq"])), tmp_path, Stage(tmp_path / "stage"), lambda _p: "id")
