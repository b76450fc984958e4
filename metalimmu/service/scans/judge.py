"""One host's reading against its profile: from a Snapshot to what the store records. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import msgspec

from metalimmu import log
from metalimmu.bmc import passwords
from metalimmu.desired import profiles
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile import Profile, ResolvedProfile
from metalimmu.desired.types import HostSpec
from metalimmu.desired.volatile import volatile
from metalimmu.errors import BmcBroken, MetalimmuError, SiteError
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import SECTIONS, Snapshot, Value
from metalimmu.observed.types import Reason, SystemIdentity, Unknown
from metalimmu.plan.capture import read_only
from metalimmu.plan.compare import compare
from metalimmu.plan.coverage import decided
from metalimmu.plan.types import Finding
from metalimmu.store.records import ErrorText
from metalimmu.store.scan_records import About, Scanned

COSTLY = frozenset({"hardware", "cabling"})
"""Sections that take a request per part: read where a profile asks for them, or somebody who scans does."""
CHEAP = frozenset(SECTIONS) - COSTLY | {"pending"}

_CODES = {
    Reason.not_permitted: "BmcNotPermitted",
    Reason.not_modelled: "BmcUnsupported",
    Reason.broken: "BmcBroken",
    Reason.off: "BmcBroken",
}


class Host(Protocol):
    """What is judged: a HostSpec, or a bare address without a site."""

    @property
    def name(self) -> str: ...


class Judge:
    """Knows the profiles of a site. Keeps each resolved, and which names were left out as noise."""

    def __init__(
        self, profiles_: Mapping[str, Profile], *, more: Callable[[HostSpec], tuple[Finding, ...]] = lambda _: ()
    ) -> None:
        """`more`: findings about a host that no profile asks for; of hosts that a site's documents want something of."""
        self._profiles = profiles_
        self._more = more
        self._resolved: dict[str, ResolvedProfile] = {}
        self._chosen: dict[tuple[str, str, str], str | None] = {}
        self._costly: dict[str | None, frozenset[str]] = {}
        self._by_machine = any(p.match for p in profiles_.values())
        self._noise = volatile()
        self._neutral = neutral()
        self._fixed: dict[int, tuple[Registry, frozenset[str]]] = {}  # with the registry, so that its id stays its own
        self.left_out: set[str] = set()

    def profile(self, host: Host, identity: SystemIdentity | Unknown) -> ResolvedProfile | None:
        """None: no profile is for this host. Raises SiteError: two fit equally well, or it cannot be resolved."""
        if not self._profiles or not isinstance(host, HostSpec):
            return None
        make = (identity.manufacturer, identity.model) if isinstance(identity, SystemIdentity) else ("", "")
        key = (host.name, *make)
        if key not in self._chosen:  # asked for several times in a scan, and hosts may be many
            self._chosen[key] = profiles.select(self._profiles, host, identity)
        name = self._chosen[key]
        return None if name is None else self.resolved(name)

    def resolved(self, name: str) -> ResolvedProfile:
        if name not in self._resolved:
            self._resolved[name] = profiles.resolve(self._profiles, name)
        return self._resolved[name]

    def sections(self, host: Host) -> frozenset[str]:
        """What a scan must read of this host, before it is known which profile it gets."""
        if not isinstance(host, HostSpec):
            return CHEAP
        if host.profile not in self._costly:
            may = [host.profile] if host.profile else [n for n, p in self._profiles.items() if p.match]
            asked = {e.setting.partition(".")[0] for name in may for e in self.resolved(name).expectations}
            self._costly[host.profile] = COSTLY & asked
        return CHEAP | self._costly[host.profile]

    def scanned(
        self,
        host: Host,
        snapshot: Snapshot,
        *,
        before: About | None = None,
        registry: Registry | None = None,
        failure: ErrorText | None = None,
        requests: int = 0,
        seconds: float = 0.0,
    ) -> Scanned:
        """The host as it is recorded. `failure`: why the snapshot is not all of it. Two profiles in conflict for a host are
        its failure: nothing of it is compared. A machine that does not say what it is this time is what it was `before`.
        """
        mine = as_before(snapshot.identity, before)
        try:
            profile = self.profile(host, mine)
        except SiteError as exc:
            return failed(host.name, exc, at=snapshot.at, requests=requests, seconds=seconds)
        if not snapshot.settings:
            return nothing_read(snapshot, requests=requests, seconds=seconds)
        if isinstance(mine, Unknown) and profile is None and self._by_machine:
            why = f"{host.name} does not say what it is, and no profile can be chosen: {mine.detail or mine.reason}"
            failure = failure or error_text(BmcBroken(why), snapshot.at)
        if registry is not None:
            snapshot = passwords.without(snapshot, registry)
        findings = (
            compare(profile, snapshot, neutral=self._neutral, registry=registry, now=snapshot.at) if profile else ()
        )
        kept, free = self._kept(snapshot, registry)
        return Scanned(
            host=host.name,
            at=snapshot.at,
            snapshot=msgspec.structs.replace(snapshot, settings=kept),
            findings=(*findings, *(self._more(host) if isinstance(host, HostSpec) else ())),
            settings=len(free),
            covered=len(free & decided(f.setting for f in findings)),
            failure=failure,
            about=about(snapshot, profile.name if profile else "", identity=mine),
            requests=requests,
            seconds=seconds,
        )

    def _kept(self, snapshot: Snapshot, registry: Registry | None) -> tuple[dict[str, Value], set[str]]:
        """Without what changes by itself; and the names of those that somebody could decide. What tells machines apart is
        kept: a board that was swapped is news.
        """
        vendor = snapshot.identity.manufacturer if isinstance(snapshot.identity, SystemIdentity) else ""
        fixed = self._read_only(registry, snapshot)
        kept, free = {}, set()
        for name, value in snapshot.settings.items():
            kind = self._noise.kind(name, vendor)
            if kind != "volatile":
                kept[name] = value
            if not kind and name not in fixed:
                free.add(name)
        if len(kept) != len(snapshot.settings):
            self.left_out.update(name for name in snapshot.settings if name not in kept)
        return kept, free

    def _read_only(self, registry: Registry | None, snapshot: Snapshot) -> Collection[str]:
        """As the first machine with this registry is set: to follow its dependencies on each costs as much as its scan."""
        if registry is None:
            return ()
        if id(registry) not in self._fixed:
            self._fixed[id(registry)] = (registry, frozenset(read_only(registry, snapshot.settings)))
        return self._fixed[id(registry)][1]


def as_before(identity: SystemIdentity | Unknown, before: About | None) -> SystemIdentity | Unknown:
    """Its system could not be read this time: make and model are what they were."""
    if isinstance(identity, SystemIdentity) or before is None or not (before.manufacturer or before.model):
        return identity
    return SystemIdentity(
        "",
        before.system,
        manufacturer=before.manufacturer,
        model=before.model,
        serial=before.serial,
        bios_version=before.bios_version,
    )


def about(snapshot: Snapshot, profile: str = "", *, identity: SystemIdentity | Unknown | None = None) -> About:
    """`identity` where it is not what the snapshot says."""
    identity = identity or snapshot.identity
    identity = identity if isinstance(identity, SystemIdentity) else SystemIdentity("", "")
    bmc = {} if isinstance(snapshot.bmc, Unknown) else snapshot.bmc
    return About(
        manufacturer=identity.manufacturer,
        model=identity.model,
        generation=bmc.get("model", ""),
        serial=identity.serial,
        bios_version=identity.bios_version,
        bmc_version=bmc.get("firmware", ""),
        system=identity.uri,
        settings=snapshot.sources.get("pending", ""),
        profile=profile,
    )


def failed(host: str, exc: MetalimmuError, *, at: float, requests: int = 0, seconds: float = 0.0) -> Scanned:
    return Scanned(host=host, at=at, failure=error_text(exc, at), requests=requests, seconds=seconds)


def nothing_read(snapshot: Snapshot, *, requests: int = 0, seconds: float = 0.0) -> Scanned:
    """The walk came to an end, and no section had anything in it."""
    parts = [snapshot.identity, snapshot.bmc, *snapshot.unknown.values()]
    why = next((p for p in parts if isinstance(p, Unknown) and p.reason is not Reason.not_read), None)
    reason = why.reason if why else Reason.broken
    message = f"nothing could be read: {why.detail or why.reason}" if why else "the BMC answered, and said nothing"
    failure = ErrorText(code=_CODES.get(reason, "BmcUnreachable"), message=log.redact(message), at=snapshot.at)
    return Scanned(host=snapshot.host, at=snapshot.at, failure=failure, requests=requests, seconds=seconds)


def error_text(exc: MetalimmuError, at: float) -> ErrorText:
    return ErrorText(code=exc.code, message=log.redact(exc.message), hint=log.redact(exc.hint), at=at)
