"""CSDL schemas (OData) made of what the recordings really say, for DMTF's service validator.

The validator wants DMTF's schema bundle (DSP8010), which is on dmtf.org and in no package index, so CI cannot have it. What CI
has are answers of seven real machines and DMTF's own sample. From them: which properties a resource type has, of which JSON
type, which are arrays, times or UUIDs, what a link leads to, which actions there are. Not known from evidence, and so not
checked: which values an enumeration may have, what is required beside Id and Name, allowed URIs.
With METALIMMU_REDFISH_SCHEMAS (a folder with DSP8010's csdl/*.xml) the validator gets the real ones.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import msgspec

EDMX, EDM = "http://docs.oasis-open.org/odata/ns/edmx", "http://docs.oasis-open.org/odata/ns/edm"
TIME = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$")
UUID = re.compile(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
TYPE = re.compile(r"^#(\w+)\.(?:(v\d+_\d+_\d+)\.)?\w+$")
OEM = re.compile(r"^(Oem|Dell|Hpe|Lenovo|Smc|Supermicro|Nvidia|OpenBMC|OpenBmc)")


@dataclass
class Shape:
    """What was seen in one place of a type."""

    kinds: set[str] = field(default_factory=set)  # str int float bool link object
    array: set[bool] = field(default_factory=set)
    formats: set[str] = field(default_factory=set)  # time uuid text
    targets: set[str] = field(default_factory=set)  # types that links lead to
    inside: dict[str, Shape] = field(default_factory=dict)


@dataclass
class Evidence:
    types: dict[str, Shape] = field(default_factory=dict)
    actions: dict[str, set[str]] = field(default_factory=dict)

    def take(self, tree: dict[str, dict[str, Any]]) -> None:
        """One recording: path in lower case -> document."""
        for document in tree.values():
            if name := type_name(document):
                self._object(self.types.setdefault(name, Shape()), document, tree, name)

    def _object(self, shape: Shape, document: dict[str, Any], tree: dict[str, dict[str, Any]], name: str) -> None:
        for key, value in document.items():
            if key == "Actions" and isinstance(value, dict):
                self.actions.setdefault(name, set()).update(k.removeprefix("#") for k in value if k[:1] == "#")
            elif "@" not in key and key != "Oem" and key[:1] != "#":
                self._value(shape.inside.setdefault(key, Shape()), value, tree, name)

    def _value(self, shape: Shape, value: Any, tree: dict[str, dict[str, Any]], name: str) -> None:
        values = value if isinstance(value, list) else [value]
        if value is not None:
            shape.array.add(isinstance(value, list))
        for one in values:
            if isinstance(one, dict):
                self._nested(shape, one, tree, name)
            elif isinstance(one, str):
                shape.kinds.add("str")
                shape.formats.add("time" if TIME.match(one) else "uuid" if UUID.match(one) else "text")
            elif one is not None:
                shape.kinds.add(type(one).__name__)

    def _nested(self, shape: Shape, one: dict[str, Any], tree: dict[str, dict[str, Any]], name: str) -> None:
        if set(one) == {"@odata.id"}:
            shape.kinds.add("link")
            target = tree.get(str(one["@odata.id"]).rstrip("/").lower())
            if target is not None and (found := type_name(target)):
                shape.targets.add(found)
            return
        shape.kinds.add("object")
        self._object(shape, one, tree, name)


def type_name(document: dict[str, Any]) -> str:
    found = TYPE.match(str(document.get("@odata.type") or ""))
    return found[1] if found else ""


def trees(paths: list[Path]) -> Iterator[dict[str, dict[str, Any]]]:
    for path in paths:
        tree: dict[str, dict[str, Any]] = {}
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith("index.json"):
                    continue
                try:
                    document = msgspec.json.decode(archive.read(name))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
                if isinstance(document, dict):
                    tree["/" + name[: -len("/index.json")].lower()] = document
        yield tree


def write(evidence: Evidence, versions: dict[str, set[str]], folder: Path) -> None:
    """One CSDL file. `versions`: type -> the versions that are going to be looked up."""
    schemas = [BASE]
    for name, shape in evidence.types.items():
        if name in ("Resource", "ResourceCollection"):
            continue
        base = "Resource.v1_0_0.ResourceCollection" if name.endswith("Collection") else "Resource.v1_0_0.Resource"
        actions = "".join(
            f'<Action Name={quoteattr(a.partition(".")[2])} IsBound="true"/>'
            for a in sorted(evidence.actions.get(name, ()))
        )
        if name.endswith("Collection"):
            member = name.removesuffix("Collection")
            member = f"{member}.{member}" if member in evidence.types else "Resource.Item"
            body = f'<NavigationProperty Name="Members" Type="Collection({member})"/>'
            schemas.append(
                f'<Schema Namespace="{name}" xmlns="{EDM}"><EntityType Name="{name}" BaseType="{base}">{body}</EntityType></Schema>'
            )
            continue
        schemas.append(
            f'<Schema Namespace="{name}" xmlns="{EDM}"><EntityType Name="{name}" BaseType="{base}" Abstract="true"/>{actions}</Schema>'
        )
        schemas += [_versioned(evidence, name, version, shape) for version in sorted(versions.get(name, set()))]
    text = f'<edmx:Edmx xmlns:edmx="{EDMX}" Version="4.0"><edmx:DataServices>{"".join(schemas)}</edmx:DataServices></edmx:Edmx>'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Evidence_v1.xml").write_text(text, encoding="utf-8")


def _versioned(evidence: Evidence, name: str, version: str, shape: Shape) -> str:
    space = f"{name}.{version}"
    complexes: list[str] = []
    shape.inside.pop("Id", None)
    shape.inside.pop("Name", None)
    body = _properties(evidence, space, "", shape, complexes)
    body += f'<Property Name="Actions" Type="{space}.Actions"/><Property Name="Oem" Type="Resource.Oem"/>'
    complexes.append('<ComplexType Name="Actions"><Property Name="Oem" Type="Resource.Oem"/></ComplexType>')
    return f'<Schema Namespace="{space}" xmlns="{EDM}"><EntityType Name="{name}" BaseType="{name}.{name}">{body}</EntityType>{"".join(complexes)}</Schema>'


def _properties(evidence: Evidence, space: str, path: str, shape: Shape, complexes: list[str]) -> str:
    out = []
    for key, one in shape.inside.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", key) or not one.kinds:
            continue
        tag, kind = "Property", _kind(one)
        if one.kinds == {"link"}:
            tag = "NavigationProperty"
            [*targets] = one.targets
            kind = (
                f"{targets[0]}.{targets[0]}" if len(targets) == 1 and targets[0] in evidence.types else "Resource.Item"
            )
        elif one.kinds & {"object", "link"}:
            inner = f"{path}{key}"
            nested = (
                _properties(evidence, space, f"{inner}_", one, complexes)
                if key != "Attributes" or True in one.array
                else DYNAMIC
            )
            complexes.append(
                f'<ComplexType Name="{inner}"><Property Name="Oem" Type="Resource.Oem"/>{nested}</ComplexType>'
            )
            kind = f"{space}.{inner}"
        kind = f"Collection({kind})" if True in one.array else kind
        out.append(f'<{tag} Name="{key}" Type="{kind}"/>')
    return "".join(out)


def _kind(shape: Shape) -> str:
    if shape.kinds == {"str"}:
        formats = {"time": "Edm.DateTimeOffset", "uuid": "Edm.Guid"}
        return (
            formats[next(iter(shape.formats))]
            if len(shape.formats) == 1 and shape.formats <= set(formats)
            else "Edm.String"
        )
    if shape.kinds <= {"int", "float"}:
        return "Edm.Int64" if shape.kinds == {"int"} else "Edm.Decimal"
    return "Edm.Boolean" if shape.kinds == {"bool"} else "Edm.PrimitiveType"


DYNAMIC = (
    '<Annotation Term="Redfish.DynamicPropertyPatterns"><Collection><Record><PropertyValue Property="Pattern" String="."/>'
    '<PropertyValue Property="Type" String="Edm.PrimitiveType"/></Record></Collection></Annotation>'
)
REQUIRED = '<Annotation Term="Redfish.Required"/>'
BASE = f"""
<Schema Namespace="Resource" xmlns="{EDM}">
<EntityType Name="Item" Abstract="true"/>
<ComplexType Name="Oem"><Annotation Term="Redfish.DynamicPropertyPatterns"><Collection><Record>
<PropertyValue Property="Pattern" String="."/><PropertyValue Property="Type" String="Resource.OemObject"/></Record></Collection></Annotation></ComplexType>
<ComplexType Name="OemObject"/></Schema>
<Schema Namespace="Resource.v1_0_0" xmlns="{EDM}">
<EntityType Name="Resource" BaseType="Resource.Item" Abstract="true">
<Property Name="Id" Type="Edm.String" Nullable="false">{REQUIRED}</Property>
<Property Name="Name" Type="Edm.String" Nullable="false">{REQUIRED}</Property>
<Property Name="Description" Type="Edm.String"/></EntityType>
<EntityType Name="ResourceCollection" BaseType="Resource.Item" Abstract="true">
<Property Name="Name" Type="Edm.String" Nullable="false">{REQUIRED}</Property>
<Property Name="Description" Type="Edm.String"/><Property Name="Oem" Type="Resource.Oem"/></EntityType></Schema>
"""
