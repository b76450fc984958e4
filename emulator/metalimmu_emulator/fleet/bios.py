"""BIOS settings: current, staged, and when the one becomes the other."""

from __future__ import annotations

import re
from typing import Any

from metalimmu_emulator.fleet.message import Request
from metalimmu_emulator.fleet.page import key
from metalimmu_emulator.fleet.persona import Persona

Attributes = dict[str, Any]


def current(persona: Persona) -> Attributes:
    """What is in force, whatever the BMC says of it."""
    document = persona.document(persona.template.places.bios) if persona.template.places.bios else None
    return dict((document or {}).get("Attributes") or {})


def stage(persona: Persona, attributes: Attributes) -> None:
    """As a PATCH of the settings object does."""
    now = current(persona)
    staged = persona.staged | attributes
    persona.staged = {k: v for k, v in staged.items() if now.get(k) != v}
    show(persona)


def clear_staged(persona: Persona) -> None:
    persona.staged = {}
    persona.job_scheduled = False
    show(persona)


def set_current(persona: Persona, attributes: Attributes) -> None:
    where = persona.template.places.bios
    document = persona.document(where)
    if document is None:
        raise KeyError(f"{persona.template.make} has no BIOS attributes")
    document["Attributes"] = (document.get("Attributes") or {}) | attributes
    persona.put(where, document)
    persona.staged = {k: v for k, v in persona.staged.items() if document["Attributes"].get(k) != v}
    show(persona)


def apply(persona: Persona) -> None:
    """At the reset."""
    if not persona.staged or (persona.template.traits.job_needed and not persona.job_scheduled):
        return
    staged, persona.staged, persona.job_scheduled = persona.staged, {}, False
    set_current(persona, staged)


def show(persona: Persona) -> None:
    """The settings object, as this make shows what is staged."""
    where = persona.template.places.settings
    document = persona.document(where) if where else None
    if document is None:
        return
    way = persona.template.traits.pending
    if way == "mirror":
        document["Attributes"] = current(persona) | persona.staged
    elif way == "hidden" and not persona.staged:
        document.pop("Attributes", None)
    else:
        document["Attributes"] = dict(persona.staged)
    persona.put(where, document)


def alters(persona: Persona, path: str) -> bool:
    """Must this answer be looked at again?"""
    traits = persona.template.traits
    early = traits.current_early and persona.job_scheduled
    off = traits.empty_when_off and persona.power == "Off"
    return (early or off) and key(path) == key(persona.template.places.bios)


def altered(persona: Persona, request: Request, found: dict[str, Any]) -> None:
    """The Bios resource, where it does not say what is in force."""
    if not persona.template.places.bios or key(request.path) != key(persona.template.places.bios):
        return
    traits = persona.template.traits
    if traits.empty_when_off and persona.power == "Off":
        found["Attributes"] = {}
    lies = persona.fault("lying-current", "GET", request.path) is not None
    if persona.staged and (lies or (traits.current_early and persona.job_scheduled)):
        found["Attributes"] = (found.get("Attributes") or {}) | persona.staged


def defaults(persona: Persona) -> None:
    """CMOS clear, ResetBios: factory values are in force, and nothing is staged."""
    persona.staged = {}
    persona.job_scheduled = False
    now = current(persona)
    factory = _renamed_like(persona.template.defaults, now)
    set_current(persona, {k: v for k, v in factory.items() if k in now})


_SUFFIX = re.compile(r"^(.*_)([0-9A-F]{4})$")


def moved(name: str, by: int) -> str:
    """Supermicro's names end with a question id, which another BIOS version has elsewhere."""
    found = _SUFFIX.match(name)
    return f"{found[1]}{(int(found[2], 16) + by) & 0xFFFF:04X}" if found else name


def rename(persona: Persona, by: int = 0x1B) -> None:
    """A BIOS update that moves question ids: current, staged, and the registry with them. Every third name stays."""
    places = persona.template.places
    names = {n: moved(n, by) if i % 3 else n for i, n in enumerate(sorted(current(persona)))}
    document = persona.document(places.bios)
    if document is not None:
        document["Attributes"] = {names[k]: v for k, v in document["Attributes"].items()}
        persona.put(places.bios, document)
    registry = persona.document(places.registry) if places.registry else None
    if registry is not None:
        for entry in registry["RegistryEntries"]["Attributes"]:
            entry["AttributeName"] = names.get(entry["AttributeName"], entry["AttributeName"])
        persona.put(places.registry, registry)
    persona.staged = {}
    show(persona)


def _renamed_like(defaults: Any, now: Attributes) -> Attributes:
    """Factory defaults under the names that are in use now: the n-th of a stem is the n-th of that stem."""
    used = _by_stem(now)
    return {
        new: defaults[old]
        for stem, names in _by_stem(defaults).items()
        for old, new in zip(names, used.get(stem, []), strict=False)
    }


def _by_stem(names: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        suffixed = _SUFFIX.match(name)
        found.setdefault(suffixed[1] if suffixed else name, []).append(name)
    return found
