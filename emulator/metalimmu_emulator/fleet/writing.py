"""PATCH, POST and DELETE: who may, on what, and what follows. Every change by an account leaves an entry in the log."""

from __future__ import annotations

from typing import Any

import msgspec

from metalimmu_emulator.fleet import accounts, actions, message, tasks, updates
from metalimmu_emulator.fleet.message import Answer, Request, error
from metalimmu_emulator.fleet.page import key
from metalimmu_emulator.fleet.persona import Persona, merge
from metalimmu_emulator.fleet.template import ROOT

# What a PATCH may change, by the resource's type.
WRITABLE: dict[str, frozenset[str]] = {
    "ComputerSystem": frozenset({"AssetTag", "Boot", "IndicatorLED", "LocationIndicatorActive", "HostName", "PowerRestorePolicy", "Oem"}),
    "Manager": frozenset({"DateTime", "DateTimeLocalOffset", "TimeZoneName", "Oem"}),
    "ManagerNetworkProtocol": frozenset({"HTTP", "HTTPS", "SSH", "IPMI", "SNMP", "NTP", "KVMIP", "Telnet", "VirtualMedia", "SSDP", "DHCP", "HostName", "FQDN", "Oem"}),
    "SecureBoot": frozenset({"SecureBootEnable"}),
    "EthernetInterface": frozenset({"HostName", "FQDN", "StaticNameServers", "DHCPv4", "IPv4StaticAddresses", "InterfaceEnabled"}),
    "Chassis": frozenset({"AssetTag", "IndicatorLED", "LocationIndicatorActive"}),
    "VirtualMedia": frozenset({"Image", "Inserted", "WriteProtected"}),
    "AccountService": frozenset({"AccountLockoutThreshold", "AccountLockoutDuration", "AccountLockoutCounterResetAfter", "MinPasswordLength"}),
    "SessionService": frozenset({"SessionTimeout"}),
    "EventDestination": frozenset({"Context"}),
    "BootOption": frozenset({"BootOptionEnabled"}),
    "DellAttributes": frozenset({"Attributes"}),
    "HpeiLODateTime": frozenset({"StaticNTPServers", "PropagateTimeToHost", "TimeZone"}),
    "NTP": frozenset({"NTPEnable", "PrimaryNTPServer", "SecondaryNTPServer"}),
    "Syslog": frozenset({"EnableSyslog", "SyslogServer", "SyslogPortNumber"}),
    "SysLockdown": frozenset({"SysLockdownEnabled"}),
}  # fmt: skip
EVENTS = f"{ROOT}/EventService/Subscriptions"


def write(persona: Persona, request: Request, user: str) -> Answer:
    if persona.role(user) == "ReadOnly":
        return error(403, "InsufficientPrivilege")
    if persona.fault("lying-write", request.method, request.path) is not None:
        return message.success()
    if updates.wants(persona, request):
        return updates.push(persona, request, user)
    body = _body(request)
    if isinstance(body, Answer):
        return body
    match request.method:
        case "PATCH":
            return _patch(persona, request, body, user)
        case "POST":
            return _post(persona, request, body, user)
        case "DELETE":
            return _delete(persona, request, user)
    return _not_allowed(persona, request)


def _body(request: Request) -> dict[str, Any] | Answer:
    if request.method == "DELETE" or not request.body:
        return {}
    kind = request.header(b"content-type").lower()
    if kind and "json" not in kind:
        return error(415, "HeaderInvalid", "Content-Type")
    try:
        found = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return error(400, "MalformedJSON")
    return found if isinstance(found, dict) else error(400, "UnrecognizedRequestBody")


def kind_of(document: dict[str, Any] | None) -> str:
    return str((document or {}).get("@odata.type", "")).removeprefix("#").partition(".")[0]


def allowed(persona: Persona, path: str, document: dict[str, Any]) -> bytes:
    """The Allow header: what may be done to this resource."""
    kind, where = kind_of(document), key(path)
    places = persona.template.places
    methods = ["GET", "HEAD"]
    if kind in WRITABLE or where in (key(places.settings), key(places.boot_settings)) or kind == "ManagerAccount":
        methods.append("PATCH")
    creates = {
        key(EVENTS),
        *(map(key, places.jobs)),
        *([key(places.accounts)] if persona.template.traits.post_accounts else []),
    }
    if kind == "SessionCollection" or where in creates:
        methods.append("POST")
    if kind in ("EventDestination", "Session", "Task", "Job", "DellJob") or (
        kind == "ManagerAccount" and persona.template.traits.post_accounts
    ):
        methods.append("DELETE")
    return ", ".join(methods).encode()


def _not_allowed(persona: Persona, request: Request) -> Answer:
    page = persona.page(request.path)
    if page is None:
        return message.missing(request.path)
    allow = allowed(persona, request.path, page.document or {})
    return error(405, "OperationNotAllowed", headers=((b"Allow", allow),))


def _patch(persona: Persona, request: Request, body: dict[str, Any], user: str) -> Answer:
    document = persona.document(request.path)
    if document is None:
        return _not_allowed(persona, request)
    if b"PATCH" not in allowed(persona, request.path, document) and not persona.template.recorded:
        return _not_allowed(persona, request)
    refused = _precondition(persona, request)
    if refused is not None:
        return refused
    if not body:
        return error(400, "UnrecognizedRequestBody")
    uri, places, kind = str(document.get("@odata.id") or request.path), persona.template.places, kind_of(document)
    if key(request.path) == key(places.settings):
        return actions.stage(persona, body, user)
    if kind == "ManagerAccount":
        return accounts.change(persona, uri, document, body, user)
    if key(request.path) == key(places.boot_settings) and places.boot_settings:
        uri, document, kind = places.system, persona.document(places.system) or {}, "ComputerSystem"
    elif kind == "ComputerSystem" and places.boot_settings and "Boot" in body:
        return error(400, "PropertyNotWritable", "Boot")
    writable = WRITABLE.get(kind, frozenset())
    if persona.template.recorded and kind not in WRITABLE:
        writable = frozenset(document)
    elif not writable:
        return _not_allowed(persona, request)
    wrong = _wrong(document, body, writable)
    good = {k: v for k, v in body.items() if k not in wrong and not k.startswith("@")}
    if not good:
        return error(400, *(next(iter(wrong.values())) if wrong else ("UnrecognizedRequestBody",)))
    if "Boot" in good and (bad := _bad_boot(document.get("Boot") or {}, good["Boot"])):
        return error(400, "PropertyValueNotInList", bad)
    if "DateTime" in good:
        good = actions.set_clock(persona, good)
    merge(document, good)
    persona.put(uri, document)
    persona.log(_about(kind), f"{', '.join(good)} of {uri} changed.", user)
    return _changed(persona, uri, wrong)


def _changed(persona: Persona, uri: str, wrong: dict[str, tuple[str, ...]]) -> Answer:
    from metalimmu_emulator.fleet import reading

    if persona.template.traits.patch_status == 204 and not wrong:
        return Answer(204)
    found = reading.read(persona, Request("GET", uri, "", {}))
    if not wrong:
        return found
    document = msgspec.json.decode(found.body)
    for name, (ident, *args) in wrong.items():
        document[f"{name}@Message.ExtendedInfo"] = [message.info(ident, *args)]
    return found._replace(body=msgspec.json.encode(document))


def _wrong(document: dict[str, Any], body: dict[str, Any], writable: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Property -> the message that refuses it."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in body.items():
        if name.startswith("@"):
            continue
        if name not in document:
            found[name] = ("PropertyUnknown", name)
        elif name not in writable:
            found[name] = ("PropertyNotWritable", name)
        elif document[name] is not None and value is not None and type(document[name]) is not type(value):
            found[name] = ("PropertyValueTypeError", name)
    return found


def _bad_boot(now: dict[str, Any], asked: dict[str, Any]) -> str:
    for name, value in asked.items():
        listed = now.get(f"{name}@Redfish.AllowableValues")
        if isinstance(listed, list) and value not in listed:
            return name
    return ""


def _about(kind: str) -> str:
    return {"SecureBoot": "boot", "ManagerNetworkProtocol": "network", "EthernetInterface": "network"}.get(
        kind, "other"
    )


def _precondition(persona: Persona, request: Request) -> Answer | None:
    traits = persona.template.traits
    given = request.headers.get(b"if-match")
    page = persona.page(request.path)
    if traits.etags == "none" or page is None:
        return None
    if given is None:
        return error(428, "PreconditionRequired") if traits.if_match else None
    lies = persona.fault("etag", request.method, request.path) is not None
    tags = {t.strip() for t in given.split(b",")}
    if lies or not tags & {b"*", persona.etag(page)}:
        return error(412, "PreconditionFailed")
    return None


def _post(persona: Persona, request: Request, body: dict[str, Any], user: str) -> Answer:
    where, places = key(request.path).removesuffix("/members"), persona.template.places
    if "/actions/" in where:
        return actions.act(persona, request, body, user)
    if where == key(places.accounts) and persona.template.traits.post_accounts:
        return accounts.create(persona, body, user)
    if where == key(EVENTS) and persona.page(EVENTS) is not None:
        return _subscribe(persona, body)
    if where in map(key, places.jobs):
        return actions.make_job(persona, body, user)
    return _not_allowed(persona, request)


def _subscribe(persona: Persona, body: dict[str, Any]) -> Answer:
    for name in ("Destination", "Protocol"):
        if not isinstance(body.get(name), str):
            return error(400, "PropertyMissing", name)
    if body["Protocol"] != "Redfish":
        return error(400, "PropertyValueNotInList", "Protocol")
    ident = str(next(persona.serials))
    document = {
        "@odata.id": f"{EVENTS}/{ident}",
        "@odata.type": "#EventDestination.v1_14_1.EventDestination",
        "Id": ident,
        "Name": f"Subscription {ident}",
        "Destination": body["Destination"],
        "Protocol": body["Protocol"],
        "Context": body.get("Context"),
        "SubscriptionType": "RedfishEvent",
        "EventFormatType": "Event",
    }
    uri = persona.add_member(EVENTS, document)
    return message.document(201, document, (b"Location", uri.encode()))


def _delete(persona: Persona, request: Request, user: str) -> Answer:
    document = persona.document(request.path)
    kind, uri = kind_of(document), request.path.rstrip("/")
    if document is None:
        return message.missing(request.path)
    if kind == "ManagerAccount" and persona.template.traits.post_accounts:
        return accounts.delete(persona, uri, document, user)
    if kind in ("Task", "Job", "DellJob"):
        return Answer(204) if tasks.remove(persona, uri.rpartition("/")[2]) else _not_allowed(persona, request)
    if kind == "EventDestination":
        persona.drop_member(uri.rpartition("/")[0], uri)
        return Answer(204)
    return _not_allowed(persona, request)
