"""Where a machine's BIOS attribute registry is, and whether it tells the truth of its own machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources

import msgspec

from metalimmu import log, structs
from metalimmu.bmc import registry, uris
from metalimmu.bmc.answers import Answer, error
from metalimmu.bmc.ask import Ask, Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Scalar, Snapshot, Value
from metalimmu.observed.types import Reason, Unknown
from metalimmu.plan.attribute import wrong

LOG = log.get("bmc.registry")

COLLECTION = "/redfish/v1/Registries"
STEM = "biosattributeregistry"
MOST_FILES = 5
_NAME = re.compile(r"[\w.-]{1,100}")
DOUBTFUL = 0.05
"""Of the values that the machine has now, the share that its registry may refuse before it is distrusted as a whole."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owner: str
    uri: str
    because: str
    seen_on: str


class Distrusted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owner: str
    because: str
    seen_on: str
    attributes: tuple[str, ...] = ()


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    places: tuple[Place, ...]
    distrusted: tuple[Distrusted, ...]


@lru_cache(maxsize=1)
def known() -> Known:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("registries.yaml").read_text(encoding="utf-8")
    return structs.convert(yaml.safe_load(text), Known)


def of(snapshot: Snapshot) -> Asking[Registry | Unknown]:
    """The registry of the machine of a snapshot, judged by the values that it has. Asks one to fifteen resources."""
    bios = snapshot.sources.get("bios", "")
    if not bios:
        return _none(snapshot.why_unknown("bios") or Unknown(Reason.not_modelled, "the machine has no Bios resource"))
    make = "" if isinstance(snapshot.identity, Unknown) else snapshot.identity.manufacturer
    values = {k.partition(".")[2]: v for k, v in snapshot.settings.items() if k.startswith("bios.")}
    return read(bios, declared=snapshot.registry, make=make, current=values)


def _none(why: Unknown) -> Asking[Registry | Unknown]:
    return why
    yield  # a generator, for those who drive it


def read(bios: str, *, declared: str, make: str, current: Mapping[str, Value]) -> Asking[Registry | Unknown]:
    """`bios` is the URI of the Bios resource, `declared` its AttributeRegistry, which need not be right or there at all.

    Never raises: what hinders is in the Unknown.
    """
    why: Unknown = Unknown(Reason.not_modelled, "the BMC serves no attribute registry", COLLECTION)
    tried: set[str] = set()
    for uri in _likely(bios, declared, make):
        found = yield from _registry(uri, tried)
        if isinstance(found, Registry):
            return judged(found, current)
    files = yield from _document(COLLECTION)
    if isinstance(files, Unknown):
        return files
    for file in _ranked(files.links("Members"), declared)[:MOST_FILES]:
        entry = yield from _document(file)
        if isinstance(entry, Unknown):
            why = entry
            continue
        for uri in _locations(entry):
            found = yield from _registry(uri, tried)
            if isinstance(found, Registry):
                return judged(found, current)
            why = found
    return why


def _likely(bios: str, declared: str, make: str) -> Iterator[str]:
    declared = declared if _NAME.fullmatch(declared) else ""
    for place in known().places:
        if make and fnmatchcase(make.lower(), place.owner) and (declared or "{registry}" not in place.uri):
            yield place.uri.format(bios=uris.path(bios), registry=declared, lower=declared.lower())


def _ranked(members: tuple[str, ...], declared: str) -> list[str]:
    """Files of BIOS attributes, the best first: the declared name, the same name of another version, any other.

    A BMC also lists registries of attributes of NICs and managers, and HPE's names carry the ROM family.
    """
    wanted = declared.casefold()
    ranks = {}
    for member in members:
        name = uris.last(member).casefold()
        if name == wanted and wanted:
            ranks[member] = 0
        elif name.startswith(STEM):
            ranks[member] = 1 if wanted and _stem(name) == _stem(wanted) else 2
    return sorted(ranks, key=ranks.__getitem__)


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _locations(file: Doc) -> list[str]:
    """English first: names are the same in all languages, the words that we show are not."""
    found = [Doc(v, file.uri) for v in file.items("Location") if isinstance(v, dict)]
    ordered = sorted(found, key=lambda d: not d.text("Language").lower().startswith("en"))
    return [uri for d in ordered if (uri := d.text("Uri"))]


def _registry(uri: str, tried: set[str]) -> Asking[Registry | Unknown]:
    if uris.key(uri) in tried:
        return Unknown(Reason.broken, "no registry", uri)
    tried.add(uris.key(uri))
    doc = yield from _document(uri)
    if isinstance(doc, Unknown):
        return doc
    try:
        return registry.parse(doc)
    except BmcError as exc:
        return unknown(exc, uri)


def _document(uri: str) -> Asking[Doc | Unknown]:
    reply = yield Ask(uri)
    try:
        if reply.error is not None:
            raise reply.error
        answer = Answer(reply.status, reply.headers, reply.body, url=uris.path(uri))
        if not 200 <= reply.status < 300:
            raise error(answer, "GET", uris.path(uri))
        return Doc(answer.document(), uris.path(uri), headers=answer.headers)
    except BmcError as exc:
        LOG.debug("%s: %s", uri, exc)
        return unknown(exc, uri)


def judged(found: Registry, current: Mapping[str, Value]) -> Registry:
    """With what it gets wrong of the machine's own values: a few attributes are doubted, many and all of it is."""
    doubted: dict[str, str] = {}
    checked = 0
    for name, value in current.items():
        attribute = found.attributes.get(name)
        if attribute is None or isinstance(value, tuple) or attribute.type == "Password" or not _said(value):
            continue
        checked += 1
        fault = wrong(attribute, value)
        if fault:
            own = f" {fault.got}" if attribute.type != "String" else ""  # text can be a password's hash
            doubted[name] = f"the machine's own value{own} is not {fault.expected}"
    why = ""
    if checked and len(doubted) > max(2, DOUBTFUL * checked):
        why = f"its registry does not allow {len(doubted)} of {checked} values that the machine has itself"
    for entry in known().distrusted:
        if fnmatchcase(found.owner.lower(), entry.owner):
            if entry.attributes:
                doubted |= {a: entry.because for a in entry.attributes if a in found.attributes}
            else:
                why = entry.because + (f" ({why})" if why else "")
    return msgspec.structs.replace(found, trusted=not why, why_not=why, doubted={} if why else doubted)


def _said(value: Scalar) -> bool:
    return value is not None and value != ""
