"""The questions of the census. Each is a reader that answers yes, no or unknown by what stands there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal

import msgspec

from metalimmu.bmc import redfish_media, registry_places
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.licence import licences
from metalimmu.bmc.redfish_boot import ALLOWED, ENABLED, TARGET, power_state
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import ROOT, Tree
from metalimmu.errors import BmcError, BmcUnsupported
from metalimmu.observed.registry import Registry
from metalimmu.observed.types import PowerState, Reason, Unknown

Word = Literal["yes", "no", "unknown"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    capability: str
    answer: Word
    reason: str
    source: str = ""  # URI
    detail: dict[str, str | int | bool] = {}


Known = dict[tuple[str, ...], Answer]
"""Of machines of one make, model and BIOS version one registry is read: HPE's has five megabytes."""


class Bench:
    """What the questions have in common. `readings` hold the documents that nearly all of them need."""

    def __init__(self, service: Service, tree: Tree, known: Known) -> None:
        self.service = service
        self.tree = tree
        self.known = known
        self.root = Doc({}, ROOT)
        self.manager = Doc({}, ROOT)
        self.make = ""

    def system(self) -> Asking[Doc]:
        return (yield from self.service.system(self.tree))

    def service_of(self, name: str) -> Asking[Doc]:
        """A service that the root links. Raises BmcUnsupported where it does not."""
        uri = self.root.link(name)
        if not uri:
            raise BmcUnsupported(f"the service root has no {name}")
        return (yield from self.tree.read(uri))


Question = Callable[[Bench], Asking[Answer]]


def yes(reason: str, source: str = "", **detail: str | int | bool) -> Answer:
    return Answer(capability="", answer="yes", reason=reason, source=source, detail=detail)


def no(reason: str, source: str = "", **detail: str | int | bool) -> Answer:
    return Answer(capability="", answer="no", reason=reason, source=source, detail=detail)


def unknown(why: Unknown) -> Answer:
    return Answer(capability="", answer="unknown", reason=f"{why.reason}: {why.detail}", source=why.source)


def virtual_media(bench: Bench) -> Asking[Answer]:
    slots = yield from redfish_media.media(bench.service, bench.tree)
    takes = [s for s in slots if s.takes_cd]
    if not takes:
        kinds = ", ".join(sorted({t for s in slots for t in s.media_types})) or "no types"
        return no(f"{len(slots)} slots, none for a CD ({kinds})", slots=len(slots), cd=0)
    how = "InsertMedia action" if takes[0].by_action else "PATCH"
    where = "system" if "/systems/" in takes[0].uri.lower() else "manager"
    text = f"{len(takes)} of {len(slots)} slots take a CD, by {how}, under the {where}"
    return yes(text, takes[0].uri, slots=len(slots), cd=len(takes), by=how)


def licence(bench: Bench) -> Asking[Answer]:
    if bench.make == "nvidia" or "openbmc" in bench.manager.text("Model").casefold():
        return yes("OpenBMC needs none")
    try:
        found = yield from licences(bench.tree, bench.make, bench.manager.uri)
    except BmcUnsupported as exc:
        return unknown(Unknown(Reason.not_modelled, exc.message))
    names = ", ".join(found.names) or "none"
    if found.enough:
        return yes(names, found.source, licences=names)
    return no(f"{names}: {found.because}", found.source, licences=names)


def boot_once(bench: Bench) -> Asking[Answer]:
    system = yield from bench.system()
    allowed = system.texts("Boot", f"{ENABLED}{ALLOWED}")
    if "Once" in allowed:
        return yes(f"allows {', '.join(allowed)}", system.uri)
    if allowed:
        return no(f"allows only {', '.join(allowed)}", system.uri)
    if system.has("Boot", ENABLED):
        return yes("the override is there; which values it takes is not listed", system.uri, listed=False)
    return no("the system has no boot override", system.uri)


def http_boot(bench: Bench) -> Asking[Answer]:
    system = yield from bench.system()
    targets = system.texts("Boot", f"{TARGET}{ALLOWED}")
    uri = "HttpBootUri" in system.part("Boot").data
    if "UefiHttp" in targets:
        return yes(f"UefiHttp, {'with' if uri else 'without'} HttpBootUri", system.uri, http_boot_uri=uri)
    if targets:
        return no(f"the targets are {', '.join(targets)}", system.uri)
    return unknown(Unknown(Reason.not_modelled, "the targets are not listed", system.uri))


def bios_settings(bench: Bench) -> Asking[Answer]:
    system = yield from bench.system()
    doc = yield from _bios(bench, system)
    attributes = doc.part("Attributes").data
    if not attributes and power_state(system) is PowerState.off:
        return unknown(Unknown(Reason.off, "no attributes while the host is off", doc.uri))
    target = doc.link("@Redfish.Settings", "SettingsObject")
    if not target:
        return no(f"{len(attributes)} attributes and no settings object to write them to", doc.uri)
    settings = yield from bench.tree.read(target)
    allow = settings.headers.get("Allow", "")
    if allow and not {"PATCH", "PUT"} & {m.strip().upper() for m in allow.split(",")}:
        return no(f"the settings object allows {allow} for this account", settings.uri)
    times = ", ".join(doc.texts("@Redfish.Settings", "SupportedApplyTimes")) or "not said"
    return yes(f"{len(attributes)} attributes; applied: {times}", settings.uri, attributes=len(attributes))


def bios_registry(bench: Bench) -> Asking[Answer]:
    system = yield from bench.system()
    key = (bench.make, system.text("Model"), system.text("BiosVersion"))
    if key not in bench.known:
        answer = yield from _registry(bench, system)
        if answer.answer == "unknown":
            return answer
        bench.known[key] = answer
    return bench.known[key]


def _registry(bench: Bench, system: Doc) -> Asking[Answer]:
    doc = yield from _bios(bench, system)
    values = {k: v for k, v in doc.part("Attributes").data.items() if isinstance(v, (str, int, float, bool))}
    vendor = system.text("Manufacturer") or bench.root.text("Vendor")
    declared = doc.text("AttributeRegistry")
    found = yield from registry_places.read(doc.uri, declared=declared, make=vendor, current=values)
    if isinstance(found, Registry):
        trust = "" if found.trusted else f"; not trusted: {found.why_not}"
        text = f"{len(found.attributes)} attributes{trust}"
        return yes(text, found.source, attributes=len(found.attributes), trusted=found.trusted)
    if found.reason is Reason.not_modelled:
        return no(found.detail, found.source)
    return unknown(found)


def _bios(bench: Bench, system: Doc) -> Asking[Doc]:
    uri = system.link("Bios")
    if not uri:
        raise BmcUnsupported(f"{system.uri} has no Bios")
    return (yield from bench.tree.read(uri))


def firmware_multipart(bench: Bench) -> Asking[Answer]:
    return (yield from _push(bench, "MultipartHttpPushUri"))


def firmware_push(bench: Bench) -> Asking[Answer]:
    return (yield from _push(bench, "HttpPushUri"))


def _push(bench: Bench, field: str) -> Asking[Answer]:
    service = yield from bench.service_of("UpdateService")
    if service.flag("ServiceEnabled") is False:
        return no("the update service is switched off", service.uri)
    uri = service.text(field)
    return yes(f"at {uri}", service.uri, uri=uri) if uri else no(f"no {field}", service.uri)


def firmware_pull(bench: Bench) -> Asking[Answer]:
    """UpdateService.SimpleUpdate: the BMC fetches the file from a URL."""
    service = yield from bench.service_of("UpdateService")
    action = service.part("Actions", "#UpdateService.SimpleUpdate")
    if not action.has("target"):
        return no("no SimpleUpdate", service.uri)
    protocols = ", ".join(action.texts(f"TransferProtocol{ALLOWED}"))
    return yes(f"SimpleUpdate{f' by {protocols}' if protocols else ''}", service.uri)


def event_stream(bench: Bench) -> Asking[Answer]:
    service = yield from bench.service_of("EventService")
    uri = service.text("ServerSentEventUri")
    if not uri:
        return no("no ServerSentEventUri", service.uri)
    if service.flag("ServiceEnabled") is False:
        return no("the event service is switched off", service.uri, uri=uri)
    return yes(f"at {uri}", service.uri, uri=uri)


def event_subscriptions(bench: Bench) -> Asking[Answer]:
    service = yield from bench.service_of("EventService")
    uri = service.link("Subscriptions")
    if not uri:
        return no("no Subscriptions", service.uri)
    if service.flag("ServiceEnabled") is False:
        return no("the event service is switched off", service.uri)
    members = yield from bench.tree.members(uri)
    return yes(f"{len(members)} subscribed now", uri, subscribed=len(members))


def sessions(bench: Bench) -> Asking[Answer]:
    service = yield from bench.service_of("SessionService")
    if service.flag("ServiceEnabled") is False:
        return no("the session service is switched off", service.uri)
    uri = service.link("Sessions") or bench.root.link("Links", "Sessions")
    seconds = service.number("SessionTimeout") or 0
    detail: dict[str, str | int | bool] = {"timeout": seconds}
    with contextlib.suppress(BmcError):  # who else is logged in is a secret to some roles
        detail["open"] = len((yield from bench.tree.members(uri)))
    return yes(f"{detail.get('open', '?')} open now, ending after {seconds} s of silence", service.uri, **detail)


def secure_boot(bench: Bench) -> Asking[Answer]:
    system = yield from bench.system()
    uri = system.link("SecureBoot")
    if not uri:
        return no("the system has no SecureBoot", system.uri)
    doc = yield from bench.tree.read(uri)
    enabled = doc.flag("SecureBootEnable")
    if enabled is None:
        return no("SecureBootEnable is not there", doc.uri)
    mode = doc.text("SecureBootMode")
    return yes(f"{'on' if enabled else 'off'} now, {mode or 'mode not said'}", doc.uri, enabled=enabled, mode=mode)


def certificate(bench: Bench) -> Asking[Answer]:
    """Can the BMC's TLS certificate be read and replaced?"""
    ends = yield from _certificate_end(bench)
    detail: dict[str, str | int | bool] = {"not_after": ends} if ends else {}
    tail = f"; ends {ends}" if ends else ""
    service = yield from bench.service_of("CertificateService")
    if service.has("Actions", "#CertificateService.ReplaceCertificate"):
        return yes(f"can be replaced{tail}", service.uri, **detail)
    oem = bench.manager.link("Oem", "Hpe", "Links", "SecurityService")
    if oem:
        return yes(f"can be replaced by HPE's own SecurityService{tail}", oem, **detail)
    return no(f"no ReplaceCertificate{tail}", service.uri, **detail)


def _certificate_end(bench: Bench) -> Asking[str]:
    try:
        protocol = yield from bench.tree.read(bench.manager.link("NetworkProtocol"))
        members = yield from bench.tree.members(protocol.link("HTTPS", "Certificates"))
        return (yield from bench.tree.read(members[0])).text("ValidNotAfter") if members else ""
    except BmcError:
        return ""


QUESTIONS: dict[str, Question] = {
    "virtual_media": virtual_media,
    "licence": licence,
    "boot_once": boot_once,
    "http_boot": http_boot,
    "bios_settings": bios_settings,
    "bios_registry": bios_registry,
    "firmware_multipart": firmware_multipart,
    "firmware_push": firmware_push,
    "firmware_pull": firmware_pull,
    "event_stream": event_stream,
    "event_subscriptions": event_subscriptions,
    "sessions": sessions,
    "secure_boot": secure_boot,
    "certificate": certificate,
}
