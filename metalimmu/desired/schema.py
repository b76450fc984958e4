"""JSON Schema of the documents, for editors. The comment behind a field is the field's help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from metalimmu.desired.base import Document
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Profile
from metalimmu.desired.types import Digest, Hold, Host, ImageName, Pool, Role, Site
from metalimmu.desired.waiver import Waiver
from metalimmu.errors import UsageError

KINDS: dict[str, Any] = {
    "site": Site,
    "host": Host,
    "hosts": list[Host] | Host,
    "role": Role,
    "pool": Pool,
    "profile": Profile,
    "holds": list[Hold],
    "waivers": list[Waiver],
    "lock": dict[ImageName, Digest],
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(document: str) -> dict[str, Any]:
    """Raises UsageError for an unknown document."""
    if document not in KINDS:
        raise UsageError(f"no document {document!r}", hint=f"one of {', '.join(KINDS)}")
    out = msgspec.json.schema(KINDS[document], schema_hook=lambda _: {"description": "any value"})
    structs = {kind.__name__: kind for kind in _below(Document)}
    for name, definition in out.get("$defs", {}).items():
        for field, text in comments(structs[name]).items():
            said = definition["properties"][field]
            said["description"] = f"{text}: {kind}" if (kind := said.get("description")) else text
    if document == "profile":
        out["$defs"]["Profile"]["properties"]["bios"]["properties"] = _neutral_keys()
    return {"$schema": DIALECT, "title": f"metalimmu {document}", **out}


def _below(kind: type[Document]) -> Iterator[type[Document]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def _neutral_keys() -> dict[str, dict[str, str]]:
    return {k.name: {"description": f"{k.help}: {', '.join(k.values)}"} for k in neutral().keys.values()}


def comments(kind: type) -> dict[str, str]:
    """Field -> the comment at the end of its line, those of the structs that it is based on too."""
    based = [k for k in reversed(kind.__mro__) if issubclass(k, Document) and k is not Document]
    lines = re.finditer(r"^    (\w+): .*?  # (.+)$", "\n".join(map(inspect.getsource, based)), re.MULTILINE)
    return {m[1].removesuffix("_"): m[2] for m in lines}
