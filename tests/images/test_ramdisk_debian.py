"""Packages are unpacked, not installed; the tree's programs run without it being anyone's root."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from metalimmu.images import debian, ramdisk_debian
from metalimmu.images.ramdisk_debian import merged, package_name, source_lines, unpack
from metalimmu.images.ramdisk_kernel import add_firmware


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    tree = tmp_path / "pkg"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: d\n"
    )
    (tree / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 1\n")
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "bin").mkdir()
    (tree / "bin/su").write_text("program")
    (tree / "bin/su").chmod(0o4755)
    (tree / "usr/share/doc").mkdir(parents=True)
    (tree / "usr/share/doc/read").write_text("me")
    (tree / "lib").mkdir()
    (tree / "lib/libx.so.1").write_text("lib")
    (tree / "lib/libx.so").symlink_to("libx.so.1")
    (tree / "usr/other").hardlink_to(tree / "bin/su")
    target = tmp_path / "demo_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], check=True, capture_output=True)
    return target


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("./bin/su", "usr/bin/su"),
        ("./lib64/ld.so", "usr/lib64/ld.so"),
        ("./usr/bin/su", "usr/bin/su"),
        ("./.disk/info", ".disk/info"),
        ("./binary/x", "binary/x"),
        ("../../etc/passwd", "etc/passwd"),
        ("/sbin/../bin/x", "usr/bin/x"),
        ("./", ""),
    ],
)
def test_paths_are_of_a_merged_usr_and_stay_inside(given, expected):
    assert merged(given) == expected


def test_unpack_keeps_what_is_wanted_and_drops_set_user_id(deb, tmp_path):
    tree = tmp_path / "tree"
    unpack([deb], tree, lambda path: not path.startswith("usr/share/doc/"))
    assert (tree / "bin").is_symlink()
    assert stat.S_IMODE((tree / "usr/bin/su").stat().st_mode) == 0o755
    assert (tree / "usr/lib/libx.so").readlink() == Path("libx.so.1")
    assert (tree / "usr/other").read_text() == "program"
    assert not (tree / "usr/share/doc/read").exists()
    assert not (tree / "DEBIAN").exists()


def test_package_name_is_of_the_file():
    assert package_name(Path("/x/libc6_2.36-9+deb12u14_amd64.deb")) == "libc6"


def test_sources_are_ours_and_only_firmware_has_contents(monkeypatch):
    monkeypatch.setattr(debian, "security_mirror", lambda archive, _suite: f"{archive}-security")
    monkeypatch.setattr(debian, "KEYRING", Path(__file__))
    lines = source_lines("http://mirror.example/debian", backports=True)
    assert all("signed-by=" in line for line in lines)
    for line in lines:
        assert ("Contents-deb" in line) == line.endswith("non-free-firmware")
    assert sum("bookworm-backports" in line for line in lines) == 2
    assert not any("backports" in line for line in source_lines("http://mirror.example/debian", backports=False))


def test_apt_is_told_nothing_of_this_machine(tmp_path, monkeypatch):
    calls = []

    def run_tool(argv, **options):
        if argv[0] == "apt-config":
            return subprocess.CompletedProcess(argv, 0, stdout=b"")
        calls.append((argv, options))
        raise AssertionError("stop here")

    monkeypatch.setattr(ramdisk_debian.debian, "run_tool", run_tool)
    apt = ramdisk_debian.Apt(tmp_path, ["deb x y z"])
    with pytest.raises(AssertionError, match="stop"):
        apt.update()
    assert calls[0][1]["env"] == {"APT_CONFIG": str(tmp_path / "apt.conf")}
    config = (tmp_path / "apt.conf").read_text()
    assert f'Dir "{tmp_path}";' in config
    assert "/etc/apt" not in config
    command = ["apt-config", "dump", "Dir::Etc"]
    environment = {"APT_CONFIG": str(tmp_path / "apt.conf"), "PATH": "/usr/bin"}
    shown = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    assert 'sourceparts "-"' in shown.lower()
    assert "/etc/apt" not in shown


def test_the_machines_proxy_for_packages_is_used(tmp_path, monkeypatch):
    said = b'Acquire::http::Proxy "http://cache.example:3142";\n'
    monkeypatch.setattr(
        ramdisk_debian.debian, "run_tool", lambda argv, **_: subprocess.CompletedProcess(argv, 0, stdout=said)
    )
    ramdisk_debian.Apt(tmp_path, ["deb x y z"])
    assert 'Acquire::http::Proxy "http://cache.example:3142";' in (tmp_path / "apt.conf").read_text()


# --- firmware ---------------------------------------------------------------------------------------------------


class Mirror:
    """Two packages of firmware; the first names a versioned file by a chain of symlinks, as intel/ice/ddp does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self._build(
            "firmware-ice",
            {"ice/ice-1.3.pkg": "wanted", "ice/other.pkg": "not"},
            {"ice/ice.pkg": "ice-1.pkg", "ice/ice-1.pkg": "ice-1.3.pkg"},
        )
        self._build("firmware-nic", {"nic/a.fw": "Debian's"}, {})

    def _build(self, name: str, files: dict[str, str], links: dict[str, str]) -> None:
        tree = self.folder / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: d\n"
        )
        for path in (*files, *links):
            (tree / "lib/firmware" / path).parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            (tree / "lib/firmware" / path).write_text(content)
        for path, target in links.items():
            (tree / "lib/firmware" / path).symlink_to(target)
        subprocess.run(
            ["dpkg-deb", "--build", tree, self.folder / f"{name}_1_all.deb"], check=True, capture_output=True
        )

    def fetch(self, *names: str) -> list[Path]:
        self.fetched += names
        return [self.folder / f"{name}_1_all.deb" for name in names]

    def owners(self) -> dict[str, list[str]]:
        return {
            "lib/firmware/ice/ice.pkg": ["firmware-ice"],
            "lib/firmware/ice/other.pkg": ["firmware-ice"],
            "lib/firmware/nic/a.fw": ["firmware-nic"],
        }


def test_only_the_firmware_asked_for_is_taken_with_what_its_links_point_to(tmp_path):
    tree = tmp_path / "tree"
    found, _ = add_firmware(tree, {"ice": ("ice/ice.pkg",)}, mirror := Mirror(tmp_path / "mirror"), None)
    assert found.missing == {}
    assert mirror.fetched == ["firmware-ice"]
    assert (tree / "usr/lib/firmware/ice/ice.pkg").read_text() == "wanted"
    assert not (tree / "usr/lib/firmware/ice/other.pkg").exists()


def test_an_operators_file_wins_and_what_nobody_has_is_named(tmp_path):
    mine = tmp_path / "mine"
    (mine / "nic").mkdir(parents=True)
    (mine / "nic/a.fw").write_text("mine")
    tree = tmp_path / "tree"
    asked = {"nic": ("nic/a.fw", "nic/b.fw")}
    found, debs = add_firmware(tree, asked, mirror := Mirror(tmp_path / "mirror"), mine)
    assert (tree / "usr/lib/firmware/nic/a.fw").read_text() == "mine"
    assert found.missing == {"nic/b.fw": "nic"}
    assert (mirror.fetched, debs) == ([], [])
