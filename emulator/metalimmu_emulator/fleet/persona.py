"""One emulated BMC: a make's template, and what is different here. All of it in one thread; nothing here waits."""

from __future__ import annotations

import hmac
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from metalimmu_emulator.fleet import faults
from metalimmu_emulator.fleet.identity import ETAG, Identity, clock
from metalimmu_emulator.fleet.page import Page, key
from metalimmu_emulator.fleet.spec import Counters
from metalimmu_emulator.fleet.template import Happened, Template

ROLES = ("Administrator", "Operator", "ReadOnly")
KEPT_WRITES = 1000
KEPT_ENTRIES = 200


class Session:
    __slots__ = ("created", "id", "token", "user")

    def __init__(self, ident: str, user: str, created: float) -> None:
        self.id = ident
        self.user = user
        self.created = created
        self.token = secrets.token_hex(16)


class Task:
    """A job: new, running (until `due`, then `act`), scheduled (until the next reset, then `at_reset`), completed."""

    __slots__ = ("about", "act", "at_reset", "due", "id", "name", "percent", "started", "state")

    def __init__(self, ident: str, name: str, about: str, started: float) -> None:
        self.id = ident
        self.name = name
        self.about = about  # bios | firmware
        self.state = "running"
        self.started = started
        self.due = started
        self.percent = 0
        self.act: Callable[[], None] | None = None
        self.at_reset: Callable[[], None] | None = None


class Persona:
    """`overlay` has the pages that this machine changed; None in it is a page that is gone."""

    __slots__ = (
        "away_until", "clock_offset", "counters", "faults", "identity", "in_flight", "job_scheduled", "log_count",
        "overlay", "passwords", "port", "power", "serials", "sessions", "staged", "task_seconds", "tasks", "template",
        "written",
    )  # fmt: skip

    def __init__(self, template: Template, identity: Identity, *, password: str, task_seconds: float = 0.2) -> None:
        self.template = template
        self.identity = identity
        self.task_seconds = task_seconds
        self.overlay: dict[str, Page | None] = {}
        self.sessions: dict[str, Session] = {}  # by token
        self.passwords: dict[str, tuple[str, str]] = {
            **template.passwords,
            identity.username: (password, "Administrator"),
        }
        self.faults: list[faults.Fault] = []
        self.counters = Counters()
        self.written: list[tuple[str, str, Any]] = []
        self.staged: dict[str, Any] = {}
        self.job_scheduled = False
        self.tasks: dict[str, Task] = {}
        self.power = "On"
        self.clock_offset = 0.0
        self.away_until = 0.0
        self.in_flight = 0
        self.log_count = 0
        self.serials: Iterator[int] = itertools.count(1)
        self.port = 0

    # documents

    def page(self, path: str) -> Page | None:
        found = key(path)
        return self.overlay[found] if found in self.overlay else self.template.pages.get(found)

    def document(self, path: str) -> dict[str, Any] | None:
        """A copy, with the clock as a token."""
        page = self.page(path)
        return None if page is None or page.raw else page.copy(self.identity)

    def put(self, path: str, document: dict[str, Any]) -> None:
        if self.template.traits.etag_property and "@odata.id" in document:
            document.setdefault("@odata.etag", ETAG)
        self.overlay[key(path)] = Page(document)

    def edit(self, path: str, changes: dict[str, Any]) -> None:
        """Merge. KeyError when there is no such resource."""
        document = self.document(path)
        if document is None:
            raise KeyError(path)
        merge(document, changes)
        self.put(path, document)

    def remove(self, path: str) -> None:
        self.overlay[key(path)] = None

    def add_member(self, collection: str, document: dict[str, Any], *, first: bool = False) -> str:
        """The resource under its own `@odata.id`, and a link to it in the collection."""
        uri = str(document["@odata.id"])
        self.put(uri, document)
        found = self.document(collection)
        if found is not None:
            link = {"@odata.id": uri}
            members = [m for m in found.get("Members") or [] if m != link]
            found["Members"] = [link, *members] if first else [*members, link]
            found["Members@odata.count"] = len(found["Members"])
            self.put(collection, found)
        return uri

    def drop_member(self, collection: str, uri: str) -> None:
        self.remove(uri)
        found = self.document(collection)
        if found is not None:
            found["Members"] = [m for m in found.get("Members") or [] if key(m.get("@odata.id", "")) != key(uri)]
            found["Members@odata.count"] = len(found["Members"])
            self.put(collection, found)

    def etag(self, page: Page) -> bytes:
        """Empty where the make has none."""
        if self.template.traits.etags == "none":
            return b""
        mark = page.checksum if page.same_for_all else page.checksum ^ (self.identity.number * 2654435761 & 0xFFFFFFFF)
        tag = b'"%08x"' % mark
        return b"W/" + tag if self.template.traits.etags == "weak" else tag

    def now(self) -> float:
        """What its clock says."""
        offset = self.clock_offset
        for fault in self.faults:
            if fault.name == "clock":
                offset += fault.seconds
        return time.time() + offset

    # who may

    def check(self, user: str, password: str) -> str | None:
        """The role, None when the login is wrong."""
        known = self.passwords.get(user)
        if known is None or not hmac.compare_digest(known[0].encode(), password.encode()):
            return None
        return known[1]

    def role(self, user: str) -> str:
        return self.passwords[user][1] if user in self.passwords else "ReadOnly"

    def open_session(self, user: str) -> Session | None:
        """None when all are taken."""
        if len(self.sessions) >= self.template.traits.session_limit or self.fault("sessions", "POST", "") is not None:
            return None
        session = Session(str(next(self.serials)), user, self.now())
        self.sessions[session.token] = session
        self.counters.logins += 1
        self.counters.most_sessions = max(self.counters.most_sessions, len(self.sessions))
        for fault in self.faults:
            if fault.name == "expire":
                fault.seen = 0
        return session

    def fault(self, name: str, method: str, path: str) -> faults.Fault | None:
        """The fault of that name, if it bites."""
        for fault in self.faults:
            if fault.name == name and fault.bites(method, path):
                return fault
        return None

    # its own log

    def log(self, what: str, text: str, user: str = "", *, at: float | None = None) -> None:
        """An entry in the log that names who did what, if this make has one."""
        where = self.template.places.log
        collection = self.document(where) if where else None
        if collection is None:
            return
        self.log_count += 1
        number = 1000 + self.log_count
        moment = clock(self.now() if at is None else at).decode()
        entry = {"@odata.id": f"{where}/{number}"} | self.template.log_entry(Happened(number, moment, what, text, user))
        members = collection.get("Members") or []
        first = len(members) > 1 and _number(members[0]) > _number(members[-1])
        self.add_member(where, entry, first=first)
        if self.log_count > KEPT_ENTRIES:
            self.drop_member(where, f"{where}/{number - KEPT_ENTRIES}")

    def tick(self) -> None:
        """What time has done since the last request."""
        if self.tasks:
            from metalimmu_emulator.fleet import tasks

            tasks.advance(self, time.time())


def _number(link: dict[str, Any]) -> int:
    last = str(link.get("@odata.id", "")).rstrip("/").rpartition("/")[2]
    return int(last) if last.isdigit() else 0


def merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    """As PATCH does (DSP0266 7.9.3): in arrays `{}` leaves an element, null removes it; elsewhere null is a value."""
    for name, value in changes.items():
        old = target.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            merge(old, value)
        elif isinstance(value, list) and isinstance(old, list):
            kept = ((old[i] if i < len(old) else None) if v == {} else v for i, v in enumerate(value))
            target[name] = [v for v in kept if v is not None]
        else:
            target[name] = value
