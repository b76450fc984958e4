"""Machines that profiles are checked against or captured from: a recording, what the last scan left, or the BMC now."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from metalimmu import log
from metalimmu.bmc.ask import Asking, drive
from metalimmu.bmc.registry_places import of
from metalimmu.bmc.walk import EVERYTHING, Want, walk
from metalimmu.errors import BmcError, BmcUnreachable, NotFound
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Scalar, Snapshot
from metalimmu.observed.types import Reason, SystemIdentity, Unknown
from metalimmu.plan.capture import Captured
from metalimmu.service.scans.registries import key_of

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite

logger = log.get("profile")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    snapshot: Snapshot
    registry: Registry | Unknown

    @property
    def name(self) -> str:
        return self.snapshot.host

    @property
    def make(self) -> str:
        identity = self.snapshot.identity
        return "" if isinstance(identity, Unknown) else identity.manufacturer

    @property
    def known_registry(self) -> Registry | None:
        return None if isinstance(self.registry, Unknown) else self.registry

    @property
    def attributes(self) -> dict[str, Scalar] | None:
        """Its BIOS attributes; None where it tells none (the host is off): then nothing is known of what is hidden."""
        found = {
            name.partition(".")[2]: value
            for name, value in self.snapshot.settings.items()
            if name.startswith("bios.") and not isinstance(value, tuple)
        }
        return found or None

    @property
    def captured(self) -> Captured:
        identity, bmc = self.snapshot.identity, self.snapshot.bmc
        if isinstance(identity, Unknown):
            identity = SystemIdentity(system_id="", uri="")
        return Captured(
            host=self.snapshot.host,
            at=self.snapshot.at,
            settings=self.snapshot.settings,
            manufacturer=identity.manufacturer,
            model=identity.model,
            bios_version=identity.bios_version,
            bmc_version="" if isinstance(bmc, Unknown) else bmc.get("firmware", ""),
            registry=self.known_registry,
        )


class _Target(msgspec.Struct, frozen=True):
    name: str
    system: str | None = None


def from_recording(path: Path, *, now: float | None = None) -> Machine:
    """Raises UsageError for what is no recording. `now` is when it is said to have been read; by default its file's date."""
    from metalimmu.bmc.recording import Recording

    at = path.stat().st_mtime if now is None and path.exists() else now or time.time()
    recording = Recording.open(path)
    snapshot = drive(walk(_Target(path.stem), EVERYTHING, now=lambda: at), recording.reply)
    return Machine(snapshot=snapshot, registry=drive(of(snapshot), recording.reply))


BIOS = Want(frozenset({"bios"}))
"""Enough to check a profile against the registry: some five requests instead of a hundred."""


def live(site: OpenSite, names: Collection[str], want: Want = EVERYTHING) -> list[Machine]:
    """Read now, writing nothing. Raises NotFound; BmcError for the first that cannot be read."""
    from metalimmu.service.scans.drivers import of_site

    specs = {name: site.spec(name) for name in names}
    found: dict[str, Machine] = {}
    for reading in of_site(site)(list(specs.values()), partial(_read, want)):
        machine = reading.value
        if isinstance(machine, Snapshot):  # by IPMI
            machine = Machine(snapshot=machine, registry=Unknown(Reason.not_modelled, "IPMI has none"))
        if machine is None or not machine.snapshot.settings:
            raise reading.failure or BmcUnreachable(f"{reading.target.name} told nothing")
        found[reading.target.name] = machine
    return [found[name] for name in specs]


def _read(want: Want, host: HostSpec) -> Asking[Machine]:
    snapshot = yield from walk(host, want)
    registry = yield from of(snapshot)
    return Machine(snapshot=snapshot, registry=registry)


TRIES = 3
"""So many machines of a kind are asked for the registry that they share before it is done without."""


def fetch_registries(site: OpenSite, known: Collection[Captured]) -> bool:
    """Into the store, one for all like machines: a scan fetches only those that a profile needs. False: nothing is new."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for one in known:
        key = (one.manufacturer, one.model, one.bios_version)
        if one.has_bios and one.registry is None and not _told(site.store.registry(*key)):
            kinds.setdefault(key, []).append(one.host)
    fetched = [_fetched(site, names[:TRIES]) for names in kinds.values()]
    return any(fetched)


def _told(kept: Registry | Unknown | None) -> bool:
    """It is there, or known to be nowhere."""
    return isinstance(kept, Registry) or (isinstance(kept, Unknown) and kept.reason is Reason.not_modelled)


def _fetched(site: OpenSite, names: Collection[str]) -> bool:
    for name in names:
        try:
            machine = live(site, [name], BIOS)[0]
        except BmcError as exc:
            logger.warning("the attribute registry was not read from %s: %s", name, exc.message)
            continue
        key = key_of(machine.snapshot)
        if key is not None and _told(machine.registry):
            site.store.keep_registry(key.vendor, key.model, key.bios, machine.registry)
            return True
    return False


def stored(site: OpenSite, names: Collection[str]) -> dict[str, Captured]:
    """What the last scan left of these hosts; those that were never read are not in it. Raises NotFound: no such host."""
    for name in names:
        if name not in site.docs.hosts:
            raise NotFound(f"no host {name!r} in this site")
    found: dict[str, Captured] = {}
    kept = cache(site.store.registry)  # like machines share one, and it takes a while to decode
    for host, values in site.store.fleet_values(list(names)):
        if not values:
            continue
        about = host.about
        registry = kept(about.manufacturer, about.model, about.bios_version)
        found[host.host] = Captured(
            host=host.host,
            at=host.read_at or 0.0,
            settings=values,
            manufacturer=about.manufacturer,
            model=about.model,
            bios_version=about.bios_version,
            bmc_version=about.bmc_version,
            registry=registry if isinstance(registry, Registry) else None,
        )
    return found
