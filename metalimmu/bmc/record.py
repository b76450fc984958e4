"""Record a BMC: its whole tree, read without writing, identities and secrets replaced, in DMTF's mockup format (DSP2043).

`redfish/v1/Systems/1/index.json` is the answer to GET /redfish/v1/Systems/1. What other tools replay (DMTF's mockup server,
`metalimmu lab fleet --recording`), and what can be sent with a bug report.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.bmc import uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.disguise import Disguise
from metalimmu.errors import BmcBroken, BmcCertificateError, BmcError, BmcLoginRefused, BmcUnreachable, UsageError

ROOT = "/redfish/v1/"
INDEX = "index.json"
README = "README"
MOST = 10_000  # resources
MOST_BYTES = 512 << 20
SECONDS = 3600.0
KEPT_ENTRIES = 50  # of each log
# Not walked: sessions are ours and others', schemas are the same everywhere, streams never end.
LEFT_OUT = ("/sessionservice/sessions/", "/jsonschemas/", "/schemastore/", "/$metadata", "/sse", "/dumps/")
EMPTIED = ("/sessionservice/sessions", "/jsonschemas")  # collections of which nothing stays

Get = Callable[[str], Answer]
Progress = Callable[[int, int], None]  # read, still to read


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path
    resources: int
    replaced: dict[str, int]  # kind -> different values
    skipped: tuple[tuple[str, str], ...]  # (URI, why), disguised
    complete: bool  # no limit was reached
    seconds: float


def record(
    get: Get,
    folder: Path,
    *,
    own: dict[str, str] | None = None,
    most: int = MOST,
    seconds: float = SECONDS,
    entries: int = KEPT_ENTRIES,
    progress: Progress | None = None,
) -> Recorded:
    """`get` reads one URI and raises BmcError. `own` is what we know ourselves, kind -> value: our user name, its address.

    Raises UsageError when `folder` is not empty, BmcError when the service root cannot be read or the BMC goes away.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there and not empty", hint="name a new folder for the recording")
    begun = time.monotonic()
    walk = _Walk(get, most=most, until=begun + seconds, entries=entries)
    walk.run(progress)
    disguise = Disguise()
    for kind, value in (own or {}).items():
        disguise.learn_text(kind, value)
    for document in walk.documents.values():
        disguise.learn(document)
    _write(folder, walk.documents, disguise)
    skipped = tuple((disguise.uri(u), disguise.text(w)) for u, w in walk.skipped)
    made = Recorded(
        folder=folder,
        resources=len(walk.documents),
        replaced=disguise.counts,
        skipped=skipped,
        complete=walk.complete,
        seconds=time.monotonic() - begun,
    )
    (folder / README).write_text(_readme(made), encoding="utf-8")
    return made


class _Walk:
    """Breadth first, each resource once, whatever is linked; what cannot be read is noted and left out."""

    def __init__(self, get: Get, *, most: int, until: float, entries: int) -> None:
        self.documents: dict[str, dict[str, Any]] = {}  # path -> document
        self.skipped: list[tuple[str, str]] = []
        self.complete = True
        self._get = get
        self._most = most
        self._until = until
        self._entries = entries
        self._bytes = 0
        self._seen: set[str] = set()
        self._todo: deque[str] = deque()

    def run(self, progress: Progress | None) -> None:
        self._add(ROOT)
        while self._todo:
            if len(self.documents) >= self._most or time.monotonic() > self._until or self._bytes > MOST_BYTES:
                self.complete = False
                return
            self._one(self._todo.popleft())
            if progress:
                progress(len(self.documents), len(self._todo))

    def _one(self, uri: str) -> None:
        try:
            answer = self._get(uri)
            document = answer.document()
        except (BmcUnreachable, BmcCertificateError, BmcLoginRefused):
            if not self.documents:
                raise
            self.complete = False
            self._todo.clear()
            self.skipped.append((uri, "the BMC went away"))
            return
        except BmcError as exc:
            if not self.documents:
                raise
            self.skipped.append((uri, exc.message))
            return
        self._bytes += len(answer.content)
        self._whole(uri, document)
        self.documents[uris.path(uri)] = document
        for found in _links(document):
            self._add(found)

    def _whole(self, uri: str, document: dict[str, Any]) -> None:
        """A collection of several pages becomes one; of a long log the first entries stay."""
        members = document.get("Members")
        if not isinstance(members, list):
            return
        entries = uris.key(uri).endswith("/entries")
        following = document.pop("Members@odata.nextLink", None)
        for _ in range(200):
            if not isinstance(following, str) or (entries and len(members) >= self._entries):
                break
            try:
                page = self._get(following).document()
            except BmcError as exc:
                self.skipped.append((following, exc.message))
                break
            members += [m for m in page.get("Members") or [] if isinstance(m, dict)]
            following = page.get("Members@odata.nextLink")
        if entries and len(members) > self._entries:
            del members[self._entries :]
        if uris.key(uri).endswith(EMPTIED):
            members.clear()
        if "Members@odata.count" in document and (entries or not members):
            document["Members@odata.count"] = len(members)

    def _add(self, uri: str) -> None:
        try:
            path = uris.path(uris.local(uri)).partition("?")[0]
        except BmcError as exc:
            self.skipped.append((uri[:200], exc.message))
            return
        key = uris.key(path)
        if key in self._seen or any(part in key for part in LEFT_OUT):
            return
        self._seen.add(key)
        # The root wants its slash on some makes; elsewhere what the link says is what is asked.
        self._todo.append(uri if uri == ROOT else uris.local(uri).partition("?")[0])


def _links(value: Any) -> Iterator[str]:
    """All that a document names on its own service: links, action infos, and where registries lie."""
    if isinstance(value, dict):
        for name, one in value.items():
            named = name in ("@odata.id", "@Redfish.ActionInfo") or (name == "Uri" and "Language" in value)
            if named and isinstance(one, str):
                if one.startswith("/") and len(one) > 1:
                    yield one
            else:
                yield from _links(one)
    elif isinstance(value, list):
        for one in value:
            yield from _links(one)


def _write(folder: Path, documents: dict[str, dict[str, Any]], disguise: Disguise) -> None:
    """All or nothing: a half-written recording would be taken for a machine with half its parts."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for uri, document in documents.items():
            changed = disguise.replaced(document)
            where = part.joinpath(*_safe(disguise.uri(uri)), INDEX)
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(json.dumps(changed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _safe(uri: str) -> list[str]:
    """The folders of a URI. Raises BmcBroken for one that would leave the recording."""
    parts = [p for p in uri.partition("?")[0].split("/") if p]
    if any(p in (".", "..") or "\\" in p or "\0" in p or len(p.encode()) > 255 for p in parts):
        raise BmcBroken(f"the BMC links {uri[:100]!r}, which cannot be a folder's name")
    return parts


def _readme(made: Recorded) -> str:
    replaced = "\n".join(f"  {n:6d} {kind}" for kind, n in made.replaced.items()) or "  nothing"
    skipped = "\n".join(f"  {uri}: {why}" for uri, why in made.skipped[:200]) or "  nothing"
    return (
        "Answers of a BMC in DMTF's mockup format (DSP2043), recorded by `metalimmu bmc record`, reading only.\n"
        f"{made.resources} resources{'' if made.complete else ', not complete: a limit was reached'}.\n\n"
        f"Replaced by made-up values of the same shape, the same everywhere, with no way back:\n{replaced}\n\n"
        f"Not readable, and left out:\n{skipped}\n"
    )
