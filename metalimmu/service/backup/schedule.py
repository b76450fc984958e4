"""Backups again and again: what they are told, when one is due, and what is remembered of them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from metalimmu import log, structs
from metalimmu.bmc import credentials
from metalimmu.desired.backup import Backup
from metalimmu.desired.units import seconds
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import BackupError, MetalimmuError, UsageError
from metalimmu.service.backup.make import Made, Protection, backup
from metalimmu.service.backup.targets import file_name, newest, prune, target
from metalimmu.store.facts import BACKUP

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

logger = log.get("backup")

PASSPHRASE = "METALIMMU_BACKUP_PASSPHRASE"  # noqa: S105  # a name
_FIRST_WAIT, _LOOK = 30.0, 5.0  # seconds: after a failure; between looks at the clock


def settings(
    site: OpenSite, *, to: str | None, every: str | None, keep: int | None, chunks: str | None = None
) -> Backup:
    """`backup:` of site.yaml with what the command line says otherwise. Raises UsageError."""
    found = site.docs.site.backup
    if to is None and found is None:
        raise UsageError("no place for the backup", hint="name a FILE, or --to URL, or `backup:` in site.yaml")
    given = {"to": to, "every": every, "keep": keep, "chunks": chunks}
    merged = (msgspec.to_builtins(found) if found else {}) | {k: v for k, v in given.items() if v is not None}
    try:
        return structs.convert(merged, Backup)
    except msgspec.ValidationError as exc:
        raise UsageError(
            f"this is no place or time for a backup: {exc}", hint="--to s3://BUCKET/PREFIX --every 1h"
        ) from exc


def protection(
    site: OpenSite, *, passphrase_ref: str | None = None, recipient: str | None = None, without_keys: bool = False
) -> Protection:
    """How it is encrypted: as the command line says, or site.yaml, or the environment. Raises UsageError, SecretError."""
    if passphrase_ref or recipient or without_keys:
        phrase = credentials.secret(passphrase_ref, folder=site.folder) if passphrase_ref else None
        return Protection(passphrase=phrase, recipient=recipient, without_keys=without_keys)
    found = site.docs.site.backup
    if found is not None and found.age:
        return Protection(recipient=found.age)
    return Protection(passphrase=passphrase(site, None))


def passphrase(site: OpenSite, ref: str | None) -> str | None:
    """By reference, from site.yaml, from the environment, or asked for on a terminal. Raises SecretError."""
    found = site.docs.site.backup
    ref = ref or (found.passphrase if found else None)
    if ref:
        return credentials.secret(ref, folder=site.folder)
    if os.environ.get(PASSPHRASE):
        return log.secret(os.environ[PASSPHRASE])
    return None


@contextmanager
def fetched(site: OpenSite, place: str) -> Iterator[tuple[IO[bytes], str]]:
    """A backup to be read, and its name: a file, or a URL. Raises BackupError."""
    if "://" not in place:
        if place == "-":
            yield sys.stdin.buffer, "standard input"
            return
        try:
            file = Path(place).open("rb")  # noqa: SIM115
        except OSError as exc:
            raise BackupError(f"{place}: {exc.strerror}", hint="name a backup that is there") from exc
        with file:
            yield file, place
        return
    folder, _, name = place.rpartition("/")
    to = target(settings(site, to=folder, every=None, keep=None), site.folder)
    name = name or newest(to, site.docs.site.name)
    with to.open(name) as stream:
        yield stream, f"{folder}/{name}"


def once(site: OpenSite, wanted: Backup, protected: Protection) -> Made:
    """One backup into its place, the old ones removed. What came of it is remembered. Raises MetalimmuError."""
    lock = WorkerLock(site.state / "backup.lock")
    if not lock.take():
        raise BackupError(f"{lock.holder()} makes a backup just now", hint="wait for it")
    try:
        made = _once(site, wanted, protected)
    except MetalimmuError as exc:
        _remember(site, {"error": log.redact(exc.message), "hint": exc.hint, "failed_at": time.time()})
        raise
    finally:
        lock.release()
    _remember(
        site,
        {"at": made.manifest.at, "to": wanted.to, "name": made.path.name, "bytes": made.size, "seconds": made.seconds},
    )
    return made


def _once(site: OpenSite, wanted: Backup, protected: Protection) -> Made:
    to = target(wanted, site.folder)
    scratch = site.state / "backup-outgoing"
    scratch.mkdir(mode=0o700, exist_ok=True)
    for left in scratch.iterdir():  # by one that was killed
        left.unlink() if left.is_file() else None
    with to.room(file_name(site.docs.site.name, time.time()), scratch) as path:
        made = backup(site, path, protected, chunks=wanted.chunks)
    if wanted.keep:
        for name in prune(to, site.docs.site.name, wanted.keep):
            logger.info("removed the old backup %s", name)
    return made


def _remember(site: OpenSite, found: dict[str, object]) -> None:
    """A failure beside the last success: both are asked for."""
    last = site.store.fact(BACKUP) or {}
    if "error" in found and "error" not in last:
        site.store.add_event("", "backup", f"the backup failed: {found['error']}")
    if "error" not in found and "error" in last:
        site.store.add_event("", "backup", "backups are made again")
    kept = {k: v for k, v in last.items() if k not in ("error", "hint", "failed_at")}
    site.store.set_fact(BACKUP, kept | found)


def loop(
    site: OpenSite, wanted: Backup, protected: Protection, *, once: bool, said: Callable[[Made], None] = lambda _: None
) -> None:
    """In the foreground, until interrupted. A single one that fails raises."""
    if once:
        said(_single(site, wanted, protected))
        return
    Repeating(site, threading.Event(), lambda: (wanted, protected), said=said).run()


def _single(site: OpenSite, wanted: Backup, protected: Protection) -> Made:
    return once(site, wanted, protected)


class Repeating:
    """A backup whenever the last one is older than `every`; one that fails is tried again soon.

    `wanted` is asked each time: documents change. None: there is nothing to do.
    """

    def __init__(
        self,
        site: OpenSite,
        stop: threading.Event,
        wanted: Callable[[], tuple[Backup, Protection] | None],
        *,
        said: Callable[[Made], None] = lambda _: None,
    ) -> None:
        self._site, self._stop, self._wanted, self._said = site, stop, wanted, said
        self._thread: threading.Thread | None = None
        self._wait, self._not_before = _FIRST_WAIT, 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self.run, name="backup", daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(timeout=5)

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                self.tick()
            except Exception:
                logger.exception("a fault in backups; it is tried again")
                self._failed(3600.0)
            self._stop.wait(_LOOK)

    def tick(self) -> None:
        """Make one if it is due."""
        try:
            wanted = self._wanted()
            if wanted is None or time.monotonic() < self._not_before or not self._due(wanted[0]):
                return
            made = once(self._site, *wanted)
        except MetalimmuError as exc:
            self._failed(seconds(self._site.docs.site.backup.every) if self._site.docs.site.backup else 3600.0)
            logger.warning("the backup failed, tried again in %.0f s: %s (%s)", self._wait, exc.message, exc.hint)
            return
        self._wait, self._not_before = _FIRST_WAIT, 0.0
        logger.info("backup %s: %.1f MB in %.1f s", made.path.name, made.size / 1e6, made.seconds)
        self._said(made)

    def _due(self, wanted: Backup) -> bool:
        last = self._site.store.fact(BACKUP) or {}
        return last.get("to") != wanted.to or time.time() - float(last.get("at", 0.0)) >= seconds(wanted.every)

    def _failed(self, longest: float) -> None:
        self._not_before = time.monotonic() + self._wait
        self._wait = min(self._wait * 2, max(longest, _FIRST_WAIT))


def of_documents(site: OpenSite) -> tuple[Backup, Protection] | None:
    """What site.yaml asks for. Raises SecretError."""
    found = site.docs.site.backup
    return None if found is None else (found, protection(site))
