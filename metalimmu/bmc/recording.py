"""A recording: answers of a real BMC in a folder or a zip, in DMTF's mockup format (DSP2043), read as if it answered.

``redfish/v1/Systems/1/index.json`` is the answer to GET /redfish/v1/Systems/1. The short form, in which the root folder is
/redfish/v1 itself, is read too; and a folder above either.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from metalimmu.bmc import uris
from metalimmu.bmc.answers import Answer, error
from metalimmu.bmc.ask import Ask, Reply
from metalimmu.errors import BmcBroken, BmcError, UsageError

INDEX = "index.json"
ROOT = "redfish/v1"
LARGEST = 64 << 20  # of one answer; the largest seen has 2 MB
MOST_FILES = 200_000


class Recording:
    """Answers by URI, letter case and trailing slashes ignored. Files are read when they are asked for."""

    def __init__(self, path: Path, names: Mapping[str, str], read: Callable[[str], bytes]) -> None:
        self.path = path
        self._names = names
        self._read = read
        self.asked: list[str] = []

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises UsageError for what is no recording."""
        if path.is_dir():
            return cls(path, _keyed(path, _files(path)), lambda name: _bounded(path / name))
        try:
            archive = zipfile.ZipFile(path)  # closes itself with the last reference
        except FileNotFoundError as exc:
            raise UsageError(f"there is no recording {path}", hint="name a folder or a zip file") from exc
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as exc:
            raise UsageError(f"{path} is no recording: {exc}", hint="name a folder or a zip file") from exc
        return cls(path, _keyed(path, archive.namelist()[:MOST_FILES]), lambda name: _unzipped(archive, name))

    def __len__(self) -> int:
        return len(self._names)

    def reply(self, ask: Ask) -> Reply:
        """As a BMC would: 200 with the file, or 404. A query is ignored, so `$expand` gives the plain collection."""
        self.asked.append(ask.uri)
        try:
            path = uris.local(ask.uri)
        except BmcError as exc:
            return Reply(0, error=exc, uri=ask.uri)
        name = self._names.get(uris.key(path.partition("?")[0]))
        if name is None:
            return Reply(404, uri=ask.uri)
        try:
            return Reply(200, {"Content-Type": "application/json"}, self._read(name), uri=ask.uri)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as exc:
            return Reply(0, error=BmcBroken(f"{self.path}: {name} cannot be read: {exc}"), uri=ask.uri)

    def get(self, path: str, *, patience: float | None = None) -> Answer:  # noqa: ARG002  # as a connector's
        """For the blocking readers. Raises BmcError for what is not there."""
        reply = self.reply(Ask(path))
        if reply.error is not None:
            raise reply.error
        answer = Answer(reply.status, reply.headers, reply.body, url=path)
        if reply.status != 200:
            raise error(answer, "GET", uris.path(path))
        return answer


def _files(folder: Path) -> list[str]:
    found: list[str] = []
    for path in folder.rglob(INDEX):
        found.append(path.relative_to(folder).as_posix())
        if len(found) >= MOST_FILES:
            break
    return found


def _keyed(path: Path, names: list[str]) -> dict[str, str]:
    """URI to file. The root is where redfish/v1/index.json is, or the shallowest index.json."""
    indexes = [n for n in names if n == INDEX or n.endswith(f"/{INDEX}")]
    if not indexes:
        raise UsageError(f"{path} has no {INDEX}", hint=f"a recording has files like {ROOT}/Systems/{INDEX}")
    roots = [n for n in indexes if f"/{n}".casefold().endswith(f"/{ROOT}/{INDEX}")]
    if roots:
        above, prefix = min(roots, key=len)[: -len(f"{ROOT}/{INDEX}")], "/"
    else:
        above, prefix = min(indexes, key=len)[: -len(INDEX)], f"/{ROOT}/"
    return {uris.key(prefix + n[len(above) : -len(INDEX)]): n for n in indexes if n.startswith(above)}


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST)


def _unzipped(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(LARGEST)
