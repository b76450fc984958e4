"""One walk in progress: what it has found, and the means to find more."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from metalimmu.bmc import answers, uris
from metalimmu.bmc.ask import Asking, Reply
from metalimmu.bmc.collection import Collections, Expansion, Parse
from metalimmu.bmc.document import Doc
from metalimmu.bmc.firmware_rules import Sort
from metalimmu.bmc.places import Places, Where
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import Tree
from metalimmu.bmc.unknown import Hindered, unknown
from metalimmu.bmc.wanted import Want
from metalimmu.errors import BmcUnsupported
from metalimmu.observed.remembered import Remembered
from metalimmu.observed.snapshot import FirmwareItem, Job, Value
from metalimmu.observed.types import Component, Reason, Unknown

T = TypeVar("T")
Find = Callable[[], Asking[str]]
SHORTEST_IDENTITY = 4


class Item(NamedTuple):
    """One firmware item as sent, and what its names say that it is."""

    component: Component
    sort: Sort


class Reading:
    """The sections (snapshot_*.py) fill `settings`, `staged`, `sources` and `unknown`, by names of observed.snapshot."""

    def __init__(self, service: Service, want: Want) -> None:
        self.service = service
        self.want = want
        self.tree = Tree(on_reply=self._on_reply)
        self.gaps: list[Unknown] = []
        self.collections = Collections(self.tree, self.gaps, Expansion())
        self.places = Places()
        self.settings: dict[str, Value] = {}
        self.staged: dict[str, Value] = {}
        self.waiting: tuple[str, ...] = ()
        self.unknown: dict[str, Unknown] = {}
        self.sources: dict[str, str] = {}
        self.notes: list[str] = []
        self.items: tuple[Item, ...] = ()
        self.firmware: tuple[FirmwareItem, ...] | Unknown = ()
        self.jobs: tuple[Job, ...] | Unknown = ()
        self.registry = ""
        self.vendor = ""
        self.system: Doc | Unknown = Unknown(Reason.not_read)
        self.manager: Doc | Unknown = Unknown(Reason.not_read)
        self.at = 0.0  # of the last answer
        self.manager_at = 0.0
        self.dated = ("", 0.0)  # the first HTTP Date, and when it came
        self.peer = b""
        self.paths: dict[str, str] = {}
        self._own: set[str] = set()

    def _on_reply(self, reply: Reply) -> None:
        self.at = reply.at or self.at
        self.peer = self.peer or reply.peer
        if not self.dated[0] and reply.at:
            self.dated = (reply.headers.get("Date") or "", reply.at)

    # what is found

    def wants(self, section: str) -> bool:
        return section in self.want.sections

    def set(self, name: str, value: Value, source: str) -> None:
        self.settings[name] = value
        self.sources[name] = source

    def section(self, name: str, reader: Asking[None]) -> Asking[None]:
        """Runs `reader`; what it raises is why the section is unknown."""
        try:
            yield from reader
        except Exception as exc:  # noqa: BLE001  an odd answer must cost one section, not the walk
            self.unknown[name] = unknown(exc, self.sources.get(name, ""))

    def note(self, text: str) -> None:
        text = answers.clean(text)
        if text not in self.notes:
            self.notes.append(text)

    def lost_since(self, before: int) -> Unknown | None:
        """The first single member that could not be read since there were `before` gaps: what was listed is not all known,
        and what is not found there cannot be called missing.
        """
        lost = self.gaps[before:]
        if not lost:
            return None
        many = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        return Unknown(lost[0].reason, f"{lost[0].detail}{many}", lost[0].source)

    def the_system(self) -> Doc:
        return _there(self.system)

    def the_manager(self) -> Doc:
        return _there(self.manager)

    # what was learnt of the make

    def learn(self, remembered: Remembered) -> None:
        self.paths = dict(remembered.paths)
        self.collections.expansion.right = dict(remembered.expand)

    def own(self, *names: str) -> None:
        """Serial numbers and the like: a path that has one in it is this machine's alone."""
        self._own |= {n.casefold() for n in names if len(n) >= SHORTEST_IDENTITY}

    def keep(self, name: str, uri: str) -> None:
        """`uri` is where this make has `name`, unless it has already shown that machines differ."""
        if name not in self.paths and not any(own in uri.casefold() for own in self._own):
            self.paths[name] = uri

    def at_path(self, name: str, find: Find) -> Asking[Doc]:
        """The document where machines of this make have `name`; without a memory of it, where `find` says."""
        known = self.paths.get(name)
        if known:
            try:
                return (yield from self.tree.read(known))
            except BmcUnsupported:
                self.paths[name] = ""
        doc = yield from self.tree.read((yield from find()))
        self.keep(name, doc.uri)
        return doc

    def collection(self, name: str, guess: str, find: Find, parse: Parse[T]) -> Asking[tuple[T, ...]]:
        """Parsed members of the collection where machines of this make have `name`, or where the standard has it since
        Redfish 1.6 (`guess`), or where links lead (`find`). Raises BmcError.
        """
        tried = set()
        for uri in (self.paths.get(name), guess):
            if uri and uris.key(uri) not in tried:
                tried.add(uris.key(uri))
                try:
                    return (yield from self._parsed(name, uri, parse))
                except BmcUnsupported:
                    if uri == self.paths.get(name):
                        self.paths[name] = ""
        uri = yield from find()
        if uris.key(uri) in tried:
            raise BmcUnsupported(f"{uri} is linked and not there")
        return (yield from self._parsed(name, uri, parse))

    def _parsed(self, name: str, uri: str, parse: Parse[T]) -> Asking[tuple[T, ...]]:
        found = yield from self.collections.parsed(uri, parse, kind=name)
        self.keep(name, uri)
        self.sources[name] = uris.path(uri)
        return found

    # documents that places.yaml names

    def document(self, name: str) -> Asking[Doc]:
        """Raises BmcUnsupported where the machine links none."""
        if name == "system":
            return self.the_system()
        if name == "manager":
            return self.the_manager()
        where = self.places.documents.get(name)
        if where is None:
            raise BmcUnsupported(f"this make has no {name}")
        if where.member is not None:
            return (yield from self.at_path(name, lambda: self._member(where)))
        if where.start not in ("system", "manager"):
            return (yield from self.at_path(name, lambda: self.link(where)))
        return (yield from self.tree.read((yield from self.link(where))))

    def link(self, where: Where) -> Asking[str]:
        owner = yield from self.document(where.start)
        links = owner.links(*where.path) if isinstance(owner.raw(*where.path), list) else (owner.link(*where.path),)
        uri = next((u for u in links if u and uris.path(u).endswith(where.ending)), "")
        if not uri:
            raise BmcUnsupported(f"{owner.uri} links no {'.'.join(where.path)}")
        return uri

    def _member(self, where: Where) -> Asking[str]:
        uri = yield from self.link(where)
        unlike = where.member.pattern if where.member else None
        for member in (yield from self.tree.members(uri)):
            if unlike is None or not unlike.search(uris.last(member)):
                return member
        raise BmcUnsupported(f"{uri} has no member that is looked for")


def _there(doc: Doc | Unknown) -> Doc:
    """Raises what hindered its reading."""
    if isinstance(doc, Unknown):
        raise Hindered(doc)
    return doc
