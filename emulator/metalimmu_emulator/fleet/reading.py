"""GET and HEAD: a page, filled in; query parameters (DSP0266 7.3); what a fault makes of it."""

from __future__ import annotations

import zlib
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from metalimmu_emulator.fleet import bios, expand, message
from metalimmu_emulator.fleet.identity import clock
from metalimmu_emulator.fleet.message import Answer, Request, error
from metalimmu_emulator.fleet.page import Page, key
from metalimmu_emulator.fleet.persona import Persona
from metalimmu_emulator.fleet.template import ROOT

# DSP0266 7.3.1: whatever the order in the query.
ORDER = {"$skip": 1, "$top": 2, "$expand": 3, "$select": 4}


def read(persona: Persona, request: Request) -> Answer:
    redirected = _redirected(persona, request)
    if redirected is not None:
        return redirected
    page = persona.page(request.path)
    if page is None or not _spelled(persona, request.path):
        return message.missing(request.path)
    if persona.faults or request.query or bios.alters(persona, request.path):
        return _special(persona, request, page)
    etag = persona.etag(page) if not page.raw else b""
    if etag and request.headers.get(b"if-none-match") == etag:
        return Answer(304, b"", ((b"ETag", etag),))
    body = page.render(persona.identity, clock(persona.now()), etag)
    return Answer(200, body, _headers(persona, request.path, page, etag), page.content_type)


def _headers(persona: Persona, path: str, page: Page, etag: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found: list[tuple[bytes, bytes]] = [(b"ETag", etag)] if etag else []
    document = page.document
    if document is not None:
        found.append((b"Allow", allowed(persona, path, document)))
        kind = str(document.get("@odata.type", "")).removeprefix("#").partition(".")[0]
        if kind:
            link = f"<http://redfish.dmtf.org/schemas/v1/{kind}.json>; rel=describedby"
            found.append((b"Link", quote(link, safe="<>:/.;= ").encode()))
    return tuple(found)


def allowed(persona: Persona, path: str, document: dict[str, Any]) -> bytes:
    from metalimmu_emulator.fleet import writing

    return writing.allowed(persona, path, document)


def _redirected(persona: Persona, request: Request) -> Answer | None:
    path, traits = request.path, persona.template.traits
    if path == ROOT and traits.root_redirects:
        return Answer(308, b"", ((b"Location", b"/redfish/v1/"),))
    if path.endswith("/") and len(path) > len(ROOT) + 1 and traits.slash == "redirect":
        return Answer(308, b"", ((b"Location", quote(path.rstrip("/")).encode()),))
    return None


def _spelled(persona: Persona, path: str) -> bool:
    """Letter case counts, but for makes that do not care."""
    if persona.template.traits.any_case:
        return True
    uri = persona.template.uris.get(key(path))
    return uri is None or uri == path or uri.rstrip("/") == path.rstrip("/")


def _special(persona: Persona, request: Request, page: Page) -> Answer:
    """The slow way: a document of its own, changed."""
    if page.raw:
        body = page.render(persona.identity, None)
        return Answer(200, body, (), page.content_type)
    if persona.faults and _dead(persona, request):
        return message.missing(request.path)
    etag = persona.etag(page)
    found: dict[str, Any] = msgspec.json.decode(page.render(persona.identity, clock(persona.now()), etag))
    bios.altered(persona, request, found)
    headers = list(_headers(persona, request.path, page, etag))
    answer = _query(persona, request, found)
    if isinstance(answer, Answer):
        return answer
    if persona.fault("null-members", "GET", request.path) is not None and "Members" in answer:
        answer["Members"] = None
    body = msgspec.json.encode(answer)
    if persona.fault("etag", "GET", request.path) is not None:
        headers = [h for h in headers if h[0] != b"ETag"] + [(b"ETag", b'"%08x"' % next(persona.serials))]
    elif etag and request.headers.get(b"if-none-match") == etag and not request.query:
        return Answer(304, b"", ((b"ETag", etag),))
    elif etag and request.query:
        headers = [h for h in headers if h[0] != b"ETag"]
    return Answer(200, body, tuple(headers))


def _dead(persona: Persona, request: Request) -> bool:
    """With the fault dead-links, every other member of a collection that is one member of several is gone."""
    if not any(f.name == "dead-links" for f in persona.faults):
        return False
    uri = key(request.path)
    parent = persona.page(uri.rpartition("/")[0])
    members = (parent.document or {}).get("Members") if parent is not None else None
    if not isinstance(members, list) or len(members) < 2 or zlib.crc32(uri.encode()) & 1:
        return False
    return persona.fault("dead-links", request.method, request.path) is not None


def _query(persona: Persona, request: Request, found: dict[str, Any]) -> dict[str, Any] | Answer:
    """DSP0266 7.3: what is offered is done, a `$` parameter that is not offered is refused, others are ignored."""
    if not request.query:
        return found
    offered = _offered(persona)
    asked = sorted(parse_qsl(request.query, keep_blank_values=True), key=lambda q: ORDER.get(q[0], 0))
    for name, value in asked:
        if name == "$expand" and offered.get("ExpandQuery"):
            result = expand.expand(persona, request, found, value, offered["ExpandQuery"])
        elif name == "$select" and offered.get("SelectQuery"):
            result = _selected(found, value)
        elif name == "only" and offered.get("OnlyMemberQuery"):
            result = _only(persona, request, found, value)
        elif name in ("$top", "$skip") and offered.get("TopSkipQuery", True):
            result = _paged(found, name, value)
        elif name.startswith("$"):
            return error(501, "QueryNotSupported")
        else:
            continue
        if isinstance(result, Answer):
            return result
        found = result
    return found


def _offered(persona: Persona) -> dict[str, Any]:
    root = persona.page(ROOT)
    features = (root.document or {}).get("ProtocolFeaturesSupported") if root is not None else None
    return features if isinstance(features, dict) else {}


def _selected(found: dict[str, Any], value: str) -> dict[str, Any]:
    wanted = {v.strip().partition("/")[0] for v in value.split(",")}
    return {k: v for k, v in found.items() if k.partition("@")[0] in wanted or k.startswith("@odata.")}


def _only(persona: Persona, request: Request, found: dict[str, Any], value: str) -> dict[str, Any] | Answer:
    members = found.get("Members")
    if value or not isinstance(members, list):
        return error(400, "QueryNotSupported")
    if len(members) != 1:
        return found
    uri = str(members[0].get("@odata.id"))
    page = persona.page(uri)
    if page is None or page.raw:
        return found
    body = page.render(persona.identity, clock(persona.now()), persona.etag(page))
    only: dict[str, Any] = msgspec.json.decode(body)
    bios.altered(persona, request._replace(path=uri), only)
    return only


def _paged(found: dict[str, Any], name: str, value: str) -> dict[str, Any] | Answer:
    members = found.get("Members")
    if not isinstance(members, list):
        return error(400, "QueryNotSupported")
    if not value.isdigit():
        return error(400, "QueryParameterValueTypeError", name)
    number = int(value)
    return found | {"Members": members[number:] if name == "$skip" else members[:number]}


def finish(persona: Persona, request: Request, found: dict[str, Any], allow: str) -> Answer:
    """A document that is made when it is asked for: sessions."""
    result = _query(persona, request, found)
    if isinstance(result, Answer):
        return result
    if persona.fault("null-members", "GET", request.path) is not None and "Members" in result:
        result["Members"] = None
    tag = b""
    if persona.template.traits.etags != "none":
        tag = b'"%08x"' % zlib.crc32(msgspec.json.encode(result))
        tag = b"W/" + tag if persona.template.traits.etags == "weak" else tag
    if tag and persona.template.traits.etag_property:
        result["@odata.etag"] = tag.decode()
    body = msgspec.json.encode(result)
    headers: list[tuple[bytes, bytes]] = [(b"Allow", allow.encode())]
    kind = str(found.get("@odata.type", "")).removeprefix("#").partition(".")[0]
    headers.append((b"Link", f"<http://redfish.dmtf.org/schemas/v1/{kind}.json>; rel=describedby".encode()))
    if tag:
        headers.append((b"ETag", tag))
    return Answer(200, body, tuple(headers))
