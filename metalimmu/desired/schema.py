"""JSON Schema of the documents, for editors. The comment behind a field in types.py is the field's help."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from metalimmu.desired import types
from metalimmu.desired.types import Digest, Hold, Host, ImageName, Pool, Role, Site
from metalimmu.errors import UsageError

KINDS: dict[str, Any] = {
    "site": Site,
    "host": Host,
    "hosts": list[Host] | Host,
    "role": Role,
    "pool": Pool,
    "holds": list[Hold],
    "lock": dict[ImageName, Digest],
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(document: str) -> dict[str, Any]:
    """Raises UsageError for an unknown document."""
    if document not in KINDS:
        raise UsageError(f"no document {document!r}", hint=f"one of {', '.join(KINDS)}")
    out = msgspec.json.schema(KINDS[document], schema_hook=lambda _: {"description": "any value"})
    for name, definition in out.get("$defs", {}).items():
        for field, text in comments(getattr(types, name)).items():
            definition["properties"][field].setdefault("description", text)
    return {"$schema": DIALECT, "title": f"metalimmu {document}", **out}


def comments(kind: type) -> dict[str, str]:
    """Field -> the comment at the end of its line."""
    fields = re.finditer(r"^    (\w+): .*?  # (.+)$", inspect.getsource(kind), re.MULTILINE)
    return {m[1]: m[2] for m in fields}
