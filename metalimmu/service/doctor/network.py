"""Ports and addresses: what BMCs and machines must reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from metalimmu.boot.listeners import Listener, plan
from metalimmu.desired.types import SiteDocs, Urls
from metalimmu.errors import UsageError
from metalimmu.service.doctor.check import Check, fail, few, ok, unknown, warn
from metalimmu.service.doctor.probes import Probes

_REMOTE = ("redfish+https", "redfish+http", "redfish-raw+https", "ipmi")


def ports(docs: SiteDocs, probes: Probes, *, pin: str | None, holder: str | None) -> Iterator[Check]:
    """`pin`: of our certificate; `holder`: the process that is the site's worker now, if there is one."""
    try:
        listeners = plan(docs.site.urls, docs.site.listen)
    except UsageError as exc:
        yield fail("port", exc.message, exc.hint)
        return
    for each in listeners:
        yield _port(each, probes, pin, holder)


def _port(each: Listener, probes: Probes, pin: str | None, holder: str | None) -> Check:
    name, where = f"port {each.port}", f"{each.host or 'all addresses'}, port {each.port} ({each.setting})"
    why = probes.listen(each)
    if not why:
        if holder:
            return warn(
                name, f"{where}: free, though {holder} is the site's worker", "look at its log: it should listen there"
            )
        return ok(name, f"{where}: free")
    found = probes.pin(each.host or "127.0.0.1", each.port) if each.tls else None
    if each.tls and pin and found == pin:
        return ok(name, f"{where}: ours, {holder or 'another process of this site'} listens")
    if not each.tls and holder:
        return ok(name, f"{where}: taken while {holder} is the site's worker")
    if found and found != pin:
        why = f"{where}: another metalimmu or TLS server has it (certificate {found[:16]}…)"
    return fail(
        name,
        why,
        f"`ss -ltnp 'sport = :{each.port}'` names the program that has it: stop that, or change {each.setting} in site.yaml",
    )


def addresses(docs: SiteDocs, probes: Probes, *, pin: str | None) -> Iterator[Check]:
    """Each address of `urls`: does it mean anything, is it this machine, does it answer as us, and from where are we seen?"""
    urls = docs.site.urls
    remote = sorted({h.bmc for h in docs.hosts.values() if h.bmc.split(":")[0] in _REMOTE})
    bmcs = list(dict.fromkeys(filter(None, (urlsplit(b).hostname for b in remote))))
    machines = [
        h.network.address.split("/")[0] for h in docs.hosts.values() if h.network is not None and h.network.address
    ]
    far = not all(_loopback(b) for b in bmcs)  # BMCs on this very machine are a lab's
    for setting, url in (("bmc", urls.bmc), ("machines", urls.machines), ("chunks", urls.chunks), ("boot", urls.boot)):
        if url:
            yield from _url(f"urls.{setting}", url, probes, pin if setting == "machines" else None, far=far)
    yield from _seen("BMCs", "urls.bmc", urls.bmc, bmcs, probes, proxied=bool(docs.site.bmc.proxy))
    yield from _seen("machines", "urls.machines", urls.machines, machines, probes)
    yield from _names(urls, probes, far=far)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(name: str, url: str, probes: Probes, pin: str | None, *, far: bool) -> Iterator[Check]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found = probes.addresses(host)
    if not found:
        yield fail(name, f"{host} means no address", "correct the name in site.yaml, or the DNS")
        return
    if far and all(ipaddress.ip_address(a.split("%")[0]).is_loopback for a in found):
        yield fail(
            name,
            f"{host} is this machine's own loopback: nobody else can reach it",
            "write the address by which BMCs and machines see this controller",
        )
        return
    ours = [a for a in found if probes.is_ours(a)]
    answer = probes.pin(host, port) if pin else None
    if answer and pin and answer != pin:
        yield fail(
            name,
            f"{host}:{port} answers with another certificate ({answer[:16]}…) than ours",
            "another controller has this address: an old one after a restore? Stop it, or correct the address or the NAT",
        )
    elif ours:
        yield ok(name, f"{host} is this machine" + (f" ({few(ours)})" if ours != [host] else ""))
    elif answer and answer == pin:
        yield ok(name, f"{host}:{port} leads to us")
    else:
        yield warn(
            name,
            f"{host} is no address of this machine" + (f" ({few(found)})" if found != [host] else ""),
            "right behind a NAT, a proxy or a virtual address that is elsewhere now; otherwise correct site.yaml",
        )


def _seen(who: str, name: str, url: str, there: list[str], probes: Probes, *, proxied: bool = False) -> Iterator[Check]:
    """From the route to them: no route is certain, another source address is a hint only."""
    if not there:
        return
    if proxied:
        yield unknown(f"route to {who}", "BMCs are reached through a proxy: whether they reach us is not known")
        return
    wanted = set(probes.addresses(urlsplit(url).hostname or ""))
    lost, other = [], {}
    for host in _one_per_network(there):
        address = next(iter(probes.addresses(host)), None)
        source = probes.source(address) if address else None
        if source is None:
            lost.append(host)
        elif source not in wanted:
            other[source] = host
    if lost:
        yield fail(f"route to {who}", f"no route or no address: {few(lost)}", "look at `ip route` and at the DNS")
    elif other:
        source, host = next(iter(other.items()))
        yield warn(
            f"route to {who}",
            f"this machine talks to {host} from {source}, and {name} says {urlsplit(url).hostname}",
            f"try from there: can {who} reach {name}? Firewalls and one-way routes show only then",
        )
    else:
        yield ok(f"route to {who}", f"they are reached from the address in {name}, so they can answer it")


def _one_per_network(hosts: Iterable[str], most: int = 50) -> list[str]:
    """One of each /24 or /64: ten thousand BMCs are in a few hundred networks."""
    seen: dict[str, str] = {}
    for host in hosts:
        try:
            address = ipaddress.ip_address(host)
            key = str(ipaddress.ip_network((address, 24 if address.version == 4 else 64), strict=False))
        except ValueError:
            key = host.partition(".")[2] or host
        seen.setdefault(key, host)
    return list(seen.values())[:most]


def _names(urls: Urls, probes: Probes, *, far: bool) -> Iterator[Check]:
    host = urlsplit(urls.bmc).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if far and probes.addresses(host):
            yield warn(
                "urls.bmc by name",
                f"BMCs must look up {host}",
                "many BMCs have no DNS server set: an address is safer for urls.bmc",
            )
