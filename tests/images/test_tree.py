from __future__ import annotations

import io
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.errors import ImageError, ToolError
from metalimmu.images import ext4
from metalimmu.images.tree import Entry, Stage, Tree, decode, difference, encode, read_tar

MIB = 1 << 20
EPOCH = 1_700_000_000

NAMES = ["a", "b c", 'd"e', "ü", "-x", "#h"]
CONTENTS = {
    "0": b"",
    "1": b"x",
    "2": b"y" * 5000,
    "3": b"z" * 100_000,
    "4": bytes(20_000) + b"end",  # begins with a hole
    "5": b"q" * 9000,
}


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Folders two deep with files, links, devices; hard links to files."""
    tree: Tree = {}
    folders = [""] + [f"{a}" for a in draw(st.sets(st.sampled_from(NAMES[:3])))]
    folders += [f"{f}/{n}" for f in folders[1:] for n in draw(st.sets(st.sampled_from(NAMES[3:5]), max_size=1))]
    for folder in folders[1:]:
        tree[folder] = Entry(
            "dir", draw(st.sampled_from([0o755, 0o1777, 0o2750])), draw(st.sampled_from([0, 33])), 0, EPOCH
        )
    for folder in folders:
        for name in draw(st.sets(st.sampled_from(["f", "g'h", "i\\j", "k%l"]))):
            path = f"{folder}/{name}".lstrip("/")
            kind = draw(st.sampled_from(["file", "file", "file", "symlink", "char", "fifo"]))
            xattrs = draw(st.sampled_from([(), (("security.capability", "0100000200200000" + "00" * 12),)]))
            if kind == "file":
                content = draw(st.sampled_from(sorted(CONTENTS)))
                mode = draw(st.sampled_from([0o644, 0o755, 0o4755, 0o600]))
                tree[path] = Entry(
                    "file",
                    mode,
                    draw(st.sampled_from([0, 1000, 70000])),
                    0,
                    EPOCH + 5,
                    len(CONTENTS[content]),
                    content,
                    xattrs=xattrs,
                )
            elif kind == "symlink":
                tree[path] = Entry("symlink", 0o777, target=draw(st.sampled_from(["x", "../a b", "l" * 100])))
            else:
                tree[path] = Entry(kind, 0o600, device=(1, 3) if kind == "char" else (0, 0))
    files = [p for p, e in tree.items() if e.kind == "file"]
    if files and draw(st.booleans()):
        target = draw(st.sampled_from(files))
        tree["zz-link"] = Entry("hardlink", tree[target].mode, tree[target].uid, 0, EPOCH + 5, target=target)
    return dict(sorted(tree.items()))


@given(old=trees(), new=trees())
def test_a_difference_makes_one_tree_of_the_other(old: Tree, new: Tree) -> None:
    change = difference(old, new)
    now = dict(old)
    for path in change.remove:
        assert not [p for p in now if p.startswith(path + "/")], "a folder that is not empty"
        del now[path]
    for path in change.create:
        folder = path.rpartition("/")[0]
        assert path not in now
        assert not folder or now[folder].kind == "dir"
        now[path] = new[path]
    for path in (*change.content, *change.attributes):
        assert now[path].kind == new[path].kind
        now[path] = new[path]
    assert now == new
    assert difference(new, new).empty


@given(tree=trees())
def test_a_listing_survives_its_document(tree: Tree) -> None:
    again = decode(encode(tree))
    assert again == tree
    assert [e.mtime for e in again.values()] == [e.mtime for e in tree.values()]


def test_a_damaged_listing_is_refused() -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode(b"rubbish")
    with pytest.raises(ImageError, match="damaged"):
        decode(encode({"a": Entry("file")})[:-3])


# --- into a real file system


def _stage(folder: Path) -> Stage:
    stage = Stage(folder)
    for name, data in CONTENTS.items():
        stage.path(name).write_bytes(data)
    return stage


def _file_system(folder: Path, name: str = "disk") -> ext4.FileSystem:
    fs = ext4.FileSystem(folder / name, MIB, 128 * MIB, EPOCH)
    with fs.image.open("wb") as out:
        out.truncate(fs.offset + fs.size)
    uuid = "6c1f6f0e-1a0b-5d5c-9a3e-6d6574616c69"
    ext4.make(fs, identity=uuid, hash_seed=uuid, label="root")
    return fs


def _debugfs(fs: ext4.FileSystem, *commands: str) -> str:
    return subprocess.run(
        ["debugfs", "-f", "-", fs.device], input="\n".join(commands), check=True, capture_output=True, text=True
    ).stdout


def _read_back(fs: ext4.FileSystem, folder: Path) -> dict[str, tuple[object, ...]]:
    """What the file system holds, read with debugfs: (mode with type, uid, gid, links, content or target)."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [""]
    while pending:
        here = pending.pop()
        for line in _debugfs(fs, f'ls -p "/{here.replace(chr(34), chr(34) * 2)}"').splitlines():
            parts = line.split("/")
            if len(parts) < 7 or parts[5] in (".", "..", "lost+found"):
                continue
            inode, mode, uid, gid, name = parts[1], int(parts[2], 8), int(parts[3]), int(parts[4]), parts[5]
            path = f"{here}/{name}".lstrip("/")
            said = _debugfs(fs, f"stat <{inode}>", f"ea_list <{inode}>")
            links = int(re.search(r"Links: (\d+)", said)[1])  # type: ignore[index]
            capability = "security.capability" in said
            body: object = None
            if mode & 0o170000 == 0o040000:
                pending.append(path)
                links = 0
            elif mode & 0o170000 == 0o100000:
                out = folder / "content"
                out.unlink(missing_ok=True)
                _debugfs(fs, f"dump <{inode}> {out}")
                body = out.read_bytes()
            elif mode & 0o170000 == 0o120000:
                fast = re.search(r'Fast link dest: "(.*)"', said)
                body = fast[1] if fast else _debugfs(fs, f"cat <{inode}>").split("\n", 1)[1].split("debugfs:")[0]
            elif mode & 0o170000 == 0o020000:
                body = re.search(r"\(New-style\) (\d+):(\d+)|Device major/minor number: (\d+):(\d+)", said) is not None
            found[path] = (mode, uid, gid, links, body, capability)
    return found


def _expected(tree: Tree) -> dict[str, tuple[object, ...]]:
    types = {"file": 0o100000, "dir": 0o040000, "symlink": 0o120000, "char": 0o020000, "fifo": 0o010000}
    names: dict[str, int] = {}
    for entry in tree.values():
        if entry.kind == "hardlink":
            names[entry.target] = names.get(entry.target, 1) + 1
    found = {}
    for path, given_entry in tree.items():
        leader = given_entry.target if given_entry.kind == "hardlink" else path
        e = tree[leader]
        body: object = {"file": CONTENTS.get(e.sha256), "symlink": e.target, "char": True}.get(e.kind)
        links = 0 if e.kind == "dir" else names.get(leader, 1)
        found[path] = (types[e.kind] | e.mode, e.uid, e.gid, links, body, bool(e.xattrs))
    return found


LOST = {"lost+found": Entry("dir", 0o700)}


@settings(max_examples=12, deadline=None)
@given(steps=st.lists(trees(), min_size=2, max_size=3))
def test_a_file_system_becomes_each_tree_in_turn(steps: list[Tree]) -> None:
    """From nothing, then each from the one before; e2fsck agrees each time (`apply` asks it)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage, fs = _stage(folder / "stage"), _file_system(folder)
        old: Tree = {}
        for tree in steps:
            ext4.apply(fs, {**old, **LOST}, {**tree, **LOST}, stage)
            assert _read_back(fs, folder) == _expected(tree)
            old = tree


def _many(count: int, content: str = "2") -> Tree:
    tree: Tree = {"usr": Entry("dir", 0o755), "usr/share": Entry("dir", 0o755)}
    tree |= {
        f"usr/share/f{i:04}": Entry("file", 0o644, 0, 0, EPOCH, len(CONTENTS[content]), content) for i in range(count)
    }
    return dict(sorted(tree.items()))


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    stage, tree = _stage(tmp_path / "stage"), _many(300) | {"usr/bin": Entry("symlink", 0o777, target="x" * 80)}
    images = []
    for name in ("one", "two"):
        fs = _file_system(tmp_path, name)
        ext4.apply(fs, dict(LOST), {**tree, **LOST}, stage)
        images.append(fs.image.read_bytes())
    assert images[0] == images[1]


def test_a_changed_file_of_the_same_size_changes_its_own_blocks(tmp_path: Path) -> None:
    stage = _stage(tmp_path / "stage")
    stage.path("other").write_bytes(b"w" * 5000)
    fs, old = _file_system(tmp_path), _many(1000)
    ext4.apply(fs, dict(LOST), {**old, **LOST}, stage)
    before = fs.image.read_bytes()
    new = {**old, "usr/share/f0500": Entry("file", 0o644, 0, 0, EPOCH + 9, 5000, "other")}
    change = ext4.apply(fs, {**old, **LOST}, {**new, **LOST}, stage)
    after = fs.image.read_bytes()
    assert change.content == ("usr/share/f0500",)
    blocks = [i for i in range(0, len(before), 4096) if before[i : i + 4096] != after[i : i + 4096]]
    assert len(blocks) <= 4  # two of the file, its inode, the superblock
    assert "w" * 5000 in _debugfs(fs, "cat /usr/share/f0500")
    assert f"0x{EPOCH + 9:08x}" in _debugfs(fs, "stat /usr/share/f0500")


def test_only_times_differ_nothing_is_written(tmp_path: Path) -> None:
    stage, fs, old = _stage(tmp_path / "stage"), _file_system(tmp_path), _many(20)
    ext4.apply(fs, dict(LOST), {**old, **LOST}, stage)
    before = fs.image.read_bytes()
    later = {p: Entry(e.kind, e.mode, e.uid, e.gid, e.mtime + 100, e.size, e.sha256) for p, e in old.items()}
    assert ext4.apply(fs, {**old, **LOST}, {**later, **LOST}, stage).empty
    assert fs.image.read_bytes() == before


def test_a_tree_that_does_not_fit(tmp_path: Path) -> None:
    stage, fs = _stage(tmp_path / "stage"), _file_system(tmp_path)
    with pytest.raises(ImageError, match="full") as caught:
        ext4.apply(fs, dict(LOST), {**_many(1500, "3"), **LOST}, stage)
    assert "--size" in caught.value.hint


def test_a_listing_that_is_not_the_file_systems(tmp_path: Path) -> None:
    """The base's listing names a file that is not there: nobody may think that all went well."""
    stage, fs = _stage(tmp_path / "stage"), _file_system(tmp_path)
    with pytest.raises((ToolError, ImageError)):
        ext4.apply(fs, {"gone": Entry("file", size=1, sha256="1"), **LOST}, dict(LOST), stage)


def test_a_damaged_file_system_is_found(tmp_path: Path) -> None:
    fs = _file_system(tmp_path)
    subprocess.run(["debugfs", "-w", "-R", "sif / links_count 9", fs.device], check=True, capture_output=True)
    with pytest.raises(ImageError, match="not clean"):
        ext4.check(fs)


# --- tar


def _tar(path: Path, *members: tuple[str, bytes, str | bytes, dict[str, str]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, body, headers in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.mtime, info.pax_headers = kind, 0o4755, 5, EPOCH, headers
            if isinstance(body, bytes):
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
            else:
                info.linkname = body
                tar.addfile(info)
    return path


def test_a_tar_becomes_a_tree(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200ff000000000000").decode("utf-8", "surrogateescape")
    tar = _tar(
        tmp_path / "t",
        ("./", tarfile.DIRTYPE, "", {}),
        ("./usr/", tarfile.DIRTYPE, "", {}),
        (
            "./usr/ping",
            tarfile.REGTYPE,
            b"elf",
            {"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.system.posix_acl_access": "x"},
        ),
        ("./usr/pong", tarfile.LNKTYPE, "./usr/ping", {}),
        ("./bin", tarfile.SYMTYPE, "usr", {}),
    )
    stage = Stage(tmp_path / "stage")
    tree = read_tar(tar, stage)
    assert list(tree) == ["bin", "usr", "usr/ping", "usr/pong"]
    ping = tree["usr/ping"]
    assert (ping.mode, ping.uid, ping.mtime, ping.size) == (0o4755, 5, EPOCH, 3)
    assert ping.xattrs == (("security.capability", "0100000200ff000000000000"),)
    assert stage.path(ping.sha256).read_bytes() == b"elf"
    assert (tree["usr/pong"].kind, tree["usr/pong"].target) == ("hardlink", "usr/ping")
    assert tree["bin"].target == "usr"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\nb"])
def test_a_path_that_no_image_may_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="no path"):
        read_tar(_tar(tmp_path / "t", (name, tarfile.REGTYPE, b"", {})), Stage(tmp_path / "stage"))
