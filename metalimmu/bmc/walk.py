"""The walk over one BMC: a generator that asks for the fewest resources and returns a Snapshot. No sockets in here.

::

    snapshot = drive(walk(host, Want(), memory), fetch)         # blocking, with any fetch(Ask) -> Reply

Requests that it takes (recordings, see tests/conformance/test_snapshots.py): cold, the root and the way to each resource;
with a memory of the make, each resource at once; where `$expand` was found right, a collection in one answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from metalimmu.bmc import (
    places,
    redfish_boot,
    snapshot_bios,
    snapshot_bmc,
    snapshot_boot,
    snapshot_firmware,
    snapshot_hardware,
    uris,
)
from metalimmu.bmc.ask import Ask, Asking, Reply, drive
from metalimmu.bmc.document import Doc
from metalimmu.bmc.firmware_rules import agree
from metalimmu.bmc.reading import Reading
from metalimmu.bmc.redfish_inventory import about_bmc, attempt
from metalimmu.bmc.redfish_service import Service
from metalimmu.bmc.tree import ROOT
from metalimmu.bmc.unknown import unknown
from metalimmu.bmc.wanted import EVERYTHING, PathMemory, Target, Want
from metalimmu.errors import BmcError, BmcUnsupported
from metalimmu.observed.remembered import MakeKey, Remembered
from metalimmu.observed.snapshot import SECTIONS, Snapshot
from metalimmu.observed.types import PowerState, Reason, SystemIdentity, Unknown

__all__ = [
    "EVERYTHING",
    "Ask",
    "Asking",
    "MakeKey",
    "PathMemory",
    "Remembered",
    "Reply",
    "Target",
    "Want",
    "drive",
    "walk",
]

NOT_READ = Unknown(Reason.not_read, "this reading did not ask for it")
EXPANDS = "expands"


_READERS: tuple[tuple[str, Callable[[Reading], Asking[None]]], ...] = (
    ("bios", snapshot_bios.read),
    ("pending", snapshot_bios.pending),
    ("firmware", snapshot_firmware.read),
    ("boot", snapshot_boot.read),
    ("secure_boot", snapshot_boot.secure_boot),
    ("bmc", snapshot_bmc.read),
    ("hardware", snapshot_hardware.read),
    ("cabling", snapshot_hardware.cabling),
)


def walk(
    target: Target,
    want: Want | None = None,
    memory: PathMemory | None = None,
    *,
    known: MakeKey | None = None,
    now: Callable[[], float] = time.time,
) -> Asking[Snapshot]:
    """Reads one BMC. `known` is what the host was when it was read last (`make_of` of that Snapshot): with it and a memory
    of that make the walk begins at the system itself. Never raises for what a BMC answers.
    """
    began = now()
    walking = _Walk(target, want or Want(), memory, known)
    try:
        found = yield from walking.run()
    finally:
        walking.reading.tree.close()
    return msgspec.structs.replace(found, at=began, seconds=now() - began)


def make_of(snapshot: Snapshot) -> MakeKey | None:
    """The key under which what was learnt of this machine is remembered."""
    if isinstance(snapshot.identity, Unknown) or isinstance(snapshot.bmc, Unknown) or not snapshot.bmc.get("firmware"):
        return None
    return MakeKey(snapshot.identity.manufacturer, snapshot.identity.model, snapshot.bmc["firmware"])


def _merged(others: Remembered | None, mine: Remembered) -> Remembered:
    """What other walks over the same make have learnt meanwhile stays. One that saw `$expand` wrong, or a path to differ,
    is right.
    """
    if others is None:
        return mine
    paths = others.paths | mine.paths | {name: "" for name, uri in others.paths.items() if not uri}
    expand = others.expand | mine.expand | {kind: False for kind, right in others.expand.items() if not right}
    return Remembered(paths=paths, expand=expand, root=others.root | mine.root)


class _Walk:
    def __init__(self, target: Target, want: Want, memory: PathMemory | None, known: MakeKey | None) -> None:
        self.target = target
        self.want = want
        self.memory = memory
        self.key: MakeKey | None = None
        self.known = known
        self.learnt = Remembered()
        self.root: dict[str, str] = {}
        self.identity: SystemIdentity | Unknown = NOT_READ
        self.reading = Reading(Service(target.name, target.system), want)

    def run(self) -> Asking[Snapshot]:
        reading = self.reading
        if not (yield from self._resume()):
            yield from self._begin()
        yield from self._identify()
        for name, read in _READERS:
            if reading.wants(name) and not self._nameless(name):
                yield from reading.section(name, read(reading))
                if name == "firmware" and not isinstance(reading.manager, Doc):
                    yield from self._confirm()
        self._remember()
        return self._snapshot()

    # whose BMC is this

    def _resume(self) -> Asking[bool]:
        """Begin where the last reading of a machine of this make began. False: that does not fit this one."""
        if self.known is None or self.memory is None:
            return False
        learnt = self.memory.get(self.known)
        uri = learnt.paths.get("system", "") if learnt else ""
        named = self.target.system
        if learnt is None or not uri or (named and uris.last(uri).casefold() != named.casefold()):
            return False
        reading = self.reading
        reading.service.expect(uri)
        try:
            system = yield from reading.service.system(reading.tree)
        except BmcUnsupported:
            reading.service.expect(None)
            return False
        except BmcError as exc:  # it is there and cannot be read: another way to it would not help
            reading.system = reading.manager = unknown(exc, uri)
            return True
        vendor = system.text("Manufacturer") or learnt.root.get("vendor", "")
        model = system.text("Model") or learnt.root.get("product", "")
        if (vendor, model) != (self.known.vendor, self.known.model):
            reading.service.expect(None)
            return False
        reading.service.expect(uri, (vendor, model))
        reading.system = system
        self.key = self.known
        self._learn(learnt)
        if reading.wants("bmc") or not reading.wants("firmware"):
            yield from self._manager()
            yield from self._rekey()
        return True

    def _begin(self) -> Asking[None]:
        """From the service root."""
        reading = self.reading
        reading.system = yield from attempt("system", reading.service.system(reading.tree))
        root = yield from attempt(ROOT, reading.tree.read(ROOT))
        if isinstance(root, Doc):
            self.root = about_bmc(root, Doc({}, ROOT))
            expand = root.part("ProtocolFeaturesSupported", "ExpandQuery")
            if expand.flag("Levels") and expand.flag("NoLinks"):
                self.root[EXPANDS] = "levels"
        yield from self._manager()
        yield from self._rekey()

    def _manager(self) -> Asking[None]:
        reading = self.reading
        reading.manager = yield from attempt("manager", reading.service.manager(reading.tree))
        if isinstance(reading.manager, Doc):
            reading.manager_at = reading.at

    def _rekey(self) -> Asking[None]:
        """Now vendor, model and firmware are known for certain: what was learnt of them?"""
        reading = self.reading
        make = yield from attempt("make", reading.service.make(reading.tree))
        firmware = reading.manager.text("FirmwareVersion") if isinstance(reading.manager, Doc) else ""
        key = None if isinstance(make, Unknown) or not firmware else MakeKey(*make, firmware)
        if key != self.key:
            self.key = key
            self._learn((self.memory.get(key) if self.memory and key else None) or Remembered())
        else:
            self._learn(self.learnt)

    def _learn(self, learnt: Remembered) -> None:
        self.learnt = learnt
        self.root = self.root or dict(learnt.root)
        self.reading.learn(learnt)
        # Without a memory each walk would compare anew, which costs more than it saves.
        self.reading.collections.expansion.offered = (
            self.want.expand and self.memory is not None and EXPANDS in self.root
        )

    def _confirm(self) -> Asking[None]:
        """The manager was not asked, so the firmware inventory must say whether the BMC's firmware is still the one whose
        `$expand` was found right. If not, it is read again with what is known of the new one.
        """
        reading = self.reading
        found = () if isinstance(reading.firmware, Unknown) else reading.firmware
        mine = next((i for i in found if i.key == "bmc" and i.running), None)
        if mine and self.key and agree(mine.component.version, self.key.firmware):
            return
        yield from self._manager()
        before = self.key
        yield from self._rekey()
        if self.key == before:
            snapshot_firmware.tell(reading)
        else:
            reading.unknown.pop("firmware", None)
            yield from reading.section("firmware", snapshot_firmware.read(reading))

    def _identify(self) -> Asking[None]:
        reading = self.reading
        if isinstance(reading.system, Unknown):
            self.identity = reading.system
            vendor = self.root.get("vendor", "")
        else:
            identity = reading.service.identity(reading.tree, nics=False)
            self.identity = yield from attempt(reading.system.uri, identity)
            vendor = "" if isinstance(self.identity, Unknown) else self.identity.manufacturer
        reading.vendor = vendor
        reading.places = places.find(vendor)
        if not isinstance(self.identity, Unknown):
            mine = self.identity
            reading.own(mine.serial, mine.sku, mine.uuid, mine.asset_tag, mine.hostname)
            if not self.target.system:
                known = reading.paths.get("system")
                if known and not uris.same(known, mine.uri):
                    reading.paths["system"] = ""
                reading.keep("system", mine.uri)

    def _nameless(self, section: str) -> bool:
        """Where the make is not known, neither is where it keeps things and how it names them: nothing can be said."""
        reading = self.reading
        if reading.vendor or isinstance(reading.system, Doc):
            return False
        reading.unknown[section] = reading.system
        if section == "pending":
            reading.jobs = reading.system
        elif section == "firmware":
            reading.firmware = reading.system
        return True

    # the end

    def _remember(self) -> None:
        reading = self.reading
        if self.memory is None or self.key is None:
            return
        learnt = Remembered(paths=reading.paths, expand=reading.collections.expansion.right, root=self.root)
        if learnt != self.learnt:
            self.memory.put(self.key, _merged(self.memory.get(self.key), learnt))

    def _snapshot(self) -> Snapshot:
        reading = self.reading
        self._note_gaps()
        power: PowerState | Unknown = NOT_READ
        if isinstance(reading.system, Unknown):
            power = reading.system
        else:
            try:
                power = redfish_boot.power_state(reading.system)
            except BmcError as exc:
                power = unknown(exc)
            if health := snapshot_hardware.health(reading.system):
                reading.set("hardware.health", health, reading.system.uri)
            self._say_nics()
        for name in SECTIONS:
            if not reading.wants(name):
                reading.unknown[name] = NOT_READ
        if not reading.wants("pending"):
            reading.unknown["pending"] = NOT_READ
            reading.jobs = NOT_READ
        return Snapshot(
            host=self.target.name,
            at=0.0,
            identity=self.identity,
            bmc=self._bmc(),
            power=power,
            settings=reading.settings,
            unknown=reading.unknown,
            staged=reading.staged,
            waiting=reading.waiting,
            jobs=reading.jobs,
            firmware=reading.firmware if reading.wants("firmware") else NOT_READ,
            sources=reading.sources,
            registry=reading.registry,
            notes=tuple(reading.notes),
            requests=reading.tree.requests,
        )

    def _say_nics(self) -> None:
        """The hardware section reads the interfaces; the identity need not do it again."""
        macs = self.reading.settings.get("hardware.nics.macs")
        why = self.reading.unknown.get("hardware.nics")
        if isinstance(self.identity, SystemIdentity) and self.reading.wants("hardware"):
            nics = tuple(str(m) for m in macs) if isinstance(macs, tuple) else why or self.identity.nics
            self.identity = msgspec.structs.replace(self.identity, nics=nics)

    def _bmc(self) -> dict[str, str] | Unknown:
        manager = self.reading.manager
        root = {k: v for k, v in self.root.items() if k != EXPANDS}
        if isinstance(manager, Doc):
            return about_bmc(Doc({}, ROOT), manager) | root
        if self.key is not None:
            return {"firmware": self.key.firmware} | root
        return root or manager

    def _note_gaps(self) -> None:
        """Fields of wrong types are few and tell that an answer was odd; each is said once."""
        reading = self.reading
        odd = [f"{d.uri}: {o}" for d in reading.tree.documents() if d.odd for o in dict.fromkeys(d.odd)]
        for text in odd[:5]:
            reading.note(text)
        if len(odd) > 5:
            reading.note(f"{len(odd) - 5} more fields have values of a wrong type")
