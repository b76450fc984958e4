"""Attribute registries, one per make, model and BIOS version: fetched once, kept in the store, shared by all like hosts.

While one host's conversation fetches the registry, readings of like hosts wait for it, compared by nobody: without it a
read-only attribute would look like drift.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Snapshot
from metalimmu.observed.types import Reason, Unknown

if TYPE_CHECKING:
    from metalimmu.store.scan_protocol import ScanStore

T = TypeVar("T")

AGAIN = 10.0
"""Seconds after which another host may fetch what one is still fetching: its BMC may hang."""

TRIES = 3
"""So many BMCs of a kind may fail to tell their registry before a scan compares without: one that is slow or half broken
must not make drift of the read-only attributes of all the others.
"""

_FOR_GOOD = frozenset({Reason.not_modelled})


class Key(msgspec.Struct, frozen=True):
    vendor: str
    model: str
    bios: str


def key_of(snapshot: Snapshot) -> Key | None:
    """None: there is no BIOS to have a registry of, or nobody knows whose."""
    identity = snapshot.identity
    if isinstance(identity, Unknown) or not any(name.startswith("bios.") for name in snapshot.settings):
        return None
    return Key(identity.manufacturer, identity.model, identity.bios_version)


class Registries:
    """For one scan. Used by the reading side (`claim`, `put`) and the judging side (`known`, `get`), in several threads."""

    def __init__(self, store: ScanStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._found: dict[Key, Registry | Unknown | None] = {}
        self._claimed: dict[Key, float] = {}
        self._failed: dict[Key, int] = {}
        self._new: dict[Key, Registry | Unknown] = {}

    def known(self, key: Key) -> bool:
        """Fetched, or known not to be there. Such an Unknown is for good only where the BMC has none."""
        if key not in self._found:
            kept = self._store.registry(key.vendor, key.model, key.bios)
            if kept is None or (isinstance(kept, Unknown) and kept.reason not in _FOR_GOOD):
                return False
            self._found[key] = kept
        return True

    def get(self, key: Key | None) -> Registry | None:
        found = self._found.get(key) if key else None
        return found if isinstance(found, Registry) else None

    def claim(self, key: Key) -> bool:
        """True for the one that is to fetch it now."""
        if self.known(key):
            return False
        now = self._clock()
        last = self._claimed.get(key)
        if last is not None and now - last < AGAIN:
            return False
        self._claimed[key] = now
        return True

    def put(self, key: Key, registry: Registry | Unknown) -> None:
        """What `TRIES` BMCs could not tell is unknown in this scan; the next one asks again."""
        if isinstance(self._found.get(key), Registry):
            return
        if isinstance(registry, Unknown) and registry.reason not in _FOR_GOOD:
            self._failed[key] = self._failed.get(key, 0) + 1
            self._claimed.pop(key, None)
            if self._failed[key] < TRIES:
                return
        self._found[key] = registry
        if isinstance(registry, Registry) or registry.reason in _FOR_GOOD:
            self._new[key] = registry

    def save(self) -> None:
        """Into the store; not by `put`, so that no BMC waits for a disk."""
        while self._new:
            key, registry = self._new.popitem()
            self._store.keep_registry(key.vendor, key.model, key.bios, registry)


class Waiting(Generic[T]):
    """Readings whose registry is on its way."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._waiting: dict[Key, list[T]] = {}

    def hold(self, key: Key, item: T) -> None:
        self._waiting.setdefault(key, []).append(item)

    def ready(self) -> Iterator[T]:
        """Those whose registry has come meanwhile."""
        for key in [k for k in self._waiting if self._registries.known(k)]:
            yield from self._waiting.pop(key)

    def rest(self) -> Iterator[T]:
        """All: nobody is fetching any more."""
        for key in list(self._waiting):
            yield from self._waiting.pop(key)
