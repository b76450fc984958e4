"""The two documents that metalimmu writes itself: holds.yaml and images.lock.

Each change is read, changed and replaced under a lock on the site's folder, through a temporary file: a reader sees
the old file or the new one, and so does a power cut. Comments at the top of the file stay.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from metalimmu import structs
from metalimmu.desired import documents
from metalimmu.desired.explain import explain
from metalimmu.desired.load import site_error
from metalimmu.desired.problems import Problem
from metalimmu.desired.types import Digest, Hold, ImageName
from metalimmu.errors import ImageExists, UsageError

HOLDS = "holds.yaml"
LOCK = "images.lock"
_HEADS = {
    HOLDS: "# Hosts kept at another image than their role says. Written by `metalimmu rollback --hold`; commit it.\n",
    LOCK: "# name@version: digest. Written by metalimmu when an image is first used; commit it.\n",
}

T = TypeVar("T")


def write_hold(folder: Path, hold: Hold) -> None:
    """Add the hold; one of the same host is replaced. Raises SiteError when holds.yaml is broken."""
    with locked(folder):
        holds = [h for h in read(folder, HOLDS, list[Hold], []) if h.host != hold.host]
        _write_holds(folder, [*holds, hold])


def remove_hold(folder: Path, host: str) -> Hold | None:
    """The hold that was there. Raises SiteError when holds.yaml is broken."""
    with locked(folder):
        holds = read(folder, HOLDS, list[Hold], [])
        gone = next((h for h in holds if h.host == host), None)
        if gone is not None:
            _write_holds(folder, [h for h in holds if h.host != host])
        return gone


def pin(folder: Path, ref: str, digest: str) -> bool:
    """Record `ref`'s digest; False when it is recorded already. Raises ImageExists when another digest is, UsageError, SiteError."""
    try:
        structs.convert({ref: digest}, dict[ImageName, Digest])
    except msgspec.ValidationError as exc:
        raise UsageError(f"{ref!r}: {digest!r} is no image with its digest", hint="name@version, sha256:...") from exc
    with locked(folder):
        lock = read(folder, LOCK, dict[ImageName, Digest], {})
        before = lock.get(ref)
        if before == digest:
            return False
        if before is not None:
            raise ImageExists(
                f"images.lock pins {ref} to {before}, this image is {digest}",
                hint="an image never changes: use another version, or find out who made a second one under this name",
            )
        _write(folder, LOCK, dict(sorted({**lock, ref: digest}.items())))
        return True


def _write_holds(folder: Path, holds: list[Hold]) -> None:
    _write(folder, HOLDS, [msgspec.to_builtins(h) for h in sorted(holds, key=lambda h: h.host)])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read(folder: Path, file: str, kind: type[T], empty: T) -> T:
    path = folder / file
    if not path.exists():
        return empty
    problems: list[Problem] = []
    source, value = documents.parse(file, path.read_bytes(), problems)
    if value is None and not problems:
        return empty
    try:
        if not problems:
            return structs.convert(value, kind)
    except msgspec.ValidationError as exc:
        problems = explain(source, kind, error=str(exc))
    raise site_error(folder, problems)


def _write(folder: Path, file: str, value: object) -> None:
    path = folder / file
    old = path.read_text() if path.exists() else ""
    head = ""
    for line in old.splitlines(keepends=True):
        if not line.startswith("#"):
            break
        head += line
    body = yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120) if value else ""
    replace(path, (head or _HEADS[file]) + body)


def replace(path: Path, text: str) -> None:
    """All or nothing, also when the power fails. Keeps the mode of the file that was there."""
    path = path.resolve()  # a link stays a link
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as out:
            os.fchmod(out.fileno(), mode)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
