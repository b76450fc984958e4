"""Make a backup while everything goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

import metalimmu
from metalimmu.boot import tls
from metalimmu.boot.tokens import SiteKey
from metalimmu.errors import BackupError, UsageError
from metalimmu.service.backup import archive
from metalimmu.service.backup.archive import Manifest, Member
from metalimmu.service.backup.documents import KEPT, digests
from metalimmu.service.backup.seal import BackupKey, private_file
from metalimmu.store.snapshot import snapshot

if TYPE_CHECKING:
    import tarfile

    from metalimmu.images.catalogue import Catalogue
    from metalimmu.service.site import OpenSite

Chunks = Literal["reference", "include"]
KEYS = ("site.key", "controller.key", "controller.pem")


@dataclass(frozen=True)
class Protection:
    """How what is private in a backup is encrypted: by a passphrase, to an age key, or not at all and then without keys."""

    passphrase: str | None = None
    recipient: str | None = None
    without_keys: bool = False

    def __post_init__(self) -> None:
        if sum((bool(self.passphrase), bool(self.recipient), self.without_keys)) != 1:
            raise UsageError(
                "say how the keys in the backup are encrypted",
                hint="--passphrase-ref env:NAME|file:PATH, --age-recipient KEY, or --without-keys for a backup that cannot "
                "answer the machines that wait",
            )


@dataclass(frozen=True)
class Made:
    path: Path
    manifest: Manifest
    size: int  # bytes
    seconds: float


@dataclass
class _Parts:
    """What goes into the archive: each member with where its bytes are."""

    members: list[Member] = field(default_factory=list)
    sources: dict[str, Path | bytes] = field(default_factory=dict)
    plain: list[tuple[str, Path]] = field(default_factory=list)  # chunks: checked by their own names

    def add(self, member: Member, source: Path | bytes) -> None:
        self.members.append(member)
        self.sources[member.name] = source

    def add_bytes(self, name: str, data: bytes) -> None:
        import hashlib

        self.add(Member(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()), data)


def backup(site: OpenSite, path: Path, protection: Protection, *, chunks: Chunks = "reference") -> Made:
    """Write a backup of the site's controller to `path`, whole or not at all; an older file of that name is replaced.

    Runs and scans go on meanwhile. Raises BackupError, StoreError, ImageError, SecretError.
    """
    begun = time.monotonic()
    _ = site.store  # makes and migrates it: there is something to copy, of this version
    key = None if protection.without_keys else BackupKey.new()
    with archive.written(path) as (tar, folder):
        moment, manifest = _databases(site, folder)
        parts = _Parts()
        for name in ("store.sqlite", "engine.sqlite"):
            if (folder / name).exists():
                _packed(folder / name, f"{name}.zst", folder, key, parts)
        if key is not None:
            for name in KEYS:
                _sealed(site.state / "tls" / name, f"tls/{name}", folder, key, parts)
        for name in KEPT:
            with contextlib.suppress(FileNotFoundError):
                parts.add_bytes(f"documents/{name}", (site.folder / name).read_bytes())
        with site.catalogue.locked():  # `gc` waits: what is named now is still there when it is copied
            counts = _images(site.catalogue, folder, parts, include=chunks == "include")
            ramdisks = _ramdisks(site, parts, include=chunks == "include")
            manifest = msgspec.structs.replace(
                manifest,
                at=moment,
                counts=manifest.counts | counts,
                chunks="included" if chunks == "include" else "reference",
                ramdisks=ramdisks,
                encryption=key.wrap(passphrase=protection.passphrase, recipient=protection.recipient) if key else None,
                members=parts.members,
            )
            if key is not None:
                manifest = msgspec.structs.replace(manifest, mac=key.mac(manifest.signed_part()))
            _write(tar, manifest, parts)
    return Made(path, manifest, path.stat().st_size, time.monotonic() - begun)


def _databases(site: OpenSite, folder: Path) -> tuple[float, Manifest]:
    pairs = [(site.state / "store.sqlite", folder / "store.sqlite")]
    engine = site.state / "engine.sqlite"
    if engine.exists():
        pairs.append((engine, folder / "engine.sqlite"))
    moment = snapshot(pairs)
    files = tls.ensure(site.state / "tls", site.docs.site.urls.machines)
    with closing(sqlite3.connect(folder / "store.sqlite")) as conn:
        counts = {name: conn.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in _COUNTED}  # noqa: S608  # our own names
        under_way = conn.execute(
            "SELECT id, host, verb, status FROM runs WHERE status IN ('queued', 'running', 'interrupted') ORDER BY id"
        ).fetchall()
        names = [r[0] for r in conn.execute("SELECT name FROM _sqlite_migrations ORDER BY name")]
    manifest = Manifest(
        format=archive.FORMAT,
        metalimmu=metalimmu.__version__,
        site=site.docs.site.name,
        at=moment,
        hostname=socket.gethostname(),
        key_id=SiteKey.at(site.state / "tls" / "site.key").id,
        pin=files.pin,
        migrations=names,
        engine=engine_versions(folder / "engine.sqlite"),
        counts=counts,
        under_way=[dict(zip(("run", "host", "verb", "status"), r, strict=True)) for r in under_way],
        documents=digests(site.folder),
    )
    return moment, manifest


_COUNTED = ("hosts", "runs", "deployments", "events")


def engine_versions(path: Path) -> dict[str, str]:
    """Of the engine's tables: a database of a newer DBOS is refused by an older one."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as conn, contextlib.suppress(sqlite3.Error):
        row = conn.execute("SELECT version FROM dbos_migrations").fetchone()
        return {"schema": str(row[0])} if row else {}
    return {}


def _packed(source: Path, name: str, folder: Path, key: BackupKey | None, parts: _Parts) -> None:
    """Compressed, then sealed."""
    packed = folder / f"{name}.packed"
    with private_file(packed) as file:
        archive.compress(source, file)
    source.unlink()  # room
    if key is None:
        parts.add(archive.described(name, packed), packed)
        return
    _sealed(packed, name, folder, key, parts)
    packed.unlink()


def _sealed(source: Path, name: str, folder: Path, key: BackupKey, parts: _Parts) -> None:
    target = folder / f"{name.replace('/', '-')}.sealed"
    with source.open("rb") as plain, private_file(target) as file:
        key.seal(plain, file, name)
    parts.add(archive.described(name, target, sealed=True), target)


def _images(catalogue: Catalogue, folder: Path, parts: _Parts, *, include: bool) -> dict[str, int]:
    images = catalogue.images()
    for image in images:
        home = catalogue.root / "catalogue" / image.name / image.version
        for file in sorted(home.glob("[!.]*")):
            parts.add_bytes(f"catalogue/{image.name}/{image.version}/{file.name}", file.read_bytes())
    shas = sorted(catalogue.referenced())
    sizes = {sha: catalogue.chunks.size(sha) for sha in shas} if include else dict(_sizes(catalogue, shas))
    listed = folder / "chunks.txt"
    with private_file(listed) as out:
        out.write("".join(f"{sha} {size}\n" for sha, size in sizes.items()).encode())
    _packed(listed, "chunks.txt.zst", folder, None, parts)
    if include:
        parts.plain += [(f"chunks/{sha[:2]}/{sha}.zst", catalogue.chunk_path(sha)) for sha in shas]
    return {"images": len(images), "chunks": len(shas), "chunk_bytes": sum(sizes.values())}


def _sizes(catalogue: Catalogue, shas: list[str]) -> Iterator[tuple[str, int]]:
    """0 for one that is missing: a backup by reference is no place to fail for that."""
    for sha in shas:
        try:
            yield sha, os.stat(catalogue.chunk_path(sha)).st_size  # noqa: PTH116  # ten thousand times a second
        except FileNotFoundError:
            yield sha, 0


def _ramdisks(site: OpenSite, parts: _Parts, *, include: bool) -> dict[str, str]:
    """Machines may be reading one just now; where images come along, the ramdisks that write them do too."""
    found = {}
    for home in sorted(p.parent for p in site.ramdisk_folder.glob("[!.]*/ramdisk.json")):
        found[home.name] = archive.described("", home / "boot.iso").sha256 if (home / "boot.iso").exists() else ""
        if include:
            for file in sorted(p for p in home.glob("[!.]*") if p.is_file()):
                parts.add(archive.described(f"ramdisk/{home.name}/{file.name}", file), file)
    return found


def _write(tar: tarfile.TarFile, manifest: Manifest, parts: _Parts) -> None:
    archive.put_bytes(tar, archive.MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    for member in parts.members:
        source = parts.sources[member.name]
        if isinstance(source, bytes):
            archive.put_bytes(tar, member.name, source)
        else:
            archive.put_file(tar, member.name, source)
    for name, path in parts.plain:
        try:
            archive.put_file(tar, name, path)
        except FileNotFoundError:
            raise BackupError(
                f"{path} is gone", hint="`metalimmu image verify` says which chunks are missing"
            ) from None
