"""A make: its documents, shared by all machines that play it, and the traits that documents cannot show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from metalimmu_emulator.fleet.page import Page, key

ROOT = "/redfish/v1"

LogEntry = Callable[["Happened"], dict[str, Any]]


@dataclass(frozen=True)
class Happened:
    """Something for the BMC's own log. `what` is bios | firmware | account | boot | power | network | reset | clear | other."""

    number: int
    at: str
    what: str
    text: str
    user: str  # empty: nobody, or not known


@dataclass(frozen=True)
class Places:
    """Where this make has what the machinery changes. Empty: it has no such thing."""

    system: str = ""
    bios: str = ""
    settings: str = ""  # the Bios resource's settings object
    boot_settings: str = ""  # where a boot override is written, if not on the system
    registry: str = ""  # the attribute registry's document
    manager: str = ""
    firmware: str = ""  # the collection
    update: str = ""  # UpdateService
    accounts: str = ""
    tasks: str = ""  # the collection
    jobs: tuple[str, ...] = ()  # collections that show the same jobs once more
    log: str = ""  # Entries of the log that names who did what
    logs: tuple[str, ...] = ()  # all Entries collections
    chassis: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Traits:
    """How it answers. Each is a way of a make that was seen on machines or in recordings."""

    etags: Literal["strong", "weak", "none"] = "strong"
    etag_property: bool = False  # resources say their ETag themselves, too
    if_match: bool = False  # a PATCH without the current ETag is refused (Supermicro: 428, 412)
    expand: Literal["right", "wrong", "absent"] = "right"
    expand_levels: int = 1
    root_redirects: bool = False  # /redfish/v1 -> /redfish/v1/ (iLO)
    slash: Literal["same", "redirect"] = "same"  # what a trailing slash means
    any_case: bool = False
    chunked_over: int | None = None  # bodies larger than this have no Content-Length
    closes: bool = False  # the connection, after each answer
    session_limit: int = 8
    login_refused: int = 401  # iLO 5: 400
    pending: Literal["delta", "mirror", "hidden"] = (
        "delta"  # what an idle settings object shows: {}, everything, no Attributes
    )
    job_needed: bool = False  # Dell: staged values wait for a config job, whoever makes it
    current_early: bool = False  # Bios shows staged values once a job is scheduled (Dell)
    empty_when_off: bool = False  # Attributes are {} while the host is off
    post_accounts: bool = True  # or: fixed slots, filled by PATCH (Dell)
    create_status: int = 201
    patch_status: int = 200  # with the resource, or 204
    renames_bios: bool = False  # attribute names carry a question id that a BIOS update moves (Supermicro)
    patch_media: bool = False
    password_kept: bool = False
    date: bool = True  # sends a Date header


@dataclass(frozen=True)
class Template:
    make: str
    pages: Mapping[str, Page]  # key(uri) -> page
    uris: Mapping[str, str]  # key(uri) -> uri
    traits: Traits
    places: Places
    log_entry: LogEntry
    defaults: Mapping[str, Any] = field(default_factory=dict)  # BIOS factory defaults
    passwords: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # user name -> password and role
    firmware: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # component -> ids of its items
    recorded: bool = False

    def find(self, uri: str) -> Page | None:
        return self.pages.get(key(uri))


def plain_log(happened: Happened) -> dict[str, Any]:
    return {
        "@odata.type": "#LogEntry.v1_15_0.LogEntry",
        "Id": str(happened.number),
        "Name": f"Log Entry {happened.number}",
        "EntryType": "Event",
        "Severity": "OK",
        "Created": happened.at,
        "Message": happened.text,
        "MessageId": "Base.1.16.Success",
    } | ({"Originator": happened.user, "OriginatorType": "Client"} if happened.user else {})
