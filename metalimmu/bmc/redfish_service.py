"""The service behind one address: its root, its managers, and the one system that is this host."""

from __future__ import annotations

import re
import time
from typing import TypeVar

from metalimmu.bmc import quirks, uris
from metalimmu.bmc.ask import Ask, Asking, Reply, drive
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.document import Doc
from metalimmu.bmc.quirks import Quirks
from metalimmu.bmc.tree import ROOT, Tree
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError, BmcNotPermitted, BmcUnsupported
from metalimmu.observed.types import Reason, SystemIdentity, Unknown
from metalimmu.plan.identity import PLACEHOLDERS

RESET = "#ComputerSystem.Reset"
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")


T = TypeVar("T")


class Service:
    """Remembers what cannot change while we are connected: which system, which quirks. Its methods are readers."""

    def __init__(self, where: str, wanted: str | None) -> None:
        self._where = where
        self._wanted = wanted
        self._uri: str | None = None
        self._make: tuple[str, str] | None = None
        self._quirks: Quirks | None = None
        self.systems: tuple[str, ...] = ()

    def expect(self, uri: str | None, make: tuple[str, str] | None = None) -> None:
        """The system is said to be there, and to be of that make: on a machine of its kind it was. None: nothing is said."""
        self._uri, self._make = uri, make

    def system(self, tree: Tree) -> Asking[Doc]:
        """Raises BmcError; BmcUnsupported when there is none, or no way to tell which."""
        if self._uri is None:
            self._uri = yield from self._choose(tree)
        return (yield from tree.read(self._uri))

    def managers(self, tree: Tree) -> Asking[list[Doc]]:
        """The managers of this host's system, or all. Unreadable ones are left out; raises BmcError if none is left."""
        return (yield from readable(tree, (yield from self._managers(tree))))

    def manager(self, tree: Tree) -> Asking[Doc]:
        """The first of them that is there. Raises BmcError when it cannot be read now: the next one would say other things
        of itself (GB200 has three), which must not look like changes; BmcUnsupported when there is none.
        """
        for uri in (yield from self._managers(tree)):
            try:
                return (yield from tree.read(uri))
            except (BmcUnsupported, BmcNotPermitted):
                continue
        raise BmcUnsupported("the service has no manager")

    def _managers(self, tree: Tree) -> Asking[tuple[str, ...]]:
        try:
            found = (yield from self.system(tree)).links("Links", "ManagedBy")
        except BmcUnsupported:  # which system cannot be told; whose BMC this is still can
            found = ()
        if not found:
            collection = (yield from tree.read(ROOT)).link("Managers")
            found = (yield from tree.members(collection)) if collection else ()
        return found

    def quirks(self, tree: Tree) -> Asking[Quirks]:
        if self._quirks is None:
            vendor, model = yield from self.make(tree)
            firmware = ""
            if quirks.needs_firmware(vendor, model):
                firmware = next((m.text("FirmwareVersion") for m in (yield from self.managers(tree))), "")
            self._quirks = quirks.find(vendor, model, firmware)
        return self._quirks

    def make(self, tree: Tree) -> Asking[tuple[str, str]]:
        """(vendor, model). GB200's host system says neither who made it nor what it is; its service root does."""
        if self._make is not None:
            return self._make
        system = yield from self.system(tree)
        vendor, model = system.text("Manufacturer"), system.text("Model")
        if not vendor or not model:
            root = yield from tree.read(ROOT)
            vendor, model = vendor or root.text("Vendor"), model or root.text("Product")
        return vendor, model

    def identity(self, tree: Tree, *, nics: bool = True) -> Asking[SystemIdentity]:
        """Without `nics` their addresses are Unknown: each costs a request."""
        system = yield from self.system(tree)
        vendor, model = yield from self.make(tree)
        serial = system.text((yield from self.quirks(tree)).serial_from) or system.text("SerialNumber")
        macs: tuple[str, ...] | Unknown = Unknown(Reason.not_read, "the interfaces were not asked for", system.uri)
        if nics:
            macs = yield from self._macs(tree, system)
        return SystemIdentity(
            system_id=system.text("Id") or uris.last(system.uri),
            uri=system.uri,
            manufacturer=vendor,
            model=model,
            serial="" if serial.lower() in PLACEHOLDERS else serial,
            sku=system.text("SKU"),
            uuid=system.text("UUID").lower(),
            bios_version=system.text("BiosVersion"),
            hostname=system.text("HostName"),
            asset_tag=system.text("AssetTag"),
            nics=macs,
        )

    def _macs(self, tree: Tree, system: Doc) -> Asking[tuple[str, ...] | Unknown]:
        uri = system.link("EthernetInterfaces")
        if not uri:
            return Unknown(Reason.not_modelled, "the system has no EthernetInterfaces", system.uri)
        try:
            found = [mac(doc) for doc in (yield from readable(tree, (yield from tree.members(uri))))]
        except BmcError as exc:
            return unknown(exc, uri)
        return tuple(dict.fromkeys(m for m in found if m))

    def _choose(self, tree: Tree) -> Asking[str]:
        root = yield from tree.read(ROOT)
        members = yield from tree.members(root.link("Systems") or f"{ROOT}Systems")
        self.systems = tuple(uris.last(m) for m in members)
        named = ", ".join(self.systems) or "none"
        if self._wanted:
            found = [m for m in members if uris.last(m).casefold() == self._wanted.casefold()]
            if len(found) != 1:
                raise BmcUnsupported(
                    f"{self._where} has no system {self._wanted!r}; it has {named}",
                    hint="correct `system:` in the host document",
                )
            return found[0]
        if len(members) <= 1:
            if not members:
                raise BmcUnsupported(f"{self._where} lists no system")
            return members[0]
        # GB200: the host, and HGX_Baseboard_0 which is its GPU board and has neither BIOS nor a power switch.
        real: list[str] = []
        trouble: BmcError | None = None
        for member in members:
            try:
                doc = yield from tree.read(member)
            except BmcError as exc:
                trouble = trouble if isinstance(exc, BmcUnsupported) else trouble or exc
                continue
            if doc.link("Bios") and doc.has("Actions", RESET, "target"):
                real.append(doc.uri)
        if not real and trouble is not None:  # it may be the one that cannot be read now
            raise trouble
        if len(real) != 1:
            raise BmcUnsupported(
                f"{self._where} has several systems ({named}), and which is this host cannot be told",
                hint="name it in the host document, `system: ID`",
            )
        return real[0]


def mac(interface: Doc) -> str:
    """Lower case with colons; empty when it has none."""
    text = (interface.text("PermanentMACAddress") or interface.text("MACAddress")).lower().replace("-", ":")
    return text if _MAC.match(text) and text != "00:00:00:00:00:00" else ""


def readable(tree: Tree, found: tuple[str, ...]) -> Asking[list[Doc]]:
    """Those that can be read; one bad member must not lose the others. Raises when there are some and none can."""
    docs: list[Doc] = []
    trouble: BmcError | None = None
    for uri in found:
        try:
            docs.append((yield from tree.read(uri)))
        except BmcError as exc:
            trouble = exc
    if trouble is not None and not docs:
        raise trouble
    return docs


class Connected(Service):
    """A service over a blocking connector: `tree = service.tree()`, `system = service.run(service.system(tree))`."""

    def __init__(self, connector: Connector, wanted: str | None) -> None:
        super().__init__(connector.base, wanted)
        self.connector = connector

    def tree(self) -> Tree:
        """A fresh view of the BMC: what one tree has read it does not read again."""
        return Tree()

    def run(self, reader: Asking[T], *, patience: float | None = None) -> T:
        """Raises what the reader raises."""
        return drive(reader, lambda ask: fetch(self.connector, ask, patience=patience))


def fetch(connector: Connector, ask: Ask, *, patience: float | None = None) -> Reply:
    """One answer, with what went wrong inside it."""
    try:
        answer = connector.get(ask.path, patience=patience)
    except BmcError as exc:
        return Reply(0, error=exc)
    return Reply(answer.status_code, answer.headers, answer.content, uri=answer.url, at=time.time())
