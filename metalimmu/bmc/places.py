"""Where each make keeps its settings: places.yaml as structs."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from msgspec import Struct, field

from metalimmu import structs


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Match(Strict, frozen=True):
    vendor: str = "*"


class Member(Strict, frozen=True):
    """The first member of a collection whose id does not match `unlike`."""

    unlike: str = field(name="not")

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.unlike, re.IGNORECASE)


class Where(Strict, frozen=True):
    """Where a document's link is: at `path` of the document `start`."""

    start: str = field(name="from")
    path: tuple[str, ...]
    ending: str = ""
    member: Member | None = None


class Candidate(Strict, frozen=True):
    at: str
    path: tuple[str, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    truth: tuple[str, ...] = ()
    port: str = ""


class Users(Strict, frozen=True):
    """Users as numbered attributes; `{n}` is the number."""

    at: str
    count: int
    name: str
    enabled: str
    role: str
    truth: tuple[str, ...]
    roles: dict[str, str]


class Accounts(Strict, frozen=True):
    attributes: Users | None = None


class Numbered(Strict, frozen=True):
    """Certificates as numbered attributes, of which the one of the kind `wanted` is the web server's."""

    at: str
    count: int
    kind: str
    wanted: str = field(name="is")
    not_after: str
    issuer: str
    subject: str


class Certificate(Strict, frozen=True):
    at: str = ""
    path: tuple[str, ...] = ()
    numbered: Numbered | None = None


class BootMode(Strict, frozen=True):
    attribute: str  # a regular expression for the whole name
    values: dict[str, Literal["UEFI", "Legacy"]]


class Cabling(Strict, frozen=True):
    switches: Where | None = None
    manager: Candidate | None = None


class Places(Strict, frozen=True):
    """Of one make."""

    documents: dict[str, Where] = {}
    settings: dict[str, tuple[Candidate, ...]] = {}
    accounts: Accounts = Accounts()
    certificate: Certificate = Certificate()
    jobs: Where | None = None
    boot_mode: BootMode | None = None
    cabling: Cabling = Cabling()


@lru_cache(maxsize=1)
def _entries() -> list[dict[str, Any]]:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("places.yaml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = yaml.safe_load(text)
    return found


@lru_cache(maxsize=256)
def find(vendor: str) -> Places:
    """`vendor`: the system's Manufacturer or the service's Vendor."""
    merged: dict[str, Any] = {"documents": {}, "settings": {}}
    standard: dict[str, list[Any]] = _entries()[0]["settings"]
    for entry in _entries():
        if not fnmatchcase(vendor.casefold(), structs.convert(entry["match"], Match).vendor):
            continue
        for name, value in entry.items():
            if name == "documents":
                merged[name] |= value
            elif name == "settings":
                merged[name] |= {k: _candidates(v, standard[k]) for k, v in value.items()}
            elif name not in ("match", "because", "seen_on"):
                merged[name] = value
    return structs.convert(merged, Places)


def _candidates(given: list[Any], standard: list[Any]) -> list[Any]:
    return [c for g in given for c in (standard if g == "standard" else [g])]
