"""BIOS attributes of a make, from its YAML file beside this one: current values, factory defaults, and the registry.

::

    MENU:
      NAME: First|Second|Third          an enumeration; its default is the first, or the one with a star: First|Second*
      "Slot{1-8}": Enabled|Disabled     eight of them
      NAME: 120 in 60..600              an integer
      NAME: true                        a boolean
      NAME: text VALUE                  text; `ro VALUE` is read-only, `password` has no value
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_RANGE = re.compile(r"\{(\d+)-(\d+)\}")
_INTEGER = re.compile(r"^(-?\d+) in (-?\d+)\.\.(-?\d+)$")
DEPENDENCIES = "dependencies"


@dataclass(frozen=True)
class Bios:
    values: dict[str, Any]
    entries: list[dict[str, Any]]  # RegistryEntries.Attributes
    dependencies: list[dict[str, Any]]


@cache
def load(make: str) -> Bios:
    text = (Path(__file__).parent / f"{make}.yaml").read_text(encoding="utf-8")
    menus = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # a safe loader both
    dependencies = [_dependency(d) for d in menus.pop(DEPENDENCIES, [])]
    values: dict[str, Any] = {}
    entries: list[dict[str, Any]] = []
    for menu, attributes in menus.items():
        for pattern, said in attributes.items():
            for name in _names(str(pattern)):
                value, entry = _entry(said)
                values[name] = value
                order = len(entries) + 1
                entries.append(
                    {
                        "AttributeName": name,
                        "DisplayName": _spaced(name),
                        "HelpText": f"{_spaced(name)}.",
                        "MenuPath": f"./{menu}",
                        "DisplayOrder": order,
                    }
                    | entry
                )
    return Bios(values, entries, dependencies)


def _names(pattern: str) -> list[str]:
    found = _RANGE.search(pattern)
    if not found:
        return [pattern]
    width = len(found[1])
    numbers = range(int(found[1]), int(found[2]) + 1)
    return [f"{pattern[: found.start()]}{n:0{width}d}{pattern[found.end() :]}" for n in numbers]


def _entry(said: Any) -> tuple[Any, dict[str, Any]]:
    """(current value, what the registry says)."""
    if isinstance(said, bool):
        return said, {"Type": "Boolean", "DefaultValue": said, "ReadOnly": False}
    text = str(said)
    if found := _INTEGER.match(text):
        value, lower, upper = (int(n) for n in found.groups())
        entry = {
            "Type": "Integer",
            "DefaultValue": value,
            "LowerBound": lower,
            "UpperBound": upper,
            "ScalarIncrement": 1,
        }
        return value, entry | {"ReadOnly": False}
    if text == "password":
        return None, {"Type": "Password", "MinLength": 0, "MaxLength": 32, "ReadOnly": False}
    word, _, rest = text.partition(" ")
    if word == "text":
        return rest, {"Type": "String", "DefaultValue": "", "MinLength": 0, "MaxLength": 63, "ReadOnly": False}
    if word == "ro":
        return rest, {"Type": "String", "ReadOnly": True}
    choices = [c.removesuffix("*") for c in text.split("|")]
    default = next((c[:-1] for c in text.split("|") if c.endswith("*")), choices[0])
    listed = [{"ValueName": c, "ValueDisplayName": _spaced(c)} for c in choices]
    return default, {"Type": "Enumeration", "DefaultValue": default, "Value": listed, "ReadOnly": False}


def _dependency(said: dict[str, Any]) -> dict[str, Any]:
    """{of: B, becomes: ReadOnly, while: A, is: VALUE}: B's ReadOnly is true while A's current value is VALUE."""
    return {
        "DependencyFor": said["of"],
        "Type": "Map",
        "Dependency": {
            "MapFrom": [
                {"MapFromAttribute": said["while"], "MapFromProperty": "CurrentValue", "MapFromCondition": "EQU", "MapFromValue": said["is"]}
            ],
            "MapToAttribute": said["of"],
            "MapToProperty": said["becomes"],
            "MapToValue": said.get("value", True),
        },
    }  # fmt: skip


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("_", " "))


def registry(
    bios: Bios, ident: str, version: str, *, system: dict[str, str], name: str = "BIOS Attribute Registry"
) -> dict[str, Any]:
    """A document of AttributeRegistry; its address is the make's affair."""
    return {
        "@odata.type": "#AttributeRegistry.v1_3_8.AttributeRegistry",
        "Id": ident,
        "Name": name,
        "Language": "en",
        "OwningEntity": system.get("owner", "DMTF"),
        "RegistryVersion": version,
        "SupportedSystems": [{"ProductName": system["model"], "SystemId": system.get("id", "1"), "FirmwareVersion": system["firmware"]}],
        "RegistryEntries": {"Attributes": bios.entries, "Dependencies": bios.dependencies, "Menus": []},
    }  # fmt: skip
