"""Which licences a BMC has, and whether they are enough to reimage through it. Where to look is data (licences.yaml)."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec

from metalimmu import structs
from metalimmu.bmc import uris
from metalimmu.bmc.answers import clean
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.tree import Tree
from metalimmu.errors import BmcError, BmcUnsupported

MOST = 10
# Supermicro's licences are JSON within text.
_WITHIN = re.compile(r'"LicenseName"\s*:\s*"([^"]{1,80})"')


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    make: str
    places: list[str]
    names: list[str]
    enough: list[str]
    because: str


class Licences(msgspec.Struct, frozen=True):
    names: tuple[str, ...]
    enough: bool
    because: str
    source: str


@lru_cache(maxsize=1)
def places() -> dict[str, Place]:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("licences.yaml").read_text(encoding="utf-8")
    return {p.make: p for p in structs.convert(yaml.safe_load(text), list[Place])}


def licences(tree: Tree, make: str, manager: str) -> Asking[Licences]:
    """Raises BmcError; BmcUnsupported for a make of which nobody knows where its licences are."""
    place = places().get(make)
    if place is None:
        raise BmcUnsupported("it is not known of this make whether it needs a licence")
    trouble: BmcError | None = None
    for uri in place.places:
        try:
            doc = yield from tree.read(uri.format(manager=uris.path(manager)))
            names = yield from _names(tree, doc, place.names)
        except BmcError as exc:
            trouble = trouble or exc
            continue
        good = any(fnmatchcase(n.casefold(), glob) for n in names for glob in place.enough)
        return Licences(names, good, place.because, doc.uri)
    raise trouble or BmcUnsupported("no licences are shown")


def _names(tree: Tree, doc: Doc, fields: list[str]) -> Asking[tuple[str, ...]]:
    if not doc.has("Members"):
        return _said(doc.data, fields)
    found: list[str] = []
    for member in doc.items("Members")[:MOST]:
        whole = isinstance(member, dict) and any(f in member for f in fields)  # Dell's members stand in the list itself
        data = member if whole else None
        if data is None and isinstance(member, dict) and isinstance(member.get("@odata.id"), str):
            data = (yield from tree.read(member["@odata.id"])).data
        found += _said(data or {}, fields)
    return tuple(dict.fromkeys(found))


def _said(data: dict[str, Any], fields: list[str]) -> tuple[str, ...]:
    values = [data.get(f) for f in fields]
    flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
    texts = [v for v in flat if isinstance(v, str) and v]
    names = [m for t in texts for m in (_WITHIN.findall(t) if t.lstrip().startswith("{") else [t])]
    return tuple(dict.fromkeys(clean(n, 80) for n in names))
