"""What is fitted, as counts, sizes and models; and where its network ports are plugged in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from metalimmu.bmc import redfish_hardware, uris
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.document import Doc
from metalimmu.bmc.places import Candidate, Where
from metalimmu.bmc.reading import Reading
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError, BmcUnsupported
from metalimmu.observed.snapshot import Value
from metalimmu.observed.types import Component

Settings = dict[str, Value]
_NOWHERE = frozenset({"", "no link", "not available", "not supported", "no view", "unknown", "null", "none", "n/a"})
_PRINTABLE = re.compile(rb"[ -~]+")
_HEX = re.compile(r"^(?:[0-9A-Fa-f]{2}:)*[0-9A-Fa-f]{2}$")


def health(system: Doc) -> str:
    return system.text("Status", "HealthRollup") or system.text("Status", "Health")


def read(reading: Reading) -> Asking[None]:
    """Fills hardware.*; each kind fails alone."""
    system, read = reading.the_system(), reading.collections
    kinds: tuple[tuple[str, redfish_hardware.Found, Callable[[tuple[Component, ...]], Settings], str], ...] = (
        ("processors", redfish_hardware.processors(read, system), _processors, "Processors"),
        ("memory", redfish_hardware.memory(read, system), _memory, "Memory"),
        ("disks", redfish_hardware.disks(read, system), _disks, "Storage"),
        ("nics", redfish_hardware.nics(read, system), _nics, "EthernetInterfaces"),
        ("power_supplies", redfish_hardware.power_supplies(read, system), _supplies, ""),
    )
    for name, reader, told, link in kinds:
        source = uris.path(system.link(link)) if link and system.link(link) else system.uri
        before = len(reading.gaps)
        try:
            found = yield from reader
        except BmcError as exc:
            reading.unknown[f"hardware.{name}"] = unknown(exc, source)
            continue
        lost = reading.lost_since(before)
        if lost:  # a wrong count would be drift
            reading.unknown[f"hardware.{name}"] = lost
            continue
        for setting, value in told(found).items():
            reading.set(f"hardware.{setting}", value, source)


def _processors(found: tuple[Component, ...]) -> Settings:
    """GPUs and other accelerators are listed among the processors (Lenovo, GB200)."""
    cpus = [c for c in found if c.detail.get("type", "CPU") in ("CPU", "")]
    others = [c for c in found if c not in cpus]
    return _counted("processors", cpus, models=True) | (_counted("accelerators", others, models=True) if others else {})


def _memory(found: tuple[Component, ...]) -> Settings:
    sizes = [c.size for c in found if c.size]
    total: int | None = sum(sizes)
    return {"memory.count": len(found), "memory.total": total, "memory.sizes": tuple(sorted(sizes))}


def _disks(found: tuple[Component, ...]) -> Settings:
    return _counted("disks", found, models=True) | {"disks.sizes": tuple(sorted(c.size for c in found if c.size))}


def _nics(found: tuple[Component, ...]) -> Settings:
    macs = sorted({c.detail["mac"] for c in found if c.detail.get("mac")})
    return {"nics.count": len(found), "nics.macs": tuple(macs)}


def _supplies(found: tuple[Component, ...]) -> Settings:
    watts = sorted(int(c.detail["watts"]) for c in found if c.detail.get("watts"))
    return {"power_supplies.count": len(found), "power_supplies.watts": tuple(watts)}


def _counted(name: str, found: tuple[Component, ...] | list[Component], *, models: bool) -> Settings:
    settings: Settings = {f"{name}.count": len(found)}
    if models:
        settings[f"{name}.models"] = tuple(sorted(c.model or c.name for c in found))
    return settings


# cabling


def cabling(reading: Reading) -> Asking[None]:
    """Fills cabling.PORT by LLDP. Raises BmcUnsupported where the BMC reports none for any port."""
    where = reading.places.cabling
    told, before = 0, len(reading.gaps)
    if where.manager is not None:
        told += yield from _manager_port(reading, where.manager)
    if where.switches is not None:
        told += yield from _switches(reading, where.switches)
    else:
        told += yield from _ports(reading)
    lost = reading.lost_since(before)
    if lost:
        reading.unknown["cabling"] = lost
    elif not told:
        raise BmcUnsupported("the BMC says nothing about what its ports are plugged into")


def _plug(reading: Reading, port: str, switch: str, far: str, source: str) -> None:
    if switch.casefold() not in _NOWHERE and far.casefold() not in _NOWHERE:
        reading.set(f"cabling.{port}", f"{switch} {far}", source)


def _readable(text: str, subtype: str = "") -> str:
    """A MAC address in lower case. An iLO sends the name of a port as bytes in hexadecimal: 31:2F:31 is 1/1."""
    if not _HEX.match(text) or ":" not in text:
        return text
    raw = bytes.fromhex(text.replace(":", ""))
    name = _PRINTABLE.match(raw)
    if subtype == "MacAddr" or (len(raw) == 6 and not subtype) or not name:
        return text.lower()
    return name[0].decode().strip()


def _manager_port(reading: Reading, candidate: Candidate) -> Asking[int]:
    try:
        doc = yield from reading.document(candidate.at)
    except BmcUnsupported:
        return 0
    except BmcError as exc:  # the other ports may be told all the same
        reading.unknown[f"cabling.{candidate.port}"] = unknown(exc)
        return 0
    if not doc.part(*candidate.path).data:  # LLDP is switched off
        return 0
    _plugged(reading, candidate.port, doc.part(*candidate.path))
    return 1


def _plugged(reading: Reading, name: str, received: Doc) -> None:
    chassis = _readable(received.text("ChassisId"), received.text("ChassisIdSubtype"))
    far = _readable(received.text("PortId"), received.text("PortIdSubtype"))
    _plug(reading, name, received.text("SystemName") or chassis, far, received.uri)


def _switches(reading: Reading, where: Where) -> Asking[int]:
    """Dell's DellSwitchConnection: the switch's MAC address and its port."""
    uri = yield from reading.link(where)
    found = yield from reading.collections.parsed(uri, switch, kind="cabling")
    for port, near, far, source in found:
        _plug(reading, port, _readable(near), far, source)
    return len(found)


def switch(doc: Doc) -> tuple[str, str, str, str] | None:
    if doc.text("StaleData") == "Stale":
        return None
    return (
        doc.text("FQDD") or doc.text("Id"),
        doc.text("SwitchConnectionID"),
        doc.text("SwitchPortConnectionID"),
        doc.uri,
    )


def _ports(reading: Reading) -> Asking[int]:
    """Chassis, NetworkAdapters, Ports, Ethernet.LLDPReceive (DSP0268 Port)."""
    told = 0
    for chassis in (yield from reading.collections.docs(reading.the_system().links("Links", "Chassis"))):
        if not chassis.link("NetworkAdapters"):
            continue
        members = yield from reading.tree.members(chassis.link("NetworkAdapters"))
        for adapter in (yield from reading.collections.docs(members)):
            told += yield from _adapter(reading, adapter)
    return told


def _adapter(reading: Reading, adapter: Doc) -> Asking[int]:
    uri = adapter.link("Ports") or adapter.link("NetworkPorts")
    if not uri:
        return 0
    place = _place(adapter)
    found = yield from reading.collections.parsed(uri, port, kind="ports")
    for name, received, source in found:
        _plugged(reading, f"{place} port {name}", Doc(received, source))
    return len(found)


def port(doc: Doc) -> tuple[str, dict[str, Any], str] | None:
    received = doc.part("Ethernet", "LLDPReceive").data
    return (doc.text("PortId") or doc.text("Id"), received, doc.uri) if doc.has("Ethernet", "LLDPReceive") else None


def _place(adapter: Doc) -> str:
    """Where it sits: stays when the card is changed for another of its kind."""
    for part in (
        adapter.part("Location"),
        *(Doc(c, adapter.uri) for c in adapter.items("Controllers") if isinstance(c, dict)),
    ):
        label = part.text("PartLocation", "ServiceLabel") or part.text("Location", "PartLocation", "ServiceLabel")
        if label:
            return label
    return adapter.text("Id") or uris.last(adapter.uri)
