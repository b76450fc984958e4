"""An ext4 file system inside a disk image, made and changed by e2fsprogs alone: no root, no loop device, no mount.

A new file system and a change to an existing one are the same act: apply a difference with debugfs. All is written in
the order of sorted paths under a fixed clock, so the same tree gives the same bytes; folders come first, so that they
lie together and a later change of a few files touches few places. Blocks that a change frees keep what was in them:
their chunks stay the base's, and an image is no place for secrets anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metalimmu.errors import ImageError, ToolError
from metalimmu.images.debian import run_tool
from metalimmu.images.tree import Difference, Entry, Stage, Tree, difference

BLOCK = 4096
# Named one by one: the defaults of mke2fs.conf differ between releases, and GRUB 2.06 reads no metadata_csum_seed.
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
_TYPES = {"file": 0o100000, "dir": 0o040000, "char": 0o020000, "block": 0o060000, "fifo": 0o010000, "symlink": 0o120000}


@dataclass(frozen=True)
class FileSystem:
    """Where it lies, and its clock: SOURCE_DATE_EPOCH for every time that is not a file's own."""

    image: Path
    offset: int  # bytes
    size: int
    epoch: int

    @property
    def device(self) -> str:
        return f"{self.image}?offset={self.offset}"

    @property
    def env(self) -> dict[str, str]:
        return {"E2FSPROGS_FAKE_TIME": str(self.epoch), "MKE2FS_CONFIG": "/dev/null", "DEBUGFS_PAGER": "cat"}


def make(fs: FileSystem, *, identity: str, hash_seed: str, label: str) -> None:
    """A new file system. `identity` and `hash_seed` are UUIDs."""
    options = (
        f"offset={fs.offset},hash_seed={hash_seed},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0"
    )
    shape = ["-b", str(BLOCK), "-I", "256", "-i", "16384", "-m", "1", "-J", "size=32", "-O", FEATURES, "-E", options]
    names = ["-U", identity, "-L", label]
    run_tool(["mke2fs", "-q", "-F", "-t", "ext4", *shape, *names, fs.image, str(fs.size // BLOCK)], env=fs.env)


def apply(fs: FileSystem, old: Tree, new: Tree, stage: Stage) -> Difference:
    """Turn the tree `old` inside the file system into `new`, then have e2fsck agree. Raises ImageError, ToolError."""
    change = difference(old, new)
    if change.empty:
        return change
    patches = _in_place(fs, old, new, change)
    script = [
        *_removals(old, change, patches),
        *_creations(new, change, patches, stage),
        *_attributes(old, new, change, patches, stage),
    ]
    _debugfs(fs, script, write=True)
    with fs.image.open("r+b") as image:
        for path, blocks in patches.items():
            content = stage.path(new[path].sha256).read_bytes()
            for i, block in enumerate(blocks):
                image.seek(fs.offset + block * BLOCK)
                image.write(content[i * BLOCK : (i + 1) * BLOCK].ljust(BLOCK, b"\0"))
    check(fs)
    return change


def check(fs: FileSystem) -> None:
    """Raises ImageError when e2fsck finds anything to mend."""
    found = run_tool(["e2fsck", "-f", "-n", fs.device], env=fs.env, ok=range(64))
    if found.returncode:
        said = found.stdout.decode(errors="replace").strip().splitlines()
        raise ImageError(
            f"the new file system is not clean: {'; '.join(said[1:6])}",
            hint="this is a fault in metalimmu: report it with the recipe; building without --base may help",
        )


def _in_place(fs: FileSystem, old: Tree, new: Tree, change: Difference) -> dict[str, list[int]]:
    """Files whose new content fits into their old blocks, and these blocks in order: only they change then."""
    fits = [p for p in change.content if 0 < _blocks(new[p]) <= _blocks(old[p])]
    if not fits:
        return {}
    said = _debugfs(fs, [f"blocks {_quote('/' + p)}" for p in fits], write=False)
    lists = [[int(n) for n in line.split()] for line in said.splitlines() if re.fullmatch(r"[0-9 ]*", line)]
    if len(lists) != len(fits):
        raise ImageError(
            f"debugfs named the blocks of {len(lists)} files, not of {len(fits)}", hint="build without --base"
        )
    # A file with holes has fewer blocks than its size says: it is written anew.
    return {
        p: blocks[: _blocks(new[p])] for p, blocks in zip(fits, lists, strict=True) if len(blocks) == _blocks(old[p])
    }


def _blocks(entry: Entry) -> int:
    return -(-entry.size // BLOCK)


def _removals(old: Tree, change: Difference, patches: dict[str, list[int]]) -> Iterable[str]:
    for path in change.remove:
        yield f"{'rmdir' if old[path].kind == 'dir' else 'rm'} {_quote('/' + path)}"
    for path in change.content:
        if path not in patches:
            yield f"rm {_quote('/' + path)}"


def _creations(new: Tree, change: Difference, patches: dict[str, list[int]], stage: Stage) -> Iterable[str]:
    written = sorted({*change.create, *(p for p in change.content if p not in patches)})
    yield from (f"mkdir {_quote('/' + p)}" for p in written if new[p].kind == "dir")
    here = None
    for path in written:
        entry = new[path]
        folder, _, name = path.rpartition("/")
        if entry.kind in {"dir", "hardlink"}:
            continue
        if folder != here:
            # debugfs links `write`, `symlink` and `mknod` into its current folder, whatever path they are given.
            yield f"cd {_quote('/' + folder)}"
            here = folder
        if entry.kind == "file":
            yield f"write {_quote(str(stage.path(entry.sha256)))} {_quote(name)}"
        elif entry.kind == "symlink":
            yield f"symlink {_quote(name)} {_quote(entry.target)}"
        elif entry.kind == "fifo":
            yield f"mknod {_quote(name)} p"
        else:
            yield f"mknod {_quote(name)} {entry.kind[0]} {entry.device[0]} {entry.device[1]}"
    names: dict[str, int] = {}
    for path in written:
        if new[path].kind == "hardlink":
            folder, _, name = path.rpartition("/")
            yield f"cd {_quote('/' + folder)}"  # where debugfs puts a link whose path has one slash only
            yield f"ln {_quote('/' + new[path].target)} {_quote(name)}"
            names[new[path].target] = names.get(new[path].target, 1) + 1
    for path, count in names.items():  # debugfs leaves the count to us
        yield f"sif {_quote('/' + path)} links_count {count}"


def _attributes(old: Tree, new: Tree, change: Difference, patches: dict[str, list[int]], stage: Stage) -> Iterable[str]:
    fresh = {*change.create, *(p for p in change.content if p not in patches)}
    for path in sorted({*fresh, *patches, *change.attributes}):
        entry, name = new[path], _quote("/" + path)
        before = Entry(entry.kind, mode=-1) if path in fresh else old[path]
        if entry.kind == "hardlink":
            continue
        if path in patches:
            if len(patches[path]) < _blocks(old[path]):
                yield f"punch {name} {len(patches[path])}"
            yield f"sif {name} size {entry.size}"
        if entry.mode != before.mode and entry.kind != "symlink":
            yield f"sif {name} mode 0{_TYPES[entry.kind] | entry.mode:o}"
        for field, value, was in (("uid", entry.uid, before.uid), ("gid", entry.gid, before.gid)):
            if value != was:
                yield f"sif {name} {field} {value}"
        if path not in change.attributes:
            yield f"sif {name} mtime @{entry.mtime}"
        for attribute in before.xattrs:
            if attribute not in entry.xattrs:
                yield f"ea_rm {name} {attribute[0]}"
        for attribute in entry.xattrs:
            if attribute not in before.xattrs:
                raw = stage.path(stage.keep(bytes.fromhex(attribute[1])))
                yield f"ea_set -f {_quote(str(raw))} {name} {attribute[0]}"


def _quote(word: str) -> str:
    """For debugfs's command line (libss): a quote inside quotes is doubled."""
    return '"' + word.replace('"', '""') + '"'


def _debugfs(fs: FileSystem, script: list[str], *, write: bool) -> str:
    """Run commands; returns what they print. debugfs ends with status 0 whatever happens: its complaints decide."""
    found = run_tool(
        ["debugfs", *(["-w"] if write else []), "-f", "-", fs.device],
        stdin="\n".join([*script, ""]).encode(),
        env=fs.env,
    )
    complaints = [
        line for line in found.stderr.decode(errors="replace").splitlines() if not line.startswith("debugfs ")
    ]
    if any("Could not allocate" in line or "No free space" in line for line in complaints):
        raise ImageError("the file system of the image is full", hint="build with a larger --size, without --base")
    if complaints:
        raise ToolError(
            f"debugfs: {complaints[0]}", hint="report it with the recipe", output="\n".join(complaints[:30])
        )
    return found.stdout.decode(errors="replace")
