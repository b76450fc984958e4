"""Firmware that is pushed or fetched: a task, and after it (BIOS: after the reset as well) another version.

An image for this emulator is any file that begins with a line ``metalimmu-firmware COMPONENT VERSION`` (bios, bmc, nic, ...,
or the id of an inventory item).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from metalimmu_emulator.fleet import changes, message, tasks
from metalimmu_emulator.fleet.message import Answer, Request, error
from metalimmu_emulator.fleet.page import key
from metalimmu_emulator.fleet.persona import Persona
from metalimmu_emulator.fleet.template import ROOT

_IMAGE = re.compile(rb"metalimmu-firmware (\S{1,200}) (\S{1,100})\r?\n")
_BOUNDARY = re.compile(r'boundary="?([^";]{1,200})"?')
_NAME = re.compile(rb'name="([^"]{1,200})"')


def image(component: str, version: str, size: int = 4096) -> bytes:
    """Such a file."""
    head = f"metalimmu-firmware {component} {version}\n".encode()
    return head + b"\0" * max(0, size - len(head))


def _service(persona: Persona) -> dict[str, Any]:
    page = persona.page(persona.template.places.update or f"{ROOT}/UpdateService")
    return (page.document if page is not None else None) or {}


def wants(persona: Persona, request: Request) -> bool:
    """Is this a push?"""
    if request.method != "POST":
        return False
    service = _service(persona)
    pushes = {key(str(service[n])) for n in ("MultipartHttpPushUri", "HttpPushUri") if isinstance(service.get(n), str)}
    return key(request.path) in pushes


def push(persona: Persona, request: Request, user: str) -> Answer:
    parts = _parts(request)
    if parts is None:
        return error(400, "UnrecognizedRequestBody")
    parameters, content = parts
    found = _IMAGE.match(content)
    if found is None:
        return error(400, "UnrecognizedRequestBody")
    if not isinstance(parameters, dict):
        return error(400, "MalformedJSON")
    return start(persona, found[1].decode("latin-1"), found[2].decode("latin-1"), user)


def _parts(request: Request) -> tuple[Any, bytes] | None:
    """(UpdateParameters, image) of a multipart body (DSP0266 7.8), or the image alone."""
    boundary = _BOUNDARY.search(request.header(b"content-type"))
    if boundary is None:
        return {}, request.body
    parameters: Any = {}
    content: bytes | None = None
    for part in request.body.split(b"--" + boundary[1].encode())[1:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is None:
            return None
        if name[1] == b"UpdateParameters":
            try:
                parameters = msgspec.json.decode(body)
            except msgspec.DecodeError:
                parameters = None
        elif name[1] in (b"UpdateFile", b"file", b"files[]"):
            content = body.removesuffix(b"\r\n")
    return None if content is None else (parameters, content)


def simple(persona: Persona, body: dict[str, Any], user: str) -> Answer:
    """SimpleUpdate. Nothing is fetched: the URI's last part says what it is, ``COMPONENT-VERSION.bin``."""
    uri = body.get("ImageURI")
    if not isinstance(uri, str):
        return error(400, "PropertyMissing", "ImageURI")
    name = uri.rpartition("/")[2].rpartition(".")[0]
    component, _, version = name.partition("-")
    if not component or not version:
        return error(400, "PropertyValueTypeError", "ImageURI")
    return start(persona, component, version, user)


def start(persona: Persona, component: str, version: str, user: str) -> Answer:
    try:
        changes.items(persona, component)
    except KeyError:
        return error(400, "PropertyValueNotInList", "Targets")
    persona.log("firmware", f"An update of {component} to {version} was started.", user)

    def done() -> None:
        if component == "bios":
            changes.update_bios(persona, version)
        else:
            changes.set_firmware(persona, component, version)
        persona.log("firmware", f"{component} was updated to {version}.", user)

    name = f"Firmware Update: {component}"
    later = {"at_reset": done} if component == "bios" else {"act": done}
    ident = tasks.start(persona, name, "firmware", seconds=persona.task_seconds, **later)
    uri = tasks.uri(persona, ident)
    document = persona.document(uri) or {}
    return message.document(202, document, (b"Location", uri.encode()))
