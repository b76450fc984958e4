"""Actions (DSP0266 7.10), and the writes that are more than a merge: staging of BIOS settings, the clock, config jobs."""

from __future__ import annotations

import calendar
import re
import time
from typing import Any

from metalimmu_emulator.fleet import bios, changes, message, tasks, updates
from metalimmu_emulator.fleet.identity import NOW
from metalimmu_emulator.fleet.message import Answer, Request, error
from metalimmu_emulator.fleet.page import key
from metalimmu_emulator.fleet.persona import Persona

_DATE = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?$")
APPLY_TIME = "@Redfish.SettingsApplyTime"


def stage(persona: Persona, body: dict[str, Any], user: str) -> Answer:
    """PATCH of the Bios settings object."""
    unknown = [n for n in body if n != "Attributes" and not n.startswith("@")]
    attributes = body.get("Attributes")
    if unknown or not isinstance(attributes, dict) or not attributes:
        return error(400, "PropertyUnknown" if unknown else "PropertyMissing", *(unknown or ["Attributes"]))
    now = bios.current(persona)
    for name, value in attributes.items():
        if name not in now:
            return error(400, "PropertyUnknown", name)
        if isinstance(now[name], (bool, int, str)) and type(now[name]) is not type(value):
            return error(400, "PropertyValueTypeError", name)
    registry = changes.registry(persona)
    for name, value in attributes.items():
        entry = registry.get(name, {})
        choices = [c.get("ValueName") for c in entry.get("Value") or []]
        if entry.get("ReadOnly"):
            return error(400, "PropertyNotWritable", name)
        if choices and value not in choices and now[name] in choices:
            return error(400, "PropertyValueNotInList", name)
    bios.stage(persona, attributes)
    persona.log("bios", f"BIOS settings staged: {', '.join(f'{k} = {v}' for k, v in attributes.items())}.", user)
    if persona.template.traits.job_needed and APPLY_TIME in body:
        ident = tasks.start(persona, "ConfigBIOS:BIOS.Setup.1-1", "bios")
        return Answer(202, b"", ((b"Location", tasks.uri(persona, ident).encode()),))
    if persona.template.traits.patch_status == 204:
        return Answer(204)
    return message.success()


def make_job(persona: Persona, body: dict[str, Any], user: str) -> Answer:
    """Dell: a config job for what is staged. Values without a job wait for ever."""
    target = body.get("TargetSettingsURI")
    if not isinstance(target, str) or key(target) != key(persona.template.places.settings):
        return error(400, "PropertyMissing", "TargetSettingsURI")
    if not persona.staged or persona.job_scheduled:
        return error(400, "ResourceInUse")
    ident = tasks.start(persona, "ConfigBIOS:BIOS.Setup.1-1", "bios")
    persona.log("bios", f"The configuration job {ident} was created.", user)
    return Answer(200, b"", ((b"Location", tasks.uri(persona, ident, job=True).encode()),))


def set_clock(persona: Persona, good: dict[str, Any]) -> dict[str, Any]:
    """A DateTime that was written moves the clock, and the document goes on showing it."""
    found = _DATE.match(str(good["DateTime"]))
    if found:
        offset = (found[2] or "Z").replace("Z", "+00:00").replace(":", "")
        seconds = (int(offset[1:3]) * 60 + int(offset[3:5])) * 60 * (-1 if offset[0] == "-" else 1)
        at = calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")) - seconds
        persona.clock_offset = at - time.time()
    return good | {"DateTime": NOW}


def act(persona: Persona, request: Request, body: dict[str, Any], user: str) -> Answer:
    uri, _, action = request.path.partition("/Actions/")
    document = persona.document(uri)
    if document is None:
        return message.missing(request.path)
    name = action.rstrip("/").rpartition("/")[2]
    if not _offered(document, request.path):
        return error(400, "ActionNotSupported", name)
    match name.rpartition(".")[2]:
        case "Reset" if name.startswith("ComputerSystem"):
            return _reset(persona, document, body, user)
        case "Reset" if name.startswith("Manager"):
            persona.log("reset", "The BMC was restarted.", user)
            persona.sessions.clear()
            return Answer(204)
        case "ResetToDefaults":
            changes.factory_reset(persona, user=user)
            return Answer(204)
        case "ResetBios":
            _defaults_at_reset(persona, user)
            return message.success()
        case "ClearPending":
            bios.clear_staged(persona)
            return message.success()
        case "InsertMedia" | "EjectMedia":
            return _media(persona, uri, document, name, body, user)
        case "SimpleUpdate":
            return updates.simple(persona, body, user)
        case "ClearLog":
            return _clear_log(persona, document, user)
        case "ReplaceCertificate":
            return _replace_certificate(persona, body, user)
        case "ResetKeys" | "ChangePassword" | "SubmitTestEvent":
            persona.log("boot" if name.startswith("SecureBoot") else "other", f"{name} on {uri}.", user)
            return message.success()
    return error(400, "ActionNotSupported", name)


def _offered(document: dict[str, Any], path: str) -> bool:
    """Does the resource list this target?"""
    listed = document.get("Actions") or {}
    found = [a.get("target") for a in (*listed.values(), *(listed.get("Oem") or {}).values()) if isinstance(a, dict)]
    return key(path) in {key(t) for t in found if isinstance(t, str)}


def _reset(persona: Persona, system: dict[str, Any], body: dict[str, Any], user: str) -> Answer:
    entry = system["Actions"]["#ComputerSystem.Reset"]
    kind = body.get("ResetType", "On")
    listed = entry.get("ResetType@Redfish.AllowableValues") or changes.action_info(persona, entry, "ResetType")
    if not isinstance(kind, str) or (listed and kind not in listed):
        return error(400, "ActionParameterNotSupported", "ResetType")
    persona.log("power", f"The host was asked to {kind}.", user)
    changes.power(persona, kind, str(system["@odata.id"]))
    return Answer(204) if persona.template.traits.patch_status == 204 else message.success()


def _defaults_at_reset(persona: Persona, user: str) -> None:
    factory = {k: v for k, v in persona.template.defaults.items() if k in bios.current(persona)}
    bios.stage(persona, factory)
    if persona.template.traits.job_needed:
        tasks.start(persona, "ConfigBIOS:BIOS.Setup.1-1", "bios")
    persona.log("bios", "BIOS settings will go back to factory defaults at the next reset.", user)


def _media(persona: Persona, uri: str, document: dict[str, Any], name: str, body: dict[str, Any], user: str) -> Answer:
    if name.endswith("EjectMedia"):
        document |= {"Image": None, "ImageName": None, "Inserted": False, "ConnectedVia": "NotConnected"}
    else:
        image = body.get("Image")
        if not isinstance(image, str) or not image:
            return error(400, "PropertyMissing", "Image")
        if document.get("Inserted"):
            return error(400, "ResourceInUse")
        document |= {"Image": image, "ImageName": image.rpartition("/")[2], "Inserted": True, "ConnectedVia": "URI"}
    persona.put(uri, document)
    persona.log("other", f"{name} on {uri}.", user)
    return Answer(204) if persona.template.traits.patch_status == 204 else message.success()


def _replace_certificate(persona: Persona, body: dict[str, Any], user: str) -> Answer:
    """What it says of itself; what is served at the handshake stays the fleet's."""
    uri = body.get("CertificateUri")
    uri = str(uri.get("@odata.id") or "") if isinstance(uri, dict) else ""
    if not isinstance(body.get("CertificateString"), str) or persona.document(uri or "/") is None:
        return error(400, "PropertyMissing", "CertificateUri" if not uri else "CertificateString")
    persona.edit(uri, {"CertificateString": body["CertificateString"]})
    persona.log("network", f"The certificate {uri} was replaced.", user)
    return message.success()


def _clear_log(persona: Persona, document: dict[str, Any], user: str) -> Answer:
    where = str((document.get("Entries") or {}).get("@odata.id") or "")
    entries = persona.document(where) if where else None
    if entries is None:
        return error(400, "ActionNotSupported", "LogService.ClearLog")
    for member in list(entries.get("Members") or []):
        persona.remove(str(member.get("@odata.id")))
    persona.put(where, entries | {"Members": [], "Members@odata.count": 0})
    persona.log("clear", "The log was cleared.", user)
    return Answer(204) if persona.template.traits.patch_status == 204 else message.success()
