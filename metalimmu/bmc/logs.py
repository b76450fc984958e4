"""A BMC's audit, lifecycle and event logs around a time, for the question who changed it. What entries mean is in logs.yaml.

Makes differ in the order (Dell's newest first, all others oldest first), in pages, and in whose clock they use: all of that
is dealt with here, and a few requests are all that is spent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources

import msgspec

from metalimmu import structs
from metalimmu.bmc import answers, times, uris
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.places import Match, Strict
from metalimmu.bmc.redfish_inventory import attempt
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import Tree
from metalimmu.bmc.unknown import unknown
from metalimmu.bmc.wanted import Target
from metalimmu.errors import BmcError
from metalimmu.observed.log_entry import LogEntry, LogKind
from metalimmu.observed.types import Reason, Unknown

PAGES = 4
"""Of one log."""
SINGLE = 40
"""Entries read one by one, where a log's collection has links alone (X10SDV)."""
LAST = 200
"""Of a log that begins with its oldest entry and has more pages: only so many of the end are asked for."""


class Log(Strict, frozen=True):
    owner: str
    id: str


class Rule(Strict, frozen=True):
    kind: LogKind
    id: str = ""
    message: str = ""


class Make(Strict, frozen=True):
    match: Match
    logs: tuple[Log, ...]
    kinds: tuple[Rule, ...]
    because: str
    source: str
    unless: tuple[str, ...] = ()
    account: tuple[tuple[str, ...], ...] = ()
    ident: tuple[tuple[str, ...], ...] = ()
    said: tuple[str, ...] = ()
    nobody: frozenset[str] = frozenset()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`entries` within the window, newest first. `complete` false: there may be more than were read."""

    entries: tuple[LogEntry, ...]
    complete: bool
    ahead: float = 0.0  # seconds that the BMC's clock differs; the entries' times are corrected by it
    requests: int = 0


@lru_cache(maxsize=1)
def _makes() -> tuple[Make, ...]:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("logs.yaml").read_text(encoding="utf-8")
    return tuple(structs.convert(yaml.safe_load(text), list[Make]))


@lru_cache(maxsize=256)
def make(vendor: str) -> Make:
    word = vendor.casefold()
    return next(
        m for m in _makes() if fnmatchcase(word, m.match.vendor) and not any(word.startswith(u) for u in m.unless)
    )


def read(target: Target, since: float, until: float, *, most: int = 200) -> Asking[Found | Unknown]:
    """Entries with `since` <= at <= `until`, at most `most`. Never raises: what hinders is in the Unknown."""
    found = yield from attempt("logs", _Reader(target, since, until).run())
    if isinstance(found, Unknown):
        return found
    complete = found.complete and len(found.entries) <= most
    return msgspec.structs.replace(found, entries=found.entries[:most], complete=complete)


class _Reader:
    def __init__(self, target: Target, since: float, until: float) -> None:
        self.at = 0.0
        self.tree = Tree(on_reply=lambda reply: setattr(self, "at", reply.at or self.at))
        self.service = Service(target.name, target.system)
        self.since, self.until = since, until
        self.complete = True
        self.trouble: BmcError | None = None

    def run(self) -> Asking[Found]:
        system = yield from self.service.system(self.tree)
        vendor, _ = yield from self.service.make(self.tree)
        manager = next(iter((yield from self.service.managers(self.tree))), Doc({}, ""))
        told = times.seconds(manager.text("DateTime"))
        ahead = told - self.at if told is not None and self.at else 0.0
        owners = {"system": system, "manager": manager}
        rules = make(vendor)
        entries: list[LogEntry] = []
        for log in rules.logs:
            entries += yield from self._log(owners[log.owner], log.id, lambda doc: entry(doc, rules, ahead))
        if not entries and self.trouble is not None:
            raise self.trouble
        entries.sort(key=lambda e: e.at, reverse=True)
        return Found(entries=tuple(entries), complete=self.complete, ahead=ahead, requests=self.tree.requests)

    def _log(self, owner: Doc, ident: str, parse: Callable[[Doc], LogEntry | None]) -> Asking[list[LogEntry]]:
        """One log. One that is not there is no loss; one that cannot be read makes the whole incomplete."""
        uri = owner.link("LogServices")
        if not uri:
            return []
        try:
            return (yield from self._entries(f"{uris.path(uri)}/{ident}/Entries", parse))
        except BmcError as exc:
            if unknown(exc).reason is not Reason.not_modelled:
                self.complete = False
                self.trouble = self.trouble or exc
            return []

    def _entries(self, uri: str, parse: Callable[[Doc], LogEntry | None]) -> Asking[list[LogEntry]]:
        found: list[LogEntry] = []
        page, skipped = uri, False
        for _ in range(PAGES):
            doc = yield from self.tree.read(page)
            entries = yield from self._page(doc, parse)
            found += [e for e in entries if self.since <= e.at <= self.until]
            page = doc.text("Members@odata.nextLink")
            if not page:
                return found
            newest_first = len(entries) > 1 and entries[0].at >= entries[-1].at
            if newest_first and entries[-1].at < self.since:
                return found
            count = doc.number("Members@odata.count") or 0
            if not newest_first and not skipped and count > len(entries) + LAST:
                page, skipped = f"{uri}?$skip={count - LAST}", True
                self.complete = self.complete and bool(entries) and entries[-1].at >= self.until
        self.complete = False
        return found

    def _page(self, doc: Doc, parse: Callable[[Doc], LogEntry | None]) -> Asking[list[LogEntry]]:
        found = []
        members = [m for m in doc.items("Members") if isinstance(m, dict)]
        links = [m for m in members if "Created" not in m and "Message" not in m and "MessageId" not in m]
        if len(links) > SINGLE:
            self.complete = False
        few = {id(m) for m in links[-SINGLE:]}
        for member in members:
            part = Doc(member, str(member.get("@odata.id") or doc.uri))
            if id(member) in few:
                try:
                    part = yield from self.tree.read(part.uri)
                except BmcError:
                    continue
            parsed = parse(part)
            if parsed is not None:
                found.append(parsed)
        return found


def entry(doc: Doc, rules: Make, ahead: float = 0.0) -> LogEntry | None:
    """None for one without a time: it cannot be placed. `ahead`: seconds that the BMC's clock is ahead of ours."""
    at = times.seconds(doc.text("Created") or doc.text("EventTimestamp"))
    if at is None:
        return None
    message = doc.text("Message") or ", ".join(doc.texts("MessageArgs")[:5])
    ident = next((doc.text(*p) for p in rules.ident if doc.text(*p)), "") or doc.text("MessageId")
    return LogEntry(
        at=at - ahead,
        message=message,
        message_id=ident,
        account=account(doc, message, rules),
        kind=kind(ident, message, rules),
        uri=uris.path(doc.uri),
    )


def kind(message_id: str, message: str, rules: Make) -> LogKind:
    """By rules.kinds, the first that fits."""
    name = message_id.rpartition(".")[2]
    for rule in rules.kinds:
        if rule.id and not re.fullmatch(rule.id, name):
            continue
        if rule.message and not re.search(rule.message, message):
            continue
        return rule.kind
    return LogKind.other


def account(doc: Doc, message: str, rules: Make) -> str:
    """Who did it, as the entry names them; empty when it does not."""
    named = next((doc.text(*path) for path in rules.account if doc.text(*path)), "")
    if not named:
        said = (re.search(pattern, message) for pattern in rules.said)
        named = next((m["who"].strip() for m in said if m), "")
    named = re.sub(r"^(\S+)\(\S+\)$", r"\1", named)  # Supermicro: root(ADMIN), the name and what it once was
    return "" if named in rules.nobody else answers.clean(named, 100)
