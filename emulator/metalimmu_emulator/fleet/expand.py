"""`$expand` (DSP0266 7.3.2), right, or as wrong as some makes do it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from metalimmu_emulator.fleet import bios
from metalimmu_emulator.fleet.identity import clock
from metalimmu_emulator.fleet.message import Answer, Request, error
from metalimmu_emulator.fleet.persona import Persona

_LEVELS = re.compile(r"^([.*~])(?:\(\$levels=(\d+)\))?$")
_KIND = {"*": "ExpandAll", ".": "NoLinks", "~": "Links"}
MOST = 5000  # resources in one answer


def expand(
    persona: Persona, request: Request, found: dict[str, Any], value: str, offered: Any
) -> dict[str, Any] | Answer:
    asked = _LEVELS.match(value or "*")
    if asked is None or not isinstance(offered, dict):
        return error(400, "QueryParameterValueTypeError", "$expand")
    kind, levels = asked[1], int(asked[2] or 1)
    if not offered.get(_KIND[kind]) or (asked[2] and not offered.get("Levels")):
        return error(501, "QueryNotSupported")
    if levels > int(offered.get("MaxLevels") or 1):
        return error(400, "QueryParameterOutOfRange", "$expand")
    wrong = persona.template.traits.expand == "wrong" or persona.fault("expand", "GET", request.path) is not None
    work = _Work(persona, kind, wrong)
    expanded: dict[str, Any] = work.object(found, levels, in_links=False, top=True)
    return expanded


class _Work:
    def __init__(self, persona: Persona, kind: str, wrong: bool) -> None:
        self.persona = persona
        self.kind = kind
        self.wrong = wrong
        self.left = MOST
        self.now = clock(persona.now())
        self.seen = 0

    def value(self, value: Any, levels: int, *, in_links: bool) -> Any:
        if isinstance(value, list):
            return [self.value(v, levels, in_links=in_links) for v in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"@odata.id"}:
            wanted = self.kind == "*" or (self.kind == "~") == in_links
            return self.link(value, levels) if wanted and levels > 0 else value
        return self.object(value, levels, in_links=in_links)

    def object(self, found: dict[str, Any], levels: int, *, in_links: bool, top: bool = False) -> dict[str, Any]:
        out = {}
        for name, value in found.items():
            hidden = name.startswith("@Redfish.") or name in ("Actions", "Oem")
            inside = in_links or name == "Links"
            out[name] = value if hidden else self.value(value, levels, in_links=inside)
        if top and self.wrong and isinstance(out.get("Members"), list):
            out["Members"] = out["Members"][
                : max(1, len(out["Members"]) * 3 // 4)
            ]  # and the count says that all are there
        return out

    def link(self, link: dict[str, Any], levels: int) -> dict[str, Any]:
        uri = str(link["@odata.id"])
        page = self.persona.page(uri)
        self.left -= 1
        if page is None or page.raw or self.left < 0 or "#" in uri:
            return link
        found: dict[str, Any] = msgspec.json.decode(
            page.render(self.persona.identity, self.now, self.persona.etag(page))
        )
        bios.altered(self.persona, Request("GET", uri, "", {}), found)
        self.seen += 1
        if self.wrong and self.seen % 3 == 0:  # a stub in place of every third
            return {k: v for k, v in found.items() if k in ("@odata.id", "@odata.type", "Id", "Name")}
        return self.object(found, levels - 1, in_links=False)
