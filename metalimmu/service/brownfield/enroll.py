"""Machines that asked the network what to boot and are nobody's, and how one of them becomes a host of the site."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.boot.select import Offer, asker, choose, keys, offer_keys
from metalimmu.desired.known_hosts import host_name
from metalimmu.desired.merge import Candidate, Merged
from metalimmu.desired.resolve import resolve
from metalimmu.desired.types import Host
from metalimmu.errors import IdentityMismatch, NotFound, UsageError
from metalimmu.observed.types import SystemIdentity
from metalimmu.plan.identity import is_serial, is_uuid, same_serial, same_uuid
from metalimmu.service.runs import who
from metalimmu.store.netboot_records import DiscoveredRecord

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

FILE = "hosts/enrolled.yaml"
KEPT = 10_000


@dataclass(frozen=True)
class Enrolled:
    name: str
    merged: Merged
    compared: tuple[str, ...]  # what the BMC and the machine both say: serial number, UUID; empty: nothing


def discovered(site: OpenSite, *, known: bool = False) -> list[dict[str, Any]]:
    """A row for each machine, the newest first; with `known` those of the documents too, with their host."""
    hosts = _Hosts(site)
    rows = []
    for seen in site.store.discovered(limit=KEPT):
        host = hosts.name(seen)
        if host is None or known:
            rows.append({**msgspec.to_builtins(seen), "host": host})
    return rows


class _Hosts:
    """The hosts of the documents, by what tells machines apart."""

    def __init__(self, site: OpenSite) -> None:
        self._offers: dict[str, list[Offer]] = {}
        for name, host in site.docs.hosts.items():
            macs = (*host.nics, *(host.network.nics if host.network else ()))
            nics = tuple(m.lower().replace("-", ":") for m in macs)
            offer = Offer(name, name, nics, _uuid(site, name), host.serial or "")
            for key in offer_keys(offer):
                self._offers.setdefault(key, []).append(offer)

    def name(self, seen: DiscoveredRecord) -> str | None:
        """As a boot would be given: a copied MAC does not make a machine a host."""
        machine = asker(seen.mac, seen.uuid, seen.serial)
        agreeing = {o.host: o for key in keys(machine) for o in self._offers.get(key, ())}
        offer = choose(machine, agreeing.values()).offer
        return offer.host if offer else None


def find(site: OpenSite, machine: str) -> DiscoveredRecord:
    """By MAC, serial number or UUID. Raises NotFound, UsageError where several are meant."""
    mac = asker(machine).mac
    found = [
        d
        for d in site.store.discovered(limit=KEPT)
        if (mac and d.mac == mac) or (d.serial and same_serial(d.serial, machine)) or same_uuid(d.uuid, machine)
    ]
    if not found:
        raise NotFound(
            f"no machine {machine!r} has asked the network what to boot",
            hint="`metalimmu host discovered` lists those that have, by MAC, serial number and UUID",
        )
    if len({(d.serial.casefold(), d.uuid) for d in found}) > 1:
        macs = ", ".join(sorted(d.mac for d in found))
        raise UsageError(f"{machine} is said by several machines: {macs}", hint="name one by its MAC")
    return found[0]


def enroll(
    site: OpenSite,
    machine: str,
    bmc: str,
    *,
    name: str = "",
    role: str | None = None,
    pool: str | None = None,
    credentials: str | None = None,
    check: bool = True,
    target: str = FILE,
) -> Enrolled:
    """Write a host document for it, for review. With `check` its BMC is asked who it is, and written to by nobody.

    Raises NotFound, UsageError, SiteError, BmcError; IdentityMismatch when the BMC is another machine's.
    """
    seen = find(site, machine)
    known = _Hosts(site).name(seen)
    if known:
        raise UsageError(f"{machine} is {known} already", hint=f"`metalimmu host show {known}`")
    fields: dict[str, Any] = {
        "name": name or host_name(seen.serial, f"mac-{seen.mac.replace(':', '')}"),
        "bmc": bmc,
        "serial": seen.serial,
        "nics": [seen.mac] if asker(seen.mac).mac else [],
        "role": role,
        "pool": pool,
        "credentials": credentials,
    }
    fields = {k: v for k, v in fields.items() if v}
    compared: tuple[str, ...] = ()
    if check:
        identity = _ask(site, fields)
        compared = same_machine(seen, identity, bmc)
        if identity.serial and "serial" not in fields:
            fields["serial"] = identity.serial
    from metalimmu.desired.review import review

    day = time.strftime("%Y-%m-%d", time.gmtime(seen.first_seen))
    origin = f"asked what to boot on {day} from {seen.mac} ({seen.vendor} {seen.product})".replace(" ()", "")
    merged = review(site.folder, target, [Candidate(fields, origin)])
    if any(c.kind == "new" for c in merged.changes):
        site.store.forget_discovered(seen.mac)
        site.store.add_event(fields["name"], "enroll", f"enrolled by {who()}: {origin}")
    return Enrolled(fields["name"], merged, compared)


def same_machine(seen: DiscoveredRecord, identity: SystemIdentity, bmc: str) -> tuple[str, ...]:
    """What was compared. Raises IdentityMismatch."""
    compared = []
    for what, ours, theirs, usable, same in (
        ("serial number", seen.serial, identity.serial, is_serial, same_serial),
        ("UUID", seen.uuid, identity.uuid, is_uuid, same_uuid),
    ):
        if usable(ours) and usable(theirs or ""):
            if not same(ours, theirs):
                raise IdentityMismatch(
                    f"the BMC at {bmc} is of a machine with {what} {theirs}, the one that asked has {ours}",
                    hint="correct --bmc: `metalimmu discover` lists BMCs with their serial numbers",
                )
            compared.append(what)
    return tuple(compared)


def _ask(site: OpenSite, fields: dict[str, Any]) -> SystemIdentity:
    host = Host(**{k: v for k, v in fields.items() if k not in ("role", "pool")})
    docs = msgspec.structs.replace(site.docs, hosts={**site.docs.hosts, host.name: host})
    with site.connect(resolve(docs, host.name, root=site.folder), mode="read-only") as bmc:
        return bmc.identity()


def _uuid(site: OpenSite, host: str) -> str:
    """As its BMC has said it, the last time that we looked."""
    seen = site.store.observation(host, "inventory")
    identity = (seen.data.get("identity") if seen else None) or {}
    return str(identity.get("uuid", "")) if isinstance(identity, dict) else ""
