"""What a firmware component is by its names alone, and what its version means: firmware.yaml, applied. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from metalimmu import structs
from metalimmu.bmc import stable
from metalimmu.bmc.places import Match, Strict

_CHANGING = re.compile(r"^(?:\d+|[0-9a-f]{8,})$")  # HPE's ordinals, OpenBMC's hashes of a version
Patterns = tuple[dict[str, str], ...]


class Make(Strict, frozen=True):
    match: Match
    device: dict[str, str]
    because: str
    seen_on: str
    named: bool = True
    prefix: str = ""
    anywhere: tuple[str, ...] = ()
    bios: Patterns = ()
    bmc: Patterns = ()
    idle: Patterns = ()
    spare: Patterns = ()


class Rules(Strict, frozen=True):
    makes: tuple[Make, ...]
    nameless: frozenset[str]
    idle_states: frozenset[str]
    nothing: frozenset[str]
    versions: tuple[str, ...]


class Sort(NamedTuple):
    """`key` holds unless the item turns out to be the system's firmware or the BMC's own."""

    key: str
    device: str
    idle: bool
    spare: bool
    bios: bool
    bmc: bool


class Version(NamedTuple):
    bare: str
    build: str = ""


@lru_cache(maxsize=1)
def rules() -> Rules:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("firmware.yaml").read_text(encoding="utf-8")
    return structs.convert(yaml.safe_load(text), Rules)


@lru_cache(maxsize=1 << 15)
def sort(vendor: str, ident: str, name: str, description: str, context: str) -> Sort:
    """Remembered, since the machines of a fleet have the same components."""
    make = _make(vendor)
    fields = {"id": ident, "name": name, "description": description, "context": context}
    device = fields["device"] = _device(fields, make)
    return Sort(
        key=_key(fields, device, make),
        device=device,
        idle=_fits(fields, make.idle),
        spare=_fits(fields, make.spare),
        bios=_fits(fields, make.bios),
        bmc=_fits(fields, make.bmc),
    )


def _make(vendor: str) -> Make:
    return next(m for m in rules().makes if fnmatchcase(vendor.casefold(), m.match.vendor))


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def _fits(fields: Mapping[str, str], patterns: Iterable[dict[str, str]]) -> bool:
    return any(all(_pattern(p).search(fields[name]) for name, p in one.items()) for one in patterns)


def _device(fields: Mapping[str, str], make: Make) -> str:
    for name, pattern in make.device.items():
        if found := _pattern(pattern).search(fields[name]):
            return "" if found[1] in make.anywhere or _CHANGING.match(found[1]) else found[1]
    return ""


def _key(fields: Mapping[str, str], device: str, make: Make) -> str:
    """Name and device, each only where it tells something and does not change with a version or a machine."""
    name = ""
    if make.named and fields["name"] not in rules().nameless:
        name = stable.name(_pattern(make.prefix).sub("", fields["name"], count=1) if make.prefix else fields["name"])
    if device and stable.squeezed(device) in stable.squeezed(name):
        device = ""
    fallback = fields["description"] if _CHANGING.match(fields["id"]) else fields["id"]
    return " ".join(w for w in (name, device) if w) or fallback


@lru_cache(maxsize=1 << 15)
def version(raw: str) -> Version:
    """``U46 v2.34 (03/11/2025)`` -> 2.34. Empty for what means that nothing is there."""
    text = raw.strip()
    if text.casefold() in rules().nothing:
        return Version("")
    for pattern in rules().versions:
        if found := re.search(pattern, text):
            return Version(found["v"], found.groupdict().get("build") or "")
    return Version(text)


def agree(one: str, other: str) -> bool:
    """Do two raw versions say the same? Lenovo's system gives the build (U8E122J) of what the inventory calls 22J-1.51."""
    a, b = version(one), version(other)
    return a.bare == b.bare or any(x.build and y.bare.endswith(x.build) for x, y in ((a, b), (b, a)))
