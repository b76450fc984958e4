"""The hosts that a site's documents have already, where they stand, and how they are recognised. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

from metalimmu.desired import documents, table
from metalimmu.desired.documents import Source
from metalimmu.desired.problems import Path, Problem
from metalimmu.desired.types import Name
from metalimmu.errors import SiteError

Fields = dict[str, Any]
Key = tuple[str, Path]

PORTS = {None, 443, 623}
_NAME = re.compile(get_args(Name)[1].pattern)


class Known(NamedTuple):
    """A host document where it stands."""

    file: str
    source: Source
    path: Path
    value: Fields

    @property
    def name(self) -> str:
        return str(self.value.get("name", ""))

    @property
    def key(self) -> Key:
        return self.file, self.path


def hosts(files: Mapping[str, bytes]) -> list[Known]:
    """Raises SiteError with all that is wrong in them."""
    problems: list[Problem] = []
    found: list[Known] = []
    for file, data in files.items():
        source: Source
        value: Any
        if file.endswith(".csv"):
            source, value = table.parse(file, data, problems)
        else:
            source, value = documents.parse(file, data, problems, hosts=True)
        if isinstance(value, list):
            found += [Known(file, source, (i,), v) for i, v in enumerate(value) if isinstance(v, dict)]
        elif isinstance(value, dict):
            found.append(Known(file, source, (), value))
    if problems:
        raise SiteError(
            "the documents of hosts cannot be read, so who is there already is not known",
            problems=tuple(str(p) for p in problems),
        )
    return found


def bmc_key(address: str) -> tuple[str, int | None]:
    """Host and port of a BMC's address, equal for all protocols of one BMC; ("", None) for what is none."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    return host.casefold(), None if port in PORTS else port


def host_name(*wishes: str) -> str:
    """The first wish that can be made a host's name: lower case, no spaces; `host` if none can."""
    for wish in wishes:
        name = re.sub(r"[^a-z0-9._-]+", "-", wish.strip().lower())[:63].strip("._-")
        if name and _NAME.match(name):
            return name
    return "host"


def united(one: Fields, other: Fields) -> Fields:
    """`other` over `one`, mapping by mapping."""
    both = dict(one)
    for name, value in other.items():
        both[name] = united(both[name], value) if isinstance(both.get(name), dict) else value
    return both
