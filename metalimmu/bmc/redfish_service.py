"""The service behind one address: its root, its managers, and the one system that is this host."""

from __future__ import annotations

import re

from metalimmu.bmc import quirks, uris
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.document import Doc
from metalimmu.bmc.quirks import Quirks
from metalimmu.bmc.tree import MOST_REQUESTS, ROOT, Tree
from metalimmu.bmc.unknown import unknown
from metalimmu.errors import BmcError, BmcUnsupported
from metalimmu.observed.types import Reason, SystemIdentity, Unknown

RESET = "#ComputerSystem.Reset"
_MAC = re.compile(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")


class Service:
    """Remembers what cannot change while we are connected: which system, which quirks."""

    def __init__(self, connector: Connector, wanted: str | None) -> None:
        self.connector = connector
        self._wanted = wanted
        self._uri: str | None = None
        self._quirks: Quirks | None = None
        self.systems: tuple[str, ...] = ()

    def tree(self, *, limit: int = MOST_REQUESTS, patience: float | None = None) -> Tree:
        return Tree(self.connector, limit=limit, patience=patience)

    def system(self, tree: Tree) -> Doc:
        """Raises BmcError; BmcUnsupported when there is none, or no way to tell which."""
        if self._uri is None:
            self._uri = self._choose(tree)
        return tree.read(self._uri)

    def managers(self, tree: Tree) -> list[Doc]:
        """The managers of this host's system, or all. Unreadable ones are left out; raises BmcError if none is left."""
        try:
            found = self.system(tree).links("Links", "ManagedBy")
        except BmcUnsupported:  # which system cannot be told; whose BMC this is still can
            found = ()
        collection = tree.read(ROOT).link("Managers")
        return _readable(tree, found or (tree.members(collection) if collection else ()))

    def quirks(self, tree: Tree) -> Quirks:
        if self._quirks is None:
            vendor, model = self._make(tree)
            firmware = ""
            if quirks.needs_firmware(vendor, model):
                firmware = next((m.text("FirmwareVersion") for m in self.managers(tree)), "")
            self._quirks = quirks.find(vendor, model, firmware)
        return self._quirks

    def _make(self, tree: Tree) -> tuple[str, str]:
        """GB200's host system says neither who made it nor what it is; its service root does."""
        system, root = self.system(tree), tree.read(ROOT)
        return system.text("Manufacturer") or root.text("Vendor"), system.text("Model") or root.text("Product")

    def identity(self, tree: Tree) -> SystemIdentity:
        system = self.system(tree)
        vendor, model = self._make(tree)
        serial = system.text(self.quirks(tree).serial_from) or system.text("SerialNumber")
        return SystemIdentity(
            system_id=system.text("Id") or uris.last(system.uri),
            uri=system.uri,
            manufacturer=vendor,
            model=model,
            serial="" if serial.lower() in quirks.PLACEHOLDERS else serial,
            sku=system.text("SKU"),
            uuid=system.text("UUID").lower(),
            bios_version=system.text("BiosVersion"),
            hostname=system.text("HostName"),
            asset_tag=system.text("AssetTag"),
            nics=self._macs(tree, system),
        )

    def _macs(self, tree: Tree, system: Doc) -> tuple[str, ...] | Unknown:
        uri = system.link("EthernetInterfaces")
        if not uri:
            return Unknown(Reason.not_modelled, "the system has no EthernetInterfaces", system.uri)
        try:
            found = [mac(doc) for doc in _readable(tree, tree.members(uri))]
        except BmcError as exc:
            return unknown(exc, uri)
        return tuple(dict.fromkeys(m for m in found if m))

    def _choose(self, tree: Tree) -> str:
        members = tree.members(tree.read(ROOT).link("Systems") or f"{ROOT}Systems")
        self.systems = tuple(uris.last(m) for m in members)
        named = ", ".join(self.systems) or "none"
        if self._wanted:
            found = [m for m in members if uris.last(m).casefold() == self._wanted.casefold()]
            if len(found) != 1:
                raise BmcUnsupported(
                    f"{self.connector.base} has no system {self._wanted!r}; it has {named}",
                    hint="correct `system:` in the host document",
                )
            return found[0]
        if len(members) <= 1:
            if not members:
                raise BmcUnsupported(f"{self.connector.base} lists no system")
            return members[0]
        # GB200: the host, and HGX_Baseboard_0 which is its GPU board and has neither BIOS nor a power switch.
        real = [d.uri for d in _readable(tree, members) if d.link("Bios") and d.has("Actions", RESET, "target")]
        if len(real) != 1:
            raise BmcUnsupported(
                f"{self.connector.base} has several systems ({named}), and which is this host cannot be told",
                hint="name it in the host document, `system: ID`",
            )
        return real[0]


def mac(interface: Doc) -> str:
    """Lower case with colons; empty when it has none."""
    text = (interface.text("PermanentMACAddress") or interface.text("MACAddress")).lower().replace("-", ":")
    return text if _MAC.match(text) and text != "00:00:00:00:00:00" else ""


def _readable(tree: Tree, found: tuple[str, ...]) -> list[Doc]:
    """Those that can be read; one bad member must not lose the others. Raises when there are some and none can."""
    docs: list[Doc] = []
    trouble: BmcError | None = None
    for uri in found:
        try:
            docs.append(tree.read(uri))
        except BmcError as exc:
            trouble = exc
    if trouble is not None and not docs:
        raise trouble
    return docs
