"""A root file system as a listing: what mmdebstrap made, what the base image holds, and the difference of the two. Pure but for `read_tar`.

Contents are staged as files named by their SHA-256; a listing without contents (the base's) compares just as well.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metalimmu.errors import ImageError

_XATTR = "SCHILY.xattr."
# security.capability makes `ping` work without setuid; POSIX ACLs of system.* are made again at boot by systemd-tmpfiles.
_KEPT_XATTRS = ("security.", "user.")


@dataclass(frozen=True)
class Entry:
    """One path. Times are not compared: a file whose content did not change keeps its inode."""

    kind: str  # file | dir | symlink | hardlink | char | block | fifo
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = field(default=0, compare=False)
    size: int = 0
    sha256: str = ""  # of a file's content
    target: str = ""  # of a symlink; of a hard link: the path of the file
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()  # name, value in hex


Tree = dict[str, Entry]  # path without leading slash -> entry; the root itself is left out


class Stage:
    """Contents of files, by SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha: str) -> Path:
        return self.folder / sha

    def keep(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.path(sha).write_bytes(data)
        return sha

    def file(self, data: bytes, *, mode: int = 0o644, mtime: int = 0) -> Entry:
        """A file of root's with this content."""
        return Entry("file", mode, mtime=mtime, size=len(data), sha256=self.keep(data))


def read_tar(path: Path, stage: Stage) -> Tree:
    """The listing of a tar file, its contents staged. Raises ImageError for what an image cannot have."""
    kinds = {
        tarfile.DIRTYPE: "dir",
        tarfile.SYMTYPE: "symlink",
        tarfile.LNKTYPE: "hardlink",
        tarfile.CHRTYPE: "char",
        tarfile.BLKTYPE: "block",
        tarfile.FIFOTYPE: "fifo",
    }
    tree: Tree = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name = _clean(member.name)
            if not name:
                continue
            kind = "file" if member.isreg() else kinds.get(member.type)
            if kind is None:
                raise ImageError(f"/{name} is of a kind that no image has ({member.type!r})")
            sha = _stage_member(tar, member, stage) if kind == "file" else ""
            target = member.linkname if kind == "symlink" else _clean(member.linkname) if kind == "hardlink" else ""
            tree[name] = Entry(
                kind,
                member.mode & 0o7777,
                member.uid,
                member.gid,
                int(member.mtime),
                member.size if kind == "file" else 0,
                sha,
                target,
                (member.devmajor, member.devminor) if kind in {"char", "block"} else (0, 0),
                _xattrs(member.pax_headers),
            )
    return dict(sorted(tree.items()))


def _clean(name: str) -> str:
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if ".." in parts or any(ord(c) < 32 for p in parts for c in p):
        raise ImageError(f"{name!r} is no path that an image may have")
    return "/".join(parts)


def _stage_member(tar: tarfile.TarFile, member: tarfile.TarInfo, stage: Stage) -> str:
    source = tar.extractfile(member)
    if source is None:
        raise ImageError(f"{member.name} has no content")
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=stage.folder, delete=False) as out:
        while data := source.read(1 << 20):
            digest.update(data)
            out.write(data)
    Path(out.name).replace(stage.path(digest.hexdigest()))
    return digest.hexdigest()


def _xattrs(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = {k.removeprefix(_XATTR): v for k, v in headers.items() if k.startswith(_XATTR)}
    return tuple(
        (k, v.encode("utf-8", "surrogateescape").hex()) for k, v in sorted(found.items()) if k.startswith(_KEPT_XATTRS)
    )


@dataclass(frozen=True)
class Difference:
    """What turns one tree into another. Paths in the order in which they can be done."""

    remove: tuple[str, ...]  # deepest first
    create: tuple[str, ...]  # parents first
    content: tuple[str, ...]  # same file, other content
    attributes: tuple[str, ...]  # same content, other owner, mode or extended attributes

    @property
    def empty(self) -> bool:
        return not (self.remove or self.create or self.content or self.attributes)


def difference(old: Tree, new: Tree) -> Difference:
    remade = _remade_links(old, new)
    remove, create, content, attributes = [], [], [], []
    for path in sorted(old.keys() | new.keys()):
        a, b = old.get(path), new.get(path)
        if a == b and path not in remade:
            continue
        if b is None or (a is not None and (path in remade or not _same_inode(a, b))):
            remove.append(path)
        if b is not None and (a is None or path in remade or not _same_inode(a, b)):
            create.append(path)
        elif a is not None and b is not None and a.sha256 != b.sha256:
            content.append(path)
        elif a is not None and b is not None:
            attributes.append(path)
    # A folder that becomes something else takes all that was in it along; what stays inside a replaced one is made anew.
    return Difference(tuple(reversed(remove)), tuple(create), tuple(content), tuple(attributes))


def _same_inode(a: Entry, b: Entry) -> bool:
    """Can b be made of a by setting content and attributes?"""
    return a.kind == b.kind in {"file", "dir"} or (
        a.kind == b.kind and (a.target, a.device) == (b.target, b.device) and a.kind != "hardlink"
    )


def _remade_links(old: Tree, new: Tree) -> set[str]:
    """All names of a file with several names, when anything about one of them changed: they are made again together."""

    def groups(tree: Tree) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path, entry in tree.items():
            if entry.kind == "hardlink":
                found.setdefault(entry.target, {entry.target}).add(path)
        return found

    before, after = groups(old), groups(new)
    remade: set[str] = set()
    for leader in before.keys() | after.keys():
        names = before.get(leader, set()) | after.get(leader, set())
        if before.get(leader) != after.get(leader) or any(old.get(n) != new.get(n) for n in names):
            remade |= names
    return remade


def content_size(tree: Tree, block: int = 4096) -> int:
    """Bytes that the tree takes in a file system, roughly."""
    return sum(max(block, -(-e.size // block) * block) for e in tree.values() if e.kind in {"file", "dir"})


def encode(tree: Tree) -> bytes:
    """JSON lines in one zstd frame: the document beside the manifest from which a next version is made."""
    import zstandard

    lines = (json.dumps([path, *dataclasses.astuple(entry)], ensure_ascii=True) for path, entry in tree.items())
    return zstandard.ZstdCompressor(level=9).compress("\n".join(lines).encode())


def decode(data: bytes) -> Tree:
    """Raises ImageError."""
    import zstandard

    try:
        text = zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 30).decode()
        tree: Tree = {}
        for line in text.splitlines():
            path, kind, mode, uid, gid, mtime, size, sha, target, device, xattrs = json.loads(line)
            tree[path] = Entry(
                kind, mode, uid, gid, mtime, size, sha, target, (device[0], device[1]), tuple((k, v) for k, v in xattrs)
            )
    except (zstandard.ZstdError, ValueError, TypeError, IndexError) as exc:
        raise ImageError(f"the base's listing (tree.jsonl.zst) is damaged: {exc}", hint="build without --base") from exc
    return tree


def tree_file(tree: Tree, path: str) -> Entry:
    """A file that must be there. Raises ImageError."""
    entry = tree.get(path)
    if entry is not None and entry.kind == "hardlink":
        entry = tree.get(entry.target)
    if entry is None or entry.kind != "file":
        raise ImageError(f"the packages brought no /{path}", hint="is a package missing in the recipe?")
    return entry
