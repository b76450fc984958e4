"""A snapshot of a machine that speaks IPMI only: firmware of the BMC, health, power, clock. The rest is unknown, and says so."""

from __future__ import annotations

import time
from typing import Any

from metalimmu.bmc.answers import clean
from metalimmu.bmc.ipmi import ALL, IpmiBmc
from metalimmu.bmc.ipmi_facts import bmc, firmware, identity
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError
from metalimmu.observed.snapshot import SECTIONS, FirmwareItem, Snapshot, Value
from metalimmu.observed.types import PowerState, Reason, Unknown

_WORST = ("OK", "Warning", "Critical")
MOST_NOTES = 20


def ipmi_snapshot(driver: IpmiBmc, host: str, *, now: float | None = None) -> Snapshot:
    """Raises BmcError where there was no session; a part that could not be read is Unknown."""
    at = time.time() if now is None else now
    began = time.monotonic()
    found = driver.read(*ALL)
    return snapshot(found, host, driver.base, at=at, seconds=time.monotonic() - began)


def snapshot(found: dict[str, Any], host: str, base: str, *, at: float, seconds: float = 0.0) -> Snapshot:
    """From the worker's parts; pure."""
    settings: dict[str, Value] = {}
    unknowns: dict[str, Unknown] = {s: Unknown(Reason.not_modelled, "IPMI does not say", base) for s in SECTIONS}
    device, power = found["device"], found["power"]
    if isinstance(device, Unknown):
        unknowns["firmware"] = device
    else:
        settings["firmware.bmc"] = bmc(device)["firmware"]
    if isinstance(found["bios"], str) and found["bios"]:
        settings["firmware.bios"] = clean(found["bios"], 60)
    elif not isinstance(device, Unknown):
        unknowns["firmware.bios"] = _why(found["bios"], base)
    _put(settings, unknowns, "hardware.health", health(found["sensors"]))
    _put(settings, unknowns, "bmc.clock", _clock(found["clock"], at, base))
    return Snapshot(
        host=host,
        at=at,
        identity=_identity(found, base),
        bmc=device if isinstance(device, Unknown) else bmc(device),
        power=power if isinstance(power, Unknown) else PowerState.on if power["on"] else PowerState.off,
        settings=settings,
        unknown=unknowns,
        firmware=device if isinstance(device, Unknown) else _items(found, base),
        jobs=Unknown(Reason.not_modelled, "IPMI has no jobs", base),
        sources={section: f"{base} {part}" for section, part in _PARTS.items()},
        notes=_notes(found),
        requests=1,
        seconds=seconds,
    )


_PARTS = {"firmware": "Get Device ID", "hardware": "sensors", "bmc": "Get SEL Time"}


def health(sensors: list[dict[str, Any]] | Unknown) -> str | Unknown:
    """The worst of all sensors, in Redfish's words."""
    if isinstance(sensors, Unknown):
        return sensors
    if not sensors:
        return Unknown(Reason.not_modelled, "no sensor can be read")
    return _WORST[max(_WORST.index(s["health"]) for s in sensors)]


def _clock(clock: int | Unknown, at: float, base: str) -> int | Unknown:
    """Seconds that the event log's clock is ahead. A clock that was never set counts from the BMC's start."""
    if isinstance(clock, Unknown):
        return clock
    if clock < 0x20000000:
        return Unknown(Reason.not_modelled, "the event log's clock was never set", base)
    return round(clock - at)


def _identity(found: dict[str, Any], base: str) -> Any:
    try:
        return identity(found, base)
    except BmcError as exc:
        return unknown(exc, base)


def _items(found: dict[str, Any], base: str) -> tuple[FirmwareItem, ...]:
    return tuple(FirmwareItem(key=c.id, version=c.version, component=c) for c in firmware(found, base))


def _notes(found: dict[str, Any]) -> tuple[str, ...]:
    """Which sensors complain: the health alone does not say where to look."""
    sensors = found["sensors"]
    bad = [] if isinstance(sensors, Unknown) else [s for s in sensors if s["health"] != "OK"]
    notes = [f"sensor {clean(s['name'], 40)} is {s['health']}{_states(s)}" for s in bad[:MOST_NOTES]]
    more = [f"and {len(bad) - MOST_NOTES} more sensors"] if len(bad) > MOST_NOTES else []
    power = found["power"]
    fault = [] if isinstance(power, Unknown) or not power["fault"] else ["the chassis reports a power fault"]
    return (*fault, *notes, *more)


def _states(sensor: dict[str, Any]) -> str:
    words = ", ".join(clean(str(s), 60) for s in sensor["states"][:3])
    return f": {words}" if words else ""


def _put(settings: dict[str, Value], unknowns: dict[str, Unknown], name: str, value: Any) -> None:
    if isinstance(value, Unknown):
        unknowns[name] = value
    else:
        settings[name] = value


def _why(value: Any, base: str) -> Unknown:
    return value if isinstance(value, Unknown) else Unknown(Reason.not_modelled, "the BMC was not told it", base)
