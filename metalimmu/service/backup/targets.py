"""Where backups go: a folder or a bucket, each backup under the time of its moment."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from metalimmu.bmc import credentials
from metalimmu.desired.backup import Backup
from metalimmu.errors import BackupError, SecretError, UsageError
from metalimmu.service.backup.s3 import Bucket, Keys

SUFFIX = ".metalimmu.tar"


def file_name(site: str, at: float) -> str:
    """Sorts by time."""
    return f"{site}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}{SUFFIX}"


class Target(Protocol):
    """Every method raises BackupError."""

    url: str

    @contextmanager
    def room(self, name: str, scratch: Path) -> Iterator[Path]:
        """Where to write the file; after the block it is in its place."""
        ...

    def names(self) -> list[str]:
        """Of the files that are there."""
        ...

    def open(self, name: str) -> IO[bytes]: ...

    def remove(self, name: str) -> None: ...


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = path.as_uri()

    @contextmanager
    def room(self, name: str, scratch: Path) -> Iterator[Path]:  # noqa: ARG002
        yield self._path / name

    def names(self) -> list[str]:
        return sorted(p.name for p in self._path.glob(f"*{SUFFIX}"))

    def open(self, name: str) -> IO[bytes]:
        try:
            return (self._path / name).open("rb")
        except OSError as exc:
            raise BackupError(f"{self._path / name}: {exc.strerror}") from exc

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class Prefix:
    """Of a bucket."""

    def __init__(self, bucket: Bucket, prefix: str, url: str) -> None:
        self._bucket, self._prefix = bucket, prefix
        self.url = url

    @contextmanager
    def room(self, name: str, scratch: Path) -> Iterator[Path]:
        path = scratch / name
        try:
            yield path
            self._bucket.put(self._prefix + name, path)
        finally:
            path.unlink(missing_ok=True)

    def names(self) -> list[str]:
        found = (key.removeprefix(self._prefix) for key, _ in self._bucket.list(self._prefix))
        return sorted(n for n in found if n.endswith(SUFFIX) and "/" not in n)

    def open(self, name: str) -> IO[bytes]:
        return self._bucket.get(self._prefix + name)

    def remove(self, name: str) -> None:
        self._bucket.delete(self._prefix + name)


def target(settings: Backup, folder: Path) -> Target:
    """`folder` is the site's, for relative paths. Raises UsageError, SecretError."""
    parts = urlsplit(settings.to)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise UsageError(f"{settings.to} is no folder", hint="write file:///DIR, with three slashes")
        return Folder(Path(unquote(parts.path)))
    if parts.scheme != "s3" or not parts.netloc:
        raise UsageError(f"{settings.to} is no place for backups", hint="s3://BUCKET/PREFIX or file:///DIR")
    prefix = parts.path.strip("/")
    bucket = Bucket(
        parts.netloc,
        _keys(settings, folder),
        endpoint=settings.endpoint,
        region=settings.region,
        ca=folder / settings.ca if settings.ca else None,
    )
    return Prefix(bucket, f"{prefix}/" if prefix else "", settings.to)


def _keys(settings: Backup, folder: Path) -> Keys:
    if settings.credentials:
        login = credentials.read(settings.credentials, folder=folder)
        return Keys(login.username, login.password)
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not access or not secret:
        raise SecretError(
            f"no credentials for {settings.to}",
            hint="`backup.credentials` of site.yaml refers to access key and secret; or export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))


def prune(to: Target, site: str, keep: int) -> list[str]:
    """Remove all but the newest `keep` of this site's; others' files are not ours to remove. Returns what went."""
    ours = re.compile(rf"{re.escape(site)}-[0-9]{{8}}T[0-9]{{6}}Z{re.escape(SUFFIX)}")
    old = sorted(n for n in to.names() if ours.fullmatch(n))[:-keep]
    for name in old:
        to.remove(name)
    return old


def newest(to: Target, site: str) -> str:
    """Raises BackupError when there is none."""
    ours = [n for n in to.names() if n.startswith(f"{site}-") and n.endswith(SUFFIX)]
    if not ours:
        raise BackupError(f"{to.url} has no backup of site {site}", hint="check the URL and its prefix")
    return max(ours)
