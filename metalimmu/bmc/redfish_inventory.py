"""All that can be read of one machine. Never raises: what cannot be read is Unknown and says why.

The recordings of real BMCs have null collections, hundreds of dangling links, truncated files, members without an
id: one bad member goes to `gaps` and the others are kept.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from metalimmu.bmc import redfish_boot, redfish_hardware, redfish_media, redfish_parts
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.collection import Collections
from metalimmu.bmc.document import LONGEST_LIST, Doc
from metalimmu.bmc.redfish_service import Connected, Service
from metalimmu.bmc.tree import ROOT, Tree
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcBroken, BmcUnsupported
from metalimmu.observed.types import BootOverride, Component, Inventory, PowerState, Reason, Unknown

T = TypeVar("T")
Bios = dict[str, str | int | float | bool | None]
MOST_GAPS = 1000
PATIENCE = 5.0


def inventory(service: Connected, driver: str) -> Inventory:
    before = service.connector.requests
    patience = min(PATIENCE, service.connector.patience)
    found = service.run(_inventory(service, service.tree(), driver), patience=patience)
    return msgspec.structs.replace(found, requests=service.connector.requests - before)


def _inventory(service: Service, tree: Tree, driver: str) -> Asking[Inventory]:
    gaps: list[Unknown] = []
    read = Collections(tree, gaps)
    system = yield from attempt("system", service.system(tree))

    def part(reader: Asking[T]) -> Asking[T | Unknown]:
        if isinstance(system, Unknown):
            reader.close()
            return system
        return (yield from attempt(system.uri, reader))

    doc = Doc({}, ROOT) if isinstance(system, Unknown) else system
    found = Inventory(
        driver=driver,
        identity=(yield from part(service.identity(tree))),
        power=(yield from part(_power(doc))),
        boot=(yield from part(_boot(service, tree, doc))),
        media=(yield from part(redfish_media.media(service, tree, gaps))),
        processors=(yield from part(redfish_hardware.processors(read, doc))),
        memory=(yield from part(redfish_hardware.memory(read, doc))),
        disks=(yield from part(redfish_hardware.disks(read, doc))),
        nics=(yield from part(redfish_hardware.nics(read, doc))),
        firmware=(yield from attempt("firmware", _firmware(read))),
        bios=(yield from part(_bios(tree, doc))),
        power_supplies=(yield from part(redfish_hardware.power_supplies(read, doc))),
        bmc=(yield from attempt("bmc", _bmc(service, tree))),
    )
    gaps += [Unknown(Reason.broken, odd, d.uri) for d in tree.documents() if d.odd for odd in dict.fromkeys(d.odd)]
    return msgspec.structs.replace(found, systems=service.systems, gaps=tuple(gaps[:MOST_GAPS]))


def attempt(what: str, reader: Asking[T]) -> Asking[T | Unknown]:
    """What `reader` returns, or why it cannot."""
    try:
        return (yield from reader)
    except Exception as exc:  # noqa: BLE001  an odd answer must cost one part, not the walk
        return unknown(exc, what)


def _power(system: Doc) -> Asking[PowerState]:
    return redfish_boot.power_state(system)
    yield  # a reader that asks nothing


def _boot(service: Service, tree: Tree, system: Doc) -> Asking[BootOverride]:
    return redfish_boot.boot_override(system, (yield from service.quirks(tree)))


def _firmware(read: Collections) -> Asking[tuple[Component, ...]]:
    uri = (yield from read.tree.read(ROOT)).link("UpdateService")
    if not uri:
        raise BmcUnsupported("the service has no UpdateService")
    # Absent ones too (four on GB200): an item that is gone is a finding, not a gap in the list.
    owner = yield from read.tree.read(uri)
    return (yield from redfish_hardware.linked(read, owner, "FirmwareInventory", redfish_parts.firmware))


def _bios(tree: Tree, system: Doc) -> Asking[Bios | Unknown]:
    uri = system.link("Bios")
    if not uri:
        raise BmcUnsupported(f"{system.uri} has no Bios")
    found = attributes((yield from tree.read(uri)), system)
    return found if isinstance(found, Unknown) else {name: scalar(value) for name, value in found.items()}


def attributes(bios: Doc, system: Doc) -> dict[str, Any] | Unknown:
    """Of a Bios resource, as they were sent. Raises BmcBroken when there are none though the host is on."""
    found = bios.part("Attributes").data
    if not found:
        if redfish_boot.power_state(system) is PowerState.off:
            return Unknown(Reason.off, "no Attributes while the host is off", bios.uri)
        raise BmcBroken(f"{bios.uri}: no Attributes, though the host is on")
    return found if len(found) <= LONGEST_LIST else dict(list(found.items())[:LONGEST_LIST])


def scalar(value: object) -> str | int | float | bool | None:
    """Some makes have whole objects as values."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return msgspec.json.encode(value).decode()


def _bmc(service: Service, tree: Tree) -> Asking[dict[str, str]]:
    root = yield from tree.read(ROOT)
    manager = next(iter((yield from service.managers(tree))), Doc({}, ROOT))
    return about_bmc(root, manager)


def about_bmc(root: Doc, manager: Doc) -> dict[str, str]:
    """Inventory.bmc, from the service root and the manager."""
    found = {
        "model": manager.text("Model"),
        "firmware": manager.text("FirmwareVersion"),
        "id": manager.text("Id"),
        "uuid": manager.text("UUID").lower(),
        "redfish": root.text("RedfishVersion"),
        "vendor": root.text("Vendor"),
        "product": root.text("Product"),
    }
    return {k: v for k, v in found.items() if v}
