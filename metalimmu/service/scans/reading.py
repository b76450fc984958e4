"""The reading side of a scan: which conversation each BMC gets, and what becomes of its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from metalimmu import log
from metalimmu.bmc import registry_places
from metalimmu.bmc.ask import Asking
from metalimmu.bmc.collect.types import Collected
from metalimmu.bmc.walk import Want, walk
from metalimmu.errors import BmcUnsupported, SiteError, StoreError
from metalimmu.observed.remembered import MakeKey, Remembered
from metalimmu.observed.snapshot import Snapshot
from metalimmu.service.scans.judge import COSTLY, Judge, error_text, failed
from metalimmu.service.scans.registries import Key, Registries, key_of

if TYPE_CHECKING:
    from metalimmu.store.scan_protocol import ScanStore
    from metalimmu.store.scan_records import HostScan, Scanned

Host: TypeAlias = Any  # a HostSpec, or a connect.Address with labels: ScanTarget of bmc.collect
Reading: TypeAlias = Collected[Snapshot]
logger = log.get("scan")


class ReadMany(Protocol):
    """Drives the readers of many hosts; results come as they are ready. Closing it ends all conversations."""

    def __call__(
        self, hosts: Collection[Host], reader: Callable[[Host], Asking[Any]]
    ) -> Generator[Collected[Any], None, None]: ...


class Memory:
    """bmc.walk's PathMemory on the store. Written by `save`, so that no BMC waits for a disk."""

    def __init__(self, store: ScanStore) -> None:
        self._store = store
        self._known: dict[MakeKey, Remembered | None] = {}
        self._new: dict[MakeKey, Remembered] = {}

    def get(self, key: MakeKey) -> Remembered | None:
        if key not in self._known:
            try:
                self._known[key] = self._store.remembered(key)
            except StoreError as exc:
                logger.warning("what was learnt of %s cannot be read: %s", key.model, exc)
                self._known[key] = None
        return self._known[key]

    def put(self, key: MakeKey, remembered: Remembered) -> None:
        if self._known.get(key) != remembered:
            self._known[key] = self._new[key] = remembered

    def save(self) -> None:
        while self._new:
            self._store.remember(*self._new.popitem())


class Reader:
    """Of one scan: its `walk` runs in the collector's thread, the rest in the caller's."""

    def __init__(self, store: ScanStore, judge: Judge, registries: Registries, *, everything: bool = False) -> None:
        self._judge = judge
        self._registries = registries
        self._everything = everything
        self._memory = Memory(store)
        self._before: dict[str, HostScan] = {h.host: h for h in store.known_hosts()}

    def walk(self, host: Host) -> Asking[Snapshot]:
        """The settings; and where this is the first machine of its kind, its attribute registry."""
        sections = self._judge.sections(host) | (COSTLY if self._everything else frozenset())
        snapshot = yield from walk(host, Want(sections), self._memory, known=self._known(host.name))
        key = self._needs(host, snapshot)
        if key is not None and self._registries.claim(key):
            self._registries.put(key, (yield from registry_places.of(snapshot)))
        return snapshot

    def _known(self, name: str) -> MakeKey | None:
        before = self._before.get(name)
        about = before.about if before else None
        return MakeKey(about.manufacturer, about.model, about.bmc_version) if about and about.bmc_version else None

    def _needs(self, host: Host, snapshot: Snapshot) -> Key | None:
        """The registry that the comparison of this host needs."""
        try:
            return key_of(snapshot) if self._judge.profile(host, snapshot.identity) else None
        except SiteError:
            return None

    def waits_for(self, reading: Reading) -> Key | None:
        """The registry that is still on its way."""
        key = None if reading.value is None else self._needs(reading.target, reading.value)
        return key if key is not None and not self._registries.known(key) else None

    def judged(self, reading: Reading) -> Scanned:
        snapshot, host = reading.value, reading.target
        requests, seconds = reading.requests, reading.seconds
        if snapshot is None or (reading.failure is not None and not snapshot.settings):
            failure = reading.failure or BmcUnsupported(f"{host.bmc} was not read")
            return failed(host.name, failure, at=reading.at, requests=requests, seconds=seconds)
        known = self._before.get(host.name)
        return self._judge.scanned(
            host,
            snapshot,
            before=known.about if known else None,
            registry=self._registries.get(key_of(snapshot)),
            failure=error_text(reading.failure, reading.at) if reading.failure else None,
            requests=requests,
            seconds=seconds,
        )

    def save(self) -> None:
        """What was learnt, into the store."""
        self._memory.save()
        self._registries.save()
