"""The catalogue: which images there are. A folder that can be copied, served and read without metalimmu.

ROOT/catalogue/NAME/VERSION/manifest.json      content; its SHA-256 is the digest
                            provenance.json    how it came about; names the digest
                            tree.jsonl.zst     only images we built: the root file system's listing
                            revoked.json       only if revoked: {reason, since}
ROOT/chunks/                                   see chunks.py
ROOT/tmp/                                      work in progress; `gc` empties it
ROOT/lock                                      shared by writers, exclusive for gc
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalimmu import log
from metalimmu.errors import ImageCorrupt, ImageError, ImageExists, ImageInUse, NotFound, UsageError
from metalimmu.images.chunks import ChunkStore, fsync, full
from metalimmu.wire.codec import WireError
from metalimmu.wire.manifest import Manifest

_REF = re.compile(r"([a-z0-9][a-z0-9._-]*)@([A-Za-z0-9][A-Za-z0-9._+~-]*)")
_LOG = log.get(__name__)


@dataclass(frozen=True)
class Image:
    """One immutable artefact."""

    name: str
    version: str
    digest: str  # sha256:...
    manifest: Manifest
    provenance: dict[str, Any]
    revoked: str | None  # the reason
    added: float  # seconds since 1970

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


def split(ref: str) -> tuple[str, str]:
    """(name, version). Raises UsageError: a reference becomes a path, so its form is checked here and nowhere else."""
    found = _REF.fullmatch(ref)
    if not found or len(ref) > 200:
        raise UsageError(
            f"{ref[:200]!r} is no image reference",
            hint="write NAME@VERSION: name in lower case, digits, . _ -; for example web@2026.11.3",
        )
    return found.group(1), found.group(2)


class Catalogue:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.chunks = ChunkStore(root / "chunks")
        self._known: dict[Path, tuple[int, Manifest, str]] = {}

    # --- reading

    def get(self, ref: str) -> Image:
        """Raises NotFound, UsageError, ImageCorrupt."""
        name, version = split(ref)
        folder = self._folder(name, version)
        if not (folder / "manifest.json").is_file():
            others = ", ".join(sorted(p.name for p in folder.parent.glob("[!.]*")))
            raise NotFound(
                f"no image {ref} in {self.root}",
                hint=f"{name} has: {others}" if others else "see `metalimmu image list`",
            )
        return self._load(folder)

    def images(self) -> list[Image]:
        """All, by name, then by the time they were added. One that cannot be read is left out, with a warning."""
        found = []
        for folder in self._folders():
            try:
                found.append(self._load(folder))
            except ImageCorrupt as exc:
                _LOG.warning("%s: %s", exc.message, exc.hint)
        return sorted(found, key=lambda i: (i.name, i.added, i.version))

    def refs(self) -> list[str]:
        """Names of all, also of those that cannot be read."""
        return [f"{folder.parent.name}@{folder.name}" for folder in self._folders()]

    def by_digest(self, digest: str) -> Image | None:
        """One content may have several names. The revoked one answers for it: what is bad is the content."""
        named = [i for i in self.images() if i.digest == digest]
        return next((i for i in named if i.revoked), named[0] if named else None)

    def chunk_path(self, sha: str) -> Path:
        return self.chunks.path(sha)

    def manifest_bytes(self, ref: str) -> bytes:
        """As stored: their SHA-256 is the digest."""
        self.get(ref)
        return (self._folder(*split(ref)) / "manifest.json").read_bytes()

    def document(self, ref: str, name: str) -> bytes | None:
        """Another document beside the manifest, or None."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder(*split(ref)) / name).read_bytes()
        return None

    def referenced(self) -> set[str]:
        """Every chunk that any manifest names. Raises ImageCorrupt: what cannot be read may name any chunk."""
        named: set[str] = set()
        for folder in self._folders():
            named |= self._load(folder).manifest.distinct()
        return named

    # --- writing

    def publish(
        self, ref: str, manifest: Manifest, provenance: Mapping[str, Any], documents: Mapping[str, bytes]
    ) -> Image:
        """Name an image whose chunks are all stored: one rename, so it is there whole or not at all.

        The same content under the same name is a no-op. Raises ImageExists, and ImageError when the disk is full.
        """
        name, version = split(ref)
        folder = self._folder(name, version)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as new:
                fresh = Path(new) / "image"
                fresh.mkdir()
                now = {"image": ref, "digest": manifest.digest, "added": time.time(), **provenance}
                for file, data in {
                    **documents,
                    "provenance.json": _json(now),
                    "manifest.json": manifest.encode(),
                }.items():
                    write_synced(fresh / file, data)
                _name(fresh, folder)
        except OSError as exc:
            raise full(exc, self.root) from exc
        image = self.get(ref)
        if image.digest != manifest.digest:
            raise exists(image, manifest.digest)
        return image

    def revoke(self, ref: str, reason: str) -> Image:
        """Deployed nowhere from now on. A second time keeps the first reason and date."""
        image = self.get(ref)
        if not reason.strip():
            raise UsageError("a revocation needs a reason", hint="--reason TEXT says why nobody may deploy it")
        if image.revoked is None:
            write_synced(
                self._folder(image.name, image.version) / "revoked.json",
                _json({"reason": reason, "since": time.time()}),
            )
        return self.get(ref)

    def remove(self, ref: str, in_use: Mapping[str, Sequence[str]]) -> Image:
        """Forget an image; `gc` frees its chunks later.

        `in_use`: digest -> who needs it ("node-1 runs it", "role web names it", "node-2 may roll back to it").
        Raises ImageInUse with that list.
        """
        image = self.get(ref)
        users = list(in_use.get(image.digest, ()))
        if users:
            more = f" and {len(users) - 5} more" if len(users) > 5 else ""
            raise ImageInUse(f"{ref} is in use: {'; '.join(users[:5])}{more}")
        based = [i.ref for i in self.images() if (i.provenance.get("base") or {}).get("digest") == image.digest]
        if based:
            _LOG.info("%s was the base of %s; these stay whole", ref, ", ".join(based))
        folder = self._folder(image.name, image.version)
        gone = folder.parent / f".removed-{image.version}-{os.getpid()}"
        with self.locked():
            folder.rename(gone)
            shutil.rmtree(gone)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
        return image

    @contextlib.contextmanager
    def locked(self, *, exclusive: bool = False, timeout: float = 600) -> Iterator[None]:
        """Writers share the lock, gc has it alone. Raises ImageError when it is not free within `timeout` seconds."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a+b") as file:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        other = "an `add` or `build`" if exclusive else "a `gc`"
                        raise ImageError(
                            f"{self.root} is locked by {other} for more than {timeout:.0f} s", hint="wait for it to end"
                        ) from None
                    time.sleep(0.05)
            yield

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder for work in progress, on the store's own disk. Hold the lock: `gc` empties what a crash left."""
        parent = self.root / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            yield Path(folder)

    # --- inside

    def _folder(self, name: str, version: str) -> Path:
        return self.root / "catalogue" / name / version

    def _folders(self) -> list[Path]:
        return sorted(p for p in (self.root / "catalogue").glob("[!.]*/[!.]*") if p.is_dir())

    def _load(self, folder: Path) -> Image:
        try:
            provenance = json.loads((folder / "provenance.json").read_bytes())
            manifest, digest = self._manifest(folder / "manifest.json")
            revoked = folder / "revoked.json"
            reason = json.loads(revoked.read_bytes())["reason"] if revoked.exists() else None
        except (OSError, ValueError, KeyError, WireError) as exc:
            raise ImageCorrupt(
                f"{folder} is damaged: {exc}", hint="restore the folder, or delete it by hand and add the image again"
            ) from exc
        if provenance.get("digest") != digest:
            raise ImageCorrupt(
                f"{folder.parent.name}@{folder.name}: the manifest has {digest}, its provenance says {provenance.get('digest')}",
                hint="one of the two files was changed: restore the folder, or delete it by hand and add the image again",
            )
        return Image(
            folder.parent.name, folder.name, digest, manifest, provenance, reason, float(provenance.get("added", 0))
        )

    def _manifest(self, path: Path) -> tuple[Manifest, str]:
        """Manifests never change, so each is parsed once per process; the file's time catches those who change one anyway."""
        stamp = path.stat().st_mtime_ns
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            data = path.read_bytes()
            known = (stamp, Manifest.decode(data), "sha256:" + hashlib.sha256(data).hexdigest())
            self._known[path] = known
        return known[1], known[2]


def _name(fresh: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another writer was first."""
    try:
        fresh.rename(folder)
    except OSError as exc:
        if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return
    fsync(folder.parent)


def exists(image: Image, digest: str) -> ImageExists:
    return ImageExists(f"{image.ref} exists with {image.digest}; this content has {digest}")


def write_synced(path: Path, data: bytes) -> None:
    """Whole and on disk, or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n").encode()
