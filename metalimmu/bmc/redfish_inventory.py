"""All that can be read of one machine. Never raises: what cannot be read is Unknown and says why.

The recordings of real BMCs have null collections, hundreds of dangling links, truncated files, members without an
id: one bad member goes to `gaps` and the others are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from metalimmu.bmc import redfish_boot, redfish_media, redfish_parts, uris
from metalimmu.bmc.document import LONGEST_LIST, Doc
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import ROOT
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcBroken, BmcUnsupported
from metalimmu.observed.types import Component, Inventory, PowerState, Reason, Unknown

T = TypeVar("T")
Parse = Callable[[Doc], Component]
Bios = dict[str, str | int | float | bool | None]
MOST_GAPS = 1000
PATIENCE = 5.0


def inventory(service: Service, driver: str) -> Inventory:
    return _Walk(service).inventory(driver)


class _Walk:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.tree = service.tree(patience=min(PATIENCE, service.connector.patience))
        self.gaps: list[Unknown] = []

    def inventory(self, driver: str) -> Inventory:
        before = self.service.connector.requests
        system = self._try("system", lambda: self.service.system(self.tree))

        def part(read: Callable[[Doc], T]) -> T | Unknown:
            return system if isinstance(system, Unknown) else self._try(system.uri, lambda: read(system))

        found = Inventory(
            driver=driver,
            identity=part(lambda _: self.service.identity(self.tree)),
            power=part(redfish_boot.power_state),
            boot=part(lambda s: redfish_boot.boot_override(s, self.service.quirks(self.tree))),
            media=part(lambda _: redfish_media.media(self.service, self.tree, self.gaps)),
            processors=part(lambda s: self._linked(s, "Processors", redfish_parts.processor)),
            memory=part(lambda s: self._linked(s, "Memory", redfish_parts.memory)),
            disks=part(self._disks),
            nics=part(lambda s: self._linked(s, "EthernetInterfaces", redfish_parts.nic)),
            firmware=self._try("firmware", self._firmware),
            bios=part(self._bios),
            power_supplies=part(self._power_supplies),
            bmc=self._try("bmc", self._bmc),
        )
        self._note_odd()
        return msgspec.structs.replace(
            found,
            systems=self.service.systems,
            gaps=tuple(self.gaps[:MOST_GAPS]),
            requests=self.service.connector.requests - before,
        )

    def _try(self, what: str, read: Callable[[], T]) -> T | Unknown:
        try:
            return read()
        except Exception as exc:  # noqa: BLE001  an odd answer must cost one part, not the walk
            return unknown(exc, what)

    # collections

    def _linked(self, owner: Doc, name: str, parse: Parse, *, keep_absent: bool = False) -> tuple[Component, ...]:
        uri = owner.link(name)
        if not uri:
            raise BmcUnsupported(f"{owner.uri} has no {name}")
        return self._components(self.tree.members(uri), parse, keep_absent=keep_absent)

    def _components(self, members: Iterable[str], parse: Parse, *, keep_absent: bool = False) -> tuple[Component, ...]:
        """Raises the first trouble when there are members and none can be read."""
        found, trouble, read = [], None, 0
        for uri in members:
            try:
                doc = self.tree.read(uri)
                read += 1
                if keep_absent or not redfish_parts.absent(doc):
                    found.append(parse(doc))
            except Exception as exc:  # noqa: BLE001  as above
                trouble = trouble or exc
                self.gaps.append(unknown(exc, uri))
        if trouble is not None and not read:
            raise trouble
        return tuple(found)

    def _each(self, members: Iterable[str]) -> list[Doc]:
        docs = []
        for uri in members:
            doc = self._try(uri, lambda uri=uri: self.tree.read(uri))  # type: ignore[misc]
            if isinstance(doc, Unknown):
                self.gaps.append(doc)
            else:
                docs.append(doc)
        return docs

    # parts with more than one home

    def _disks(self, system: Doc) -> tuple[Component, ...]:
        if not system.link("Storage"):
            return self._simple_disks(system)
        try:
            members = self.tree.members(system.link("Storage"))
        except BmcUnsupported:  # X10SDV links a Storage that is not there
            return self._simple_disks(system)
        controllers = self._each(members)
        drives = {uris.key(uri): uri for c in controllers for uri in c.links("Drives")}
        return self._components(drives.values(), redfish_parts.disk)

    def _simple_disks(self, system: Doc) -> tuple[Component, ...]:
        """Before Redfish 2016.2: devices inside the controller."""
        if not system.link("SimpleStorage"):
            raise BmcUnsupported(f"{system.uri} has neither Storage nor SimpleStorage")
        controllers = self._each(self.tree.members(system.link("SimpleStorage")))
        devices = [Doc(d, c.uri, c.odd) for c in controllers for d in c.items("Devices") if isinstance(d, dict)]
        return tuple(redfish_parts.disk(d) for d in devices if not redfish_parts.absent(d))

    def _firmware(self) -> tuple[Component, ...]:
        uri = self.tree.read(ROOT).link("UpdateService")
        if not uri:
            raise BmcUnsupported("the service has no UpdateService")
        # Absent ones too (four on GB200): an item that is gone is a finding, not a gap in the list.
        return self._linked(self.tree.read(uri), "FirmwareInventory", redfish_parts.firmware, keep_absent=True)

    def _bios(self, system: Doc) -> Bios | Unknown:
        uri = system.link("Bios")
        if not uri:
            raise BmcUnsupported(f"{system.uri} has no Bios")
        doc = self.tree.read(uri)
        attributes = doc.part("Attributes").data
        if not attributes:
            if redfish_boot.power_state(system) is PowerState.off:
                return Unknown(Reason.off, "no Attributes while the host is off", doc.uri)
            raise BmcBroken(f"{doc.uri}: no Attributes, though the host is on")
        return {str(k): _value(v) for k, v in list(attributes.items())[:LONGEST_LIST]}

    def _power_supplies(self, system: Doc) -> tuple[Component, ...]:
        chassis = self._each(system.links("Links", "Chassis"))
        new = [c.link("PowerSubsystem") for c in chassis if c.link("PowerSubsystem")]
        collections = [d.link("PowerSupplies") for d in self._each(new) if d.link("PowerSupplies")]
        if collections:
            return tuple(
                c for uri in collections for c in self._components(self.tree.members(uri), redfish_parts.power_supply)
            )
        old = [d for d in self._each([c.link("Power") for c in chassis if c.link("Power")]) if d.has("PowerSupplies")]
        if not old:
            raise BmcUnsupported(f"the chassis of {system.uri} list no power supplies")
        supplies = [Doc(p, d.uri, d.odd) for d in old for p in d.items("PowerSupplies") if isinstance(p, dict)]
        return tuple(redfish_parts.power_supply(p) for p in supplies if not redfish_parts.absent(p))

    def _bmc(self) -> dict[str, str]:
        root = self.tree.read(ROOT)
        manager = next(iter(self.service.managers(self.tree)), Doc({}, ROOT))
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

    def _note_odd(self) -> None:
        for doc in self.tree.documents():
            self.gaps += [Unknown(Reason.broken, odd, doc.uri) for odd in dict.fromkeys(doc.odd)]


def _value(value: object) -> str | int | float | bool | None:
    """Some makes have whole objects as values."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return msgspec.json.encode(value).decode()
