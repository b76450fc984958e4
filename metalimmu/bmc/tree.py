"""Reading a BMC's tree of resources, with limits: what a BMC links is untrusted, and may be a circle.

Its methods are readers (see `ask`): `doc = yield from tree.read(uri)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metalimmu.bmc import answers, uris
from metalimmu.bmc.ask import Ask, Asking, Reply
from metalimmu.bmc.document import Doc
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.errors import BmcBroken, BmcCertificateError, BmcError, BmcUnreachable

ROOT = "/redfish/v1/"
PAGES = 50
MOST_REQUESTS = 2000


class Tree:
    """`read` remembers what it has read; `limit` requests at most; none any more once the BMC is away.

    `on_reply` is shown every answer that is one, for what stands outside of bodies: the certificate, the clock.
    """

    def __init__(self, *, limit: int = MOST_REQUESTS, on_reply: Callable[[Reply], None] | None = None) -> None:
        self.requests = 0
        self._limit = limit
        self._on_reply = on_reply
        self._read: dict[str, Doc] = {}
        self._failed: dict[str, BmcError] = {}
        self._away: BmcError | None = None
        self._silent = 0

    def read(self, uri: str) -> Asking[Doc]:
        """Raises BmcError, for one resource always the same: it is not asked for twice."""
        key = uris.key(uri)
        doc = self._read.get(key)
        if doc is None:
            if key in self._failed:
                raise self._failed[key]
            try:
                doc = self._read[key] = yield from self._ask(uri)
            except BmcError as exc:
                self._failed[key] = exc
                raise
        return doc

    def _ask(self, uri: str, expand: bool = False) -> Asking[Doc]:
        """A BMC that went away is not asked for the other two hundred resources, each with its own patience."""
        if self._away is not None:
            raise self._away
        if self.requests >= self._limit:
            raise BmcBroken(f"{uri}: not read, after {self._limit} requests: the tree is too large, or a circle")
        uris.local(uri)  # what is no URI is refused before it is asked for
        self.requests += 1
        reply = yield Ask(uri, expand)
        if reply.error is not None:
            self._remember(reply.error)
            raise reply.error
        self._silent = 0
        if self._on_reply is not None:
            self._on_reply(reply)
        if not 200 <= reply.status < 300:
            answer = answers.Answer(reply.status, reply.headers, reply.body, url=uri)
            raise answers.error(answer, "GET", uris.path(uri))
        return Doc(answers.document(reply.body, uri), uris.path(uri), headers=reply.headers)

    def _remember(self, error: BmcError) -> None:
        if isinstance(error, BmcTimeout):  # one slow resource is not a silent BMC; two in a row are
            self._silent += 1
            if self._silent >= 2:
                self._away = error
        elif isinstance(error, (BmcUnreachable, BmcCertificateError)):
            self._away = error

    def members(self, uri: str) -> Asking[tuple[str, ...]]:
        """URIs of a collection's members, each once, over all its pages. Raises BmcError."""
        found, _ = yield from self._pages(uri, expand=False)
        return found

    def expanded(self, uri: str) -> Asking[tuple[tuple[str, ...], dict[str, Doc]]]:
        """The same with `$expand`: also the members that came inline, by `uris.key`. They are not what `read` returns."""
        return self._pages(uri, expand=True)

    def _pages(self, uri: str, *, expand: bool) -> Asking[tuple[tuple[str, ...], dict[str, Doc]]]:
        """Null or missing Members with a count of 0 are an empty collection; without one they are an answer that cannot
        be read (seen on X10SDV and in captures).
        """
        found: dict[str, str] = {}
        inline: dict[str, Doc] = {}
        seen: set[str] = set()
        page = uri
        counted: int | None = None
        while page and uris.key(page) not in seen and len(seen) < PAGES:
            seen.add(uris.key(page))
            if expand:
                doc = yield from self._ask(page, expand=page == uri)  # the next page's link says $expand itself
            else:
                doc = yield from self.read(page)
            if not isinstance(doc.raw("Members"), list) and doc.number("Members@odata.count") != 0:
                raise BmcBroken(f"{doc.uri}: a collection without Members")
            for member in doc.items("Members"):
                _add(member, found, inline, doc)
            counted = doc.number("Members@odata.count")
            page = doc.text("Members@odata.nextLink")
        if expand and not page and counted is not None and counted > len(found):
            raise BmcBroken(f"{uri}: $expand lost {counted - len(found)} of {counted} members")
        found.pop(uris.key(uri), None)
        return tuple(found.values()), inline

    def documents(self) -> tuple[Doc, ...]:
        """All that was read."""
        return tuple(self._read.values())

    def close(self) -> None:
        """Let go of everything at once: kept errors and the callback are circles, and a scan has thousands of trees."""
        self._read.clear()
        self._failed.clear()
        self._away = self._on_reply = None


_STUB = frozenset({"Id", "Name", "Description"})
"""What some BMCs send in place of a member that they did not expand."""


def _add(member: Any, found: dict[str, str], inline: dict[str, Doc], doc: Doc) -> None:
    uri = member.get("@odata.id") if isinstance(member, dict) else None
    if isinstance(uri, str) and uri:
        key = uris.key(uri)
        found.setdefault(key, uri)
        if any(not name.startswith("@") and name not in _STUB for name in member):
            inline.setdefault(key, Doc(member, uris.path(uri), doc.odd))
