"""What a test does to a BMC behind its back, as words with JSON arguments: the same in this process and over a socket."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import msgspec

from metalimmu.errors import UsageError
from metalimmu_emulator.fleet import bios, changes, tasks
from metalimmu_emulator.fleet.faults import Fault
from metalimmu_emulator.fleet.identity import clock
from metalimmu_emulator.fleet.page import Page, key
from metalimmu_emulator.fleet.persona import Persona
from metalimmu_emulator.fleet.spec import Counters

Verb = Callable[..., Any]


def run(persona: Persona, verb: str, arguments: dict[str, Any]) -> Any:
    """Raises UsageError for what this BMC has not."""
    act = VERBS.get(verb)
    if act is None:
        raise UsageError(f"there is no control {verb!r}", hint=f"there are {', '.join(VERBS)}")
    persona.tick()
    try:
        return act(persona, **arguments)
    except (KeyError, TypeError) as exc:
        raise UsageError(f"{persona.identity.name}: {verb}: {exc.args[0] if exc.args else exc}") from exc


def _counters(persona: Persona) -> Any:
    persona.counters.sessions = len(persona.sessions)
    return msgspec.to_builtins(persona.counters)


def _clear_counters(persona: Persona) -> None:
    connections = persona.counters.open_connections
    persona.counters = Counters(open_connections=connections)
    persona.written.clear()


def _document(persona: Persona, uri: str) -> Any:
    page = persona.page(uri)
    if page is None:
        return None
    body = page.render(persona.identity, clock(persona.now()), persona.etag(page))
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("latin-1")


def _edit(persona: Persona, uri: str, edits: dict[str, Any], *, logged: bool = False, user: str = "") -> None:
    persona.edit(uri, edits)
    if logged:
        persona.log("other", f"{', '.join(edits)} of {uri} changed.", user)


def _replace(persona: Persona, uri: str, document: Any = None, raw: str | None = None) -> None:
    if raw is not None:
        persona.overlay[key(uri)] = Page(None, base64.b64decode(raw), "application/json")
    elif document is None:
        persona.remove(uri)
    else:
        persona.put(uri, document)


def _set_bios(persona: Persona, attributes: dict[str, Any], *, logged: bool = True, user: str = "") -> None:
    if not persona.template.places.bios:
        raise KeyError(f"{persona.template.make} has no BIOS attributes")
    if logged:
        now = bios.current(persona)
        told = "; ".join(f"{k} changed from {now.get(k)} to {v}" for k, v in attributes.items())
        persona.log("bios", f"BIOS settings were changed: {told}.", user)
    bios.set_current(persona, attributes)


def _stage_bios(persona: Persona, attributes: dict[str, Any], *, job: bool = True, user: str = "") -> None:
    if not persona.template.places.settings:
        raise KeyError(f"{persona.template.make} has no settings object")
    bios.stage(persona, attributes)
    if job and persona.template.traits.job_needed and not persona.job_scheduled:
        tasks.start(persona, "ConfigBIOS:BIOS.Setup.1-1", "bios")
    if user:
        persona.log("bios", f"BIOS settings staged: {', '.join(attributes)}.", user)


def _set_firmware(persona: Persona, component: str, version: str, *, logged: bool = True, user: str = "") -> None:
    changes.set_firmware(persona, component, version)
    if logged:
        persona.log("firmware", f"{component} was updated to {version}.", user)


def _update_bios(persona: Persona, version: str, *, logged: bool = True, user: str = "") -> None:
    changes.update_bios(persona, version)
    if logged:
        persona.log("firmware", f"bios was updated to {version}.", user)


def _reset(persona: Persona) -> None:
    changes.power(persona, "ForceRestart")


def _restart_bmc(persona: Persona, seconds: float = 0.0) -> None:
    persona.sessions.clear()
    persona.away_until = time.monotonic() + seconds if seconds else 0.0


def _add_log(persona: Persona, text: str, *, what: str = "other", user: str = "", at: float | None = None) -> None:
    persona.log(what, text, user, at=at)


def _log_entries(persona: Persona) -> list[Any]:
    """Of the log that names who did what, newest last."""
    where = persona.template.places.log
    collection = (persona.document(where) if where else None) or {}
    found = [_document(persona, str(m["@odata.id"])) for m in collection.get("Members") or []]
    return sorted((e for e in found if isinstance(e, dict)), key=lambda e: (str(e.get("Created")), str(e.get("Id"))))


def _fault(persona: Persona, name: str, parameters: dict[str, Any]) -> None:
    persona.faults = [f for f in persona.faults if f.name != name or f.path != parameters.get("path", "")]
    persona.faults.append(Fault.of(name, parameters))


def _heal(persona: Persona, names: list[str]) -> None:
    persona.faults = [f for f in persona.faults if names and f.name not in names]


VERBS: dict[str, Verb] = {
    "counters": _counters,
    "clear_counters": _clear_counters,
    "written": lambda persona: [list(w) for w in persona.written],
    "document": _document,
    "edit": _edit,
    "replace": _replace,
    "bios": bios.current,
    "pending": lambda persona: dict(persona.staged),
    "set_bios": _set_bios,
    "stage_bios": _stage_bios,
    "set_firmware": _set_firmware,
    "update_bios": _update_bios,
    "cmos_clear": changes.cmos_clear,
    "factory_reset": changes.factory_reset,
    "reset": _reset,
    "power": changes.power,
    "restart_bmc": _restart_bmc,
    "add_log": _add_log,
    "log_entries": _log_entries,
    "fault": _fault,
    "heal": _heal,
    "faults": lambda persona: [f.name for f in persona.faults],
}
