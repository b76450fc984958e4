"""Put a controller's state back, on this machine or another one.

Everything is unpacked, checked and made ready beside the state folder first; then the worker's lock is taken, what was
there is moved aside, and the new files get their names. A marker keeps everybody out between first and last rename, so a
restore that was killed is seen and done again.

What the store says of machines is older than the machines: see store.facts.mark_restored and workflows.aftermath.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import socket
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from metalimmu import log
from metalimmu.boot.tokens import SiteKey
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import BackupError, SecretError
from metalimmu.service.backup import archive
from metalimmu.service.backup.archive import Manifest, Reader
from metalimmu.service.backup.documents import differing
from metalimmu.service.backup.make import KEYS
from metalimmu.service.backup.seal import BackupKey, private_file
from metalimmu.service.site import RESTORING, OpenSite, private_folder
from metalimmu.store.facts import Restored

if TYPE_CHECKING:
    from metalimmu.store.sqlite import SqliteStore

logger = log.get("restore")

_DATABASES = ("store.sqlite", "engine.sqlite")
_SIDES = ("-wal", "-shm", "-journal")


@dataclass
class Report:
    """What an operator must know afterwards."""

    manifest: Manifest
    mark: Restored
    aside: Path | None  # where the state that was there lies now
    going_on: list[dict[str, str]] = field(default_factory=list)  # runs: run, host, verb, status
    paused: list[str] = field(default_factory=list)  # rollouts
    doubted: int = 0  # hosts that were proven
    missing_chunks: list[str] = field(default_factory=list)
    missing_ramdisks: list[str] = field(default_factory=list)  # "generic: not here", "generic: another one"
    documents: list[str] = field(default_factory=list)  # "changed roles/web.yaml"
    written: list[str] = field(default_factory=list)  # documents put back


@dataclass(frozen=True)
class Secrets:
    passphrase: str | None = None
    identity: Path | None = None  # of age


def restore(
    site: OpenSite, file: IO[bytes], name: str, given: Secrets, *, force: bool = False, hold: bool = False
) -> Report:
    """`file` is read once, from its beginning. `force`: also over a state folder that is there, which is moved aside.
    `hold`: runs that were under way wait for `run resume`.

    Raises BackupError: cut short, of another site, newer than this program, or a state folder that is there;
    SecretError: the wrong passphrase.
    """
    state = private_folder(site.state)
    reader = Reader(file, name)
    manifest = reader.manifest
    _fits(site, manifest, name)
    _free(state, force=force)
    key = _key(manifest, given, name)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=state) as folder:
        staged = Path(folder)
        chunks = _unpack(reader, manifest, staged, key, site)
        _keys_fit(staged, manifest, state, name)
        listed = _listed(staged)
        mark, report = _made_ready(staged, manifest, site, name, hold=hold)
        with _alone(site, state, force=force):
            report.aside = _swap(staged, state, manifest)
        _documents(site, staged, report)
        _catalogue(site, staged)
        report.missing_chunks = [
            sha for sha in listed if sha not in chunks and not site.catalogue.chunk_path(sha).is_file()
        ]
        report.missing_ramdisks = _ramdisks(site, staged, manifest)
    logger.info("restored from %s: fences are above %d", name, mark.floor)
    return report


def _fits(site: OpenSite, manifest: Manifest, name: str) -> None:
    from metalimmu.store.migrations import names

    unknown = sorted(set(manifest.migrations) - names())
    if unknown:
        raise archive.newer(name, manifest.metalimmu, f"its store has {', '.join(unknown)}")
    wanted = site.docs.site.name
    if manifest.site != wanted:
        raise BackupError(
            f"{name} is of site {manifest.site!r}, {site.folder} is {wanted!r}",
            hint="--site names the other folder; a site's name is `name:` in site.yaml. Nothing was changed",
        )


def _free(state: Path, *, force: bool) -> None:
    there = [n for n in (*_DATABASES, "tls/site.key") if (state / n).exists()]
    if there and not force and not (state / RESTORING).exists():
        raise BackupError(
            f"{state} has a controller's state already: {', '.join(there)}",
            hint="restore into a folder without one; --force moves it aside first, and keeps it",
        )


def _key(manifest: Manifest, given: Secrets, name: str) -> BackupKey | None:
    if manifest.encryption is None:
        return None
    key = BackupKey.unwrap(manifest.encryption, passphrase=given.passphrase, identity=given.identity)
    if not secrets.compare_digest(key.mac(manifest.signed_part()), manifest.mac):
        raise archive.cut_short(name, "its manifest was changed after it was made")
    return key


def _unpack(reader: Reader, manifest: Manifest, staged: Path, key: BackupKey | None, site: OpenSite) -> set[str]:
    """Every member checked; returns the chunks that came along. Chunks go to the image store at once: they name themselves."""
    expected = {m.name: m for m in manifest.members}
    seen: set[str] = set()
    chunks: set[str] = set()
    for name, info in reader.members():
        if name.startswith("chunks/"):
            chunks.add(_chunk(reader, info, site))
            continue
        member = expected.get(name)
        if member is None or name in seen:
            raise archive.cut_short(reader.name, f"{name} is not in its manifest")
        target = staged / "members" / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with private_file(target) as file:
            if reader.copy(info, file) != member.sha256:
                raise archive.cut_short(reader.name, f"{name} does not have its SHA-256")
        _opened(target, name, sealed=member.sealed, key=key)
        seen.add(name)
    missing = [name for name in expected if name not in seen]
    if missing:
        raise archive.cut_short(
            reader.name, f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if missing[1:] else "")
        )
    if manifest.chunks == "included" and len(chunks) != manifest.counts.get("chunks", 0):
        raise archive.cut_short(reader.name, f"it has {len(chunks)} of {manifest.counts.get('chunks')} chunks")
    return chunks


def _opened(path: Path, name: str, *, sealed: bool, key: BackupKey | None) -> None:
    """Unsealed and unpacked, in place."""
    if sealed:
        if key is None:
            raise BackupError(f"{name} in the backup is encrypted, and its manifest does not say how")
        plain = path.with_name(path.name + ".plain")
        with path.open("rb") as source, private_file(plain) as target:
            key.unseal(source, target, name)
        plain.replace(path)
    if path.suffix == ".zst" and name.count("/") == 0:
        with path.open("rb") as source, private_file(path.with_suffix("")) as target:
            archive.decompress(source, target)
        path.unlink()


def _chunk(reader: Reader, info: tarfile.TarInfo, site: OpenSite) -> str:

    import zstandard

    from metalimmu.wire.manifest import CHUNK

    if info.size > 2 * CHUNK:
        raise archive.cut_short(reader.name, "a chunk that is too large")
    sha = Path(info.name).stem
    frame = io.BytesIO()
    reader.copy(info, frame)
    try:
        data = zstandard.ZstdDecompressor().decompress(frame.getvalue(), max_output_size=CHUNK)
    except zstandard.ZstdError as exc:
        raise archive.cut_short(reader.name, f"chunk {sha}: {exc}") from exc
    if hashlib.sha256(data).hexdigest() != sha:
        raise archive.cut_short(reader.name, f"chunk {sha} has another content")
    site.catalogue.chunks.put(sha, data)
    return sha


def _keys_fit(staged: Path, manifest: Manifest, state: Path, name: str) -> None:
    """The keys of the backup; without any in it, those that are there must be the site's."""
    own = staged / "members" / "tls" / "site.key"
    place = own if own.exists() else state / "tls" / "site.key"
    if not place.exists():
        raise SecretError(
            f"{name} has no keys, and neither has {state / 'tls'}",
            hint=f"put {', '.join(KEYS)} of the old controller there first: without them no machine that waits can be answered",
        )
    found = SiteKey.at(place).id
    if found != manifest.key_id:
        raise BackupError(
            f"the site key is {found}, the backup is of a controller with {manifest.key_id}",
            hint="this is another site's key, or the key was made anew since; nothing was changed",
        )


def _listed(staged: Path) -> list[str]:
    text = (staged / "members" / "chunks.txt").read_text(encoding="utf-8")
    return [line.split()[0] for line in text.splitlines() if line]


def _made_ready(staged: Path, manifest: Manifest, site: OpenSite, name: str, *, hold: bool) -> tuple[Restored, Report]:
    """The store of the backup, migrated and marked, before it gets its place."""
    from metalimmu.plan.waves import RolloutState
    from metalimmu.store.sqlite import SqliteStore

    store = SqliteStore(staged / "members" / "store.sqlite")
    try:
        proven = sum(1 for h in store.hosts().values() if h.proof == "proven")
        mark = store.mark_restored(
            backup_at=manifest.at,
            incarnation=secrets.token_hex(8),
            source=log.redact(Path(name).name),
            hostname=socket.gethostname(),
        )
        report = Report(manifest=manifest, mark=mark, aside=None, doubted=proven)
        report.going_on = _runs(store, hold=hold)
        report.paused = [r.id for r in store.rollouts.find(states=(RolloutState.paused,), limit=1000)]
        report.documents = differing(site.folder, manifest.documents)
    finally:
        store.close()
    for database in _DATABASES:
        path = staged / "members" / database
        if path.exists():
            with closing(sqlite3.connect(path)) as conn:
                conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return mark, report


def _runs(store: SqliteStore, *, hold: bool) -> list[dict[str, str]]:
    from metalimmu.store.records import RunStatus

    found = store.runs(status=(RunStatus.queued, RunStatus.running, RunStatus.interrupted), limit=100_000)
    if hold:
        for run in found:
            store.set_run(run.id, status=RunStatus.interrupted)
    return [
        {"run": r.id, "host": r.host, "verb": r.verb, "status": str(RunStatus.interrupted if hold else r.status)}
        for r in found
    ]


@contextmanager
def _alone(site: OpenSite, state: Path, *, force: bool) -> Iterator[None]:
    lock = WorkerLock(state / "worker.lock")
    if not lock.take():
        raise BackupError(
            f"a controller lives in {state}: {lock.holder()}",
            hint="stop it first (`metalimmu serve`, or the command that works); --force does not do that",
        )
    try:
        _free(state, force=force)
        site.close()
        site.__dict__.pop("store", None)  # what comes next opens the new one
        yield
    finally:
        lock.release()


def _swap(staged: Path, state: Path, manifest: Manifest) -> Path | None:
    """Renames within one file system, between which the marker keeps others out."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    # Inside the state folder, which sites keep out of git: it has keys.
    aside = state / f"before-restore-{stamp}-{secrets.token_hex(2)}"
    broken_off = (state / RESTORING).exists()
    (state / RESTORING).write_text(
        f"a restore of the backup of {manifest.at} by {socket.gethostname()} pid {os.getpid()}\n"
    )
    members = staged / "members"
    for name in _DATABASES:
        for each in (name, *(name + side for side in _SIDES)):
            archive.move_beside(state / each, aside)
        if (members / name).exists():
            (members / name).rename(state / name)
    if (members / "tls").exists():
        archive.move_beside(state / "tls", aside)
        (members / "tls").rename(state / "tls")
    for path in (*(state / n for n in _DATABASES if (state / n).exists()), *(state / "tls").iterdir(), state):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    (state / RESTORING).unlink()
    if broken_off:
        logger.warning("an earlier restore had broken off; what it left is in %s", aside)
    return aside if aside.exists() else None


def _documents(site: OpenSite, staged: Path, report: Report) -> None:
    """What commands had written: put back where it is missing; where it differs, the operator decides."""
    folder = staged / "members" / "documents"
    for file in sorted(folder.glob("*")) if folder.exists() else ():
        place = site.folder / file.name
        if not place.exists():
            shutil.copyfile(file, place)
            report.written.append(file.name)
        elif place.read_bytes() != file.read_bytes():
            shutil.copyfile(file, site.folder / f"{file.name}.restored")
            report.written.append(f"{file.name}.restored")
    report.documents = [w for w in report.documents if w.partition(" ")[2] not in report.written]


def _catalogue(site: OpenSite, staged: Path) -> None:
    """Images that are not here. One that is stays: it never changes; but a revocation comes back."""
    root = staged / "members" / "catalogue"
    for folder in sorted(p for p in root.glob("*/*") if p.is_dir()) if root.exists() else ():
        place = site.catalogue.root / "catalogue" / folder.parent.name / folder.name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, place)
            continue
        if (folder / "manifest.json").read_bytes() != (place / "manifest.json").read_bytes():
            logger.warning("%s@%s is another image here than in the backup", folder.parent.name, folder.name)
        elif (folder / "revoked.json").exists() and not (place / "revoked.json").exists():
            shutil.copyfile(folder / "revoked.json", place / "revoked.json")


def _ramdisks(site: OpenSite, staged: Path, manifest: Manifest) -> list[str]:
    root = staged / "members" / "ramdisk"
    for folder in sorted(root.iterdir()) if root.exists() else ():
        if not (site.ramdisk_folder / folder.name).exists():
            shutil.copytree(folder, site.ramdisk_folder / folder.name)
    wrong = []
    for flavour, sha in manifest.ramdisks.items():
        iso = site.ramdisk_folder / flavour / "boot.iso"
        if not iso.exists():
            wrong.append(f"{flavour}: not here")
        elif archive.described("", iso).sha256 != sha:
            wrong.append(f"{flavour}: another one than in the backup")
    return wrong
