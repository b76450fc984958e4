"""The BIOS attribute registry of a machine: the document parsed. Where it is: registry_places.py. DSP0268 AttributeRegistry.

A registry is text of a BMC like any other: fields of the wrong type count as absent, an attribute without a usable name is
left out, and nothing but a document without attributes is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from metalimmu.bmc.answers import LONGEST_TEXT, clean
from metalimmu.bmc.document import Doc
from metalimmu.errors import BmcBroken
from metalimmu.observed.registry import Attribute, Choice, Condition, Dependency, Kind, Registry, Term
from metalimmu.observed.snapshot import Scalar

MOST = 20_000  # attributes, or dependencies: the largest seen have 844 and 937
LONGEST_NAME = 200
LONGEST_PATTERN = 300

_NUMBER = re.compile(r"-?[0-9]{1,19}")
_KINDS: tuple[Kind, ...] = get_args(Kind)


def parse(doc: Doc) -> Registry:
    """Raises BmcBroken for a document that holds no attributes."""
    entries = doc.raw("RegistryEntries", "Attributes")
    if not isinstance(entries, list):
        raise BmcBroken(f"{doc.uri}: an attribute registry without RegistryEntries.Attributes")
    attributes: dict[str, Attribute] = {}
    twice: dict[str, None] = {}
    for entry in _objects(entries):
        name = _name(entry.get("AttributeName"))
        if name in attributes:
            twice[name] = None
        elif name:
            attributes[name] = _attribute(name, entry)
    return Registry(
        id=doc.text("Id"),
        source=doc.uri,
        attributes=attributes,
        dependencies=tuple(_dependencies(doc.raw("RegistryEntries", "Dependencies"))),
        supported=tuple(_supported(doc.raw("SupportedSystems"))),
        owner=doc.text("OwningEntity"),
        entries=min(len(entries), MOST),
        duplicates=tuple(twice),
    )


def _attribute(name: str, entry: Mapping[str, Any]) -> Attribute:
    lower, upper = _int(entry.get("LowerBound")), _int(entry.get("UpperBound"))
    if lower is not None and upper is not None and upper < lower:
        lower = upper = None  # GB200 says 0 to -1 for a number of 64 bits
    return Attribute(
        name=name,
        type=_kind(entry),
        display=_text(entry.get("DisplayName")),
        help=_text(entry.get("HelpText")),
        menu=_text(entry.get("MenuPath")),
        default=_scalar(entry.get("DefaultValue")),
        choices=tuple(_choices(entry.get("Value"))),
        lower=lower,
        upper=upper,
        step=_int(entry.get("ScalarIncrement")) or None,  # 0: any number
        min_length=_int(entry.get("MinLength")),
        max_length=_int(entry.get("MaxLength")) or None,
        pattern=_pattern(entry.get("ValueExpression")),
        read_only=entry.get("ReadOnly") is True,
        immutable=entry.get("Immutable") is True,
        hidden=entry.get("Hidden") is True,
        grayed_out=entry.get("GrayOut") is True,
        reset_required=entry.get("ResetRequired") if isinstance(entry.get("ResetRequired"), bool) else None,
        unique=entry.get("IsSystemUniqueProperty") is True,
    )


def _kind(entry: Mapping[str, Any]) -> Kind:
    """A type that is no standard one is a string: then every value fits, and no profile fails for it."""
    given = entry.get("Type")
    for kind in _KINDS:
        if given == kind:
            return kind
    return "Enumeration" if isinstance(entry.get("Value"), list) else "String"


def _choices(value: object) -> Iterator[Choice]:
    for one in _objects(value):
        name = one.get("ValueName")
        if isinstance(name, (str, int)):
            yield Choice(name=_exact(str(name)), display=_exact(one.get("ValueDisplayName")))


def _dependencies(value: object) -> Iterator[Dependency]:
    for entry in _objects(value):
        body = entry.get("Dependency")
        if entry.get("Type", "Map") != "Map" or not isinstance(body, dict):
            continue
        attribute, prop = _name(body.get("MapToAttribute")), _name(body.get("MapToProperty"))
        conditions = tuple(_conditions(body.get("MapFrom")))
        if attribute and prop and conditions:
            yield Dependency(
                attribute=attribute, property=prop, value=_scalar(body.get("MapToValue")), conditions=conditions
            )


def _conditions(value: object) -> Iterator[Condition]:
    """In postfix order. HPE and Supermicro put a term on the second of two conditions, and Supermicro several on one,
    which is postfix already; Lenovo puts it on the first, before the condition that it joins.
    """
    entries = list(_objects(value))
    terms = [_terms(e.get("MapTerms")) for e in entries]
    if terms and terms[0]:
        terms = [(), *terms[:-1]]
    for entry, after in zip(entries, terms, strict=True):
        yield Condition(
            attribute=_name(entry.get("MapFromAttribute")),  # without a usable name it is never known to hold
            property=_name(entry.get("MapFromProperty")) or "CurrentValue",
            compare=_name(entry.get("MapFromCondition")) or "EQU",
            value=_scalar(entry.get("MapFromValue")),
            terms=after,
        )


def _terms(value: object) -> tuple[Term, ...]:
    known: dict[str, Term] = {"AND": "AND", "OR": "OR"}
    words = value.upper().split(",") if isinstance(value, str) else []
    return tuple(known[w] for word in words[:20] if (w := word.strip()) in known)


def _supported(value: object) -> Iterator[str]:
    for one in _objects(value):
        words = (_text(one.get(k)) for k in ("ProductName", "SystemId", "FirmwareVersion"))
        yield " ".join(w for w in words if w)


def _objects(value: object) -> Iterable[dict[str, Any]]:
    return (v for v in value[:MOST] if isinstance(v, dict)) if isinstance(value, list) else ()


def _name(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable() else ""


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def _exact(value: object) -> str:
    """A value as the BMC sends it: a blank at its end is part of it."""
    if not isinstance(value, str):
        return ""
    return value if value.isprintable() and len(value) <= LONGEST_TEXT else clean(value)


def _pattern(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST_PATTERN else ""


def _scalar(value: object) -> Scalar:
    if isinstance(value, str):
        return _exact(value)
    if isinstance(value, bool):
        return value
    return _int(value) if isinstance(value, (int, float)) else None


def _int(value: object) -> int | None:
    """Of 64 bits, as the store keeps them; also from a number in quotes."""
    number: int | None = None
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    return number if number is not None and abs(number) < 1 << 63 else None
