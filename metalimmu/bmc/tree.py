"""Reading a BMC's tree of resources, with limits: what a BMC links is untrusted, and may be a circle."""

from __future__ import annotations

from metalimmu.bmc import uris
from metalimmu.bmc.answers import Answer
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.document import Doc
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.errors import BmcBroken, BmcCertificateError, BmcError, BmcUnreachable

ROOT = "/redfish/v1/"
PAGES = 50
MOST_REQUESTS = 2000


class Tree:
    """`read` remembers what it has read; `limit` requests at most; none any more once the BMC is away."""

    def __init__(self, connector: Connector, *, limit: int = MOST_REQUESTS, patience: float | None = None) -> None:
        self._connector = connector
        self._patience = patience
        self._left = limit
        self._limit = limit
        self._read: dict[str, Doc] = {}
        self._away: BmcError | None = None
        self._silent = 0

    def read(self, uri: str) -> Doc:
        """Raises BmcError."""
        key = uris.key(uri)
        if key not in self._read:
            answer = self._get(uri)
            self._read[key] = Doc(answer.document(), uris.path(uri), headers=answer.headers)
        return self._read[key]

    def _get(self, uri: str) -> Answer:
        """A BMC that went away is not asked for the other two hundred resources, each with its own patience."""
        if self._away is not None:
            raise self._away
        if self._left <= 0:
            raise BmcBroken(f"{uri}: not read, after {self._limit} requests: the tree is too large, or a circle")
        self._left -= 1
        try:
            answer = self._connector.get(uri, patience=self._patience)
        except BmcTimeout as exc:  # one slow resource is not a silent BMC; two in a row are
            self._silent += 1
            if self._silent >= 2:
                self._away = exc
            raise
        except (BmcUnreachable, BmcCertificateError) as exc:
            self._away = exc
            raise
        self._silent = 0
        return answer

    def members(self, uri: str) -> tuple[str, ...]:
        """URIs of a collection's members, each once, over all its pages. Raises BmcError.

        Null or missing Members with a count of 0 are an empty collection; without one they are an answer that cannot
        be read (seen on X10SDV and in captures).
        """
        found: dict[str, str] = {}
        seen: set[str] = set()
        page = uri
        while page and uris.key(page) not in seen and len(seen) < PAGES:
            seen.add(uris.key(page))
            doc = self.read(page)
            if not isinstance(doc.raw("Members"), list) and doc.number("Members@odata.count") != 0:
                raise BmcBroken(f"{doc.uri}: a collection without Members")
            for member in doc.links("Members"):
                found.setdefault(uris.key(member), member)
            page = doc.text("Members@odata.nextLink")
        found.pop(uris.key(uri), None)
        return tuple(found.values())

    def documents(self) -> tuple[Doc, ...]:
        """All that was read."""
        return tuple(self._read.values())
