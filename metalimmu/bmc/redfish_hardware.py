"""What is fitted in a machine: processors, memory, disks, NICs and power supplies, wherever a BMC lists them."""

from __future__ import annotations

from collections.abc import Callable

from metalimmu.bmc import redfish_parts, uris
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.collection import Collections
from metalimmu.bmc.document import Doc
from metalimmu.errors import BmcUnsupported
from metalimmu.observed.types import Component

Found = Asking[tuple[Component, ...]]


def present(parse: Callable[[Doc], Component]) -> Callable[[Doc], Component | None]:
    """Without empty sockets and bays."""
    return lambda doc: None if redfish_parts.absent(doc) else parse(doc)


def linked(read: Collections, owner: Doc, name: str, parse: Callable[[Doc], Component | None]) -> Found:
    """The collection that `owner` links as `name`. Raises BmcUnsupported when it links none."""
    uri = owner.link(name)
    if not uri:
        raise BmcUnsupported(f"{owner.uri} has no {name}")
    return (yield from read.parsed(uri, parse, kind=name))


def processors(read: Collections, system: Doc) -> Found:
    return linked(read, system, "Processors", present(redfish_parts.processor))


def memory(read: Collections, system: Doc) -> Found:
    return linked(read, system, "Memory", present(redfish_parts.memory))


def nics(read: Collections, system: Doc) -> Found:
    return linked(read, system, "EthernetInterfaces", present(redfish_parts.nic))


def disks(read: Collections, system: Doc) -> Found:
    if not system.link("Storage"):
        return (yield from _simple_disks(read, system))
    try:
        linked_drives = yield from read.parsed(system.link("Storage"), lambda c: c.links("Drives"), kind="Storage")
    except BmcUnsupported:  # X10SDV links a Storage that is not there
        return (yield from _simple_disks(read, system))
    drives = {uris.key(uri): uri for some in linked_drives for uri in some}
    return (yield from read.members(drives.values(), present(redfish_parts.disk)))


def _simple_disks(read: Collections, system: Doc) -> Found:
    """Before Redfish 2016.2: devices inside the controller."""
    if not system.link("SimpleStorage"):
        raise BmcUnsupported(f"{system.uri} has neither Storage nor SimpleStorage")
    controllers = yield from read.docs((yield from read.tree.members(system.link("SimpleStorage"))))
    devices = [Doc(d, c.uri, c.odd) for c in controllers for d in c.items("Devices") if isinstance(d, dict)]
    return tuple(redfish_parts.disk(d) for d in devices if not redfish_parts.absent(d))


def power_supplies(read: Collections, system: Doc) -> Found:
    chassis = yield from read.docs(system.links("Links", "Chassis"))
    subsystems = yield from read.docs([c.link("PowerSubsystem") for c in chassis if c.link("PowerSubsystem")])
    collections = [d.link("PowerSupplies") for d in subsystems if d.link("PowerSupplies")]
    if collections:
        found: list[Component] = []
        for uri in collections:
            found += yield from read.parsed(uri, present(redfish_parts.power_supply), kind="PowerSupplies")
        return tuple(found)
    docs = yield from read.docs([c.link("Power") for c in chassis if c.link("Power")])
    old = [d for d in docs if d.has("PowerSupplies")]
    if not old:
        raise BmcUnsupported(f"the chassis of {system.uri} list no power supplies")
    supplies = [Doc(p, d.uri, d.odd) for d in old for p in d.items("PowerSupplies") if isinstance(p, dict)]
    return tuple(redfish_parts.power_supply(p) for p in supplies if not redfish_parts.absent(p))
