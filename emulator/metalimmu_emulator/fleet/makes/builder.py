"""Documents of a make, collected and then frozen into a Template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from metalimmu_emulator.fleet.identity import ETAG
from metalimmu_emulator.fleet.makes import metadata
from metalimmu_emulator.fleet.page import Page, key
from metalimmu_emulator.fleet.template import ROOT, LogEntry, Places, Template, Traits, plain_log

Doc = dict[str, Any]


def link(uri: str) -> Doc:
    return {"@odata.id": uri}


def links(uris: Iterable[str]) -> list[Doc]:
    return [link(u) for u in uris]


def ok(state: str = "Enabled") -> Doc:
    return {"State": state, "Health": "OK"}


class Builder:
    """`context` and `etag`: whether this make's resources carry `@odata.context` and `@odata.etag`."""

    def __init__(self, make: str, *, context: bool = False, etag: bool = False) -> None:
        self.make = make
        self.documents: dict[str, Doc] = {}
        self.raw: dict[str, Page] = {}
        self._context = context
        self._etag = etag

    def add(self, uri: str, kind: str, name: str, /, **fields: Any) -> str:
        """`kind` is `ComputerSystem.v1_20_0`; Id is the URI's last part unless given. Returns the URI."""
        resource = kind.partition(".")[0]
        document: Doc = {"@odata.id": uri, "@odata.type": f"#{kind}.{resource}"}
        if self._context:
            document["@odata.context"] = f"/redfish/v1/$metadata#{resource}.{resource}"
        if self._etag:
            document["@odata.etag"] = ETAG
        document |= {"Id": uri.rpartition("/")[2], "Name": name}
        self.documents[uri] = document | fields
        return uri

    def collect(self, uri: str, kind: str, name: str, members: Iterable[str], /, **fields: Any) -> str:
        """A collection of `kind` (`ComputerSystem`)."""
        found = links(members)
        resource = f"{kind}Collection"
        document: Doc = {"@odata.id": uri, "@odata.type": f"#{resource}.{resource}", "Name": name}
        if self._context:
            document["@odata.context"] = f"/redfish/v1/$metadata#{resource}.{resource}"
        if self._etag:
            document["@odata.etag"] = ETAG
        self.documents[uri] = document | {"Members": found, "Members@odata.count": len(found)} | fields
        return uri

    def change(self, uri: str, /, **fields: Any) -> None:
        self.documents[uri] |= fields

    def drop(self, uri: str, *names: str) -> None:
        for name in names:
            self.documents[uri].pop(name, None)

    def text(self, uri: str, content: str, content_type: str = "application/xml") -> None:
        self.raw[uri] = Page(None, content.encode(), content_type)

    def build(
        self,
        *,
        traits: Traits,
        places: Places,
        log_entry: LogEntry = plain_log,
        defaults: Mapping[str, Any] | None = None,
        passwords: Mapping[str, tuple[str, str]] | None = None,
        firmware: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Template:
        self.text(f"{ROOT}/$metadata", metadata.document(self.documents.values()))
        pages = {key(uri): Page(document) for uri, document in self.documents.items()}
        pages |= {key(uri): page for uri, page in self.raw.items()}
        return Template(
            make=self.make,
            pages=pages,
            uris={key(uri): uri for uri in (*self.documents, *self.raw)},
            traits=replace(traits, etag_property=self._etag),
            places=places,
            log_entry=log_entry,
            defaults=defaults or {},
            passwords=passwords or {},
            firmware=firmware or {},
        )


def below(uri: str, *parts: str) -> str:
    return "/".join((uri, *parts))


__all__ = ["ROOT", "Builder", "Doc", "below", "link", "links", "ok"]
