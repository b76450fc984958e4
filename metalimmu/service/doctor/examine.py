"""All checks of a site, in the order in which one mends them."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import metalimmu
from metalimmu.boot.loaders import Loaders
from metalimmu.desired.units import seconds
from metalimmu.engine import versions
from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import MetalimmuError, SiteError
from metalimmu.service.doctor import machine, netboot, network, state
from metalimmu.service.doctor.check import Check, fail, few, ok, unknown
from metalimmu.service.doctor.probes import Probes, System

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec, SiteDocs
    from metalimmu.service.site import OpenSite

_LIBRARIES = ("sushy", "dbos", "sqlite-utils", "msgspec", "aiohttp", "cryptography")
_BMCS = 50  # whose clocks are compared
GIB = machine.GIB


def examine(site: OpenSite, probes: Probes | None = None) -> Iterator[Check]:
    """Changes nothing: neither site, store nor machine. A check that breaks is `unknown`, and the others go on."""
    probes = probes or System()
    try:
        docs = site.docs
    except SiteError as exc:
        yield fail("documents", f"{exc.message}: {few(list(exc.problems))}", "`metalimmu check` lists every problem")
        return
    counts = (f"{len(n)} {w}{'' if len(n) == 1 else 's'}" for w, n in _nouns(docs).items())
    yield ok("documents", ", ".join(counts))
    yield _mode(docs)
    yield from state.versions(_versions())
    for name, checks in _groups(site, docs, probes):
        try:
            yield from checks
        except (MetalimmuError, OSError, sqlite3.Error) as exc:
            yield unknown(name, f"could not be looked at: {exc}", getattr(exc, "hint", ""))


def _groups(site: OpenSite, docs: SiteDocs, probes: Probes) -> Iterator[tuple[str, Iterator[Check]]]:
    lock = WorkerLock(site.state / "worker.lock")
    free = not (site.state / "worker.lock").exists() or lock.take()
    holder = lock.holder() if not free else ""
    lock.release()
    pin = _pin(site.state / "tls" / "controller.pem")
    yield "permissions", machine.permissions(site.state, os.geteuid())
    yield "store", _databases(site)
    remembered = _remembered(site)
    yield "worker", state.worker(holder, free=free, under_way=remembered["under_way"], probes=probes)
    yield "ports", network.ports(docs, probes, pin=pin, holder=holder or None)
    yield "addresses", network.addresses(docs, probes, pin=pin)
    yield "netboot", netboot.netboot(docs.site.netboot, Loaders(""), probes, holder=holder or None)
    yield "clock", machine.clock(probes, newest_event=remembered["newest"], ahead=remembered["ahead"])
    yield "certificates", machine.certificates(_certificates(site, docs), probes.now())
    images, built = _folder(site, docs.site.images, "images"), _folder(site, docs.site.ramdisks, "ramdisk")
    places = {"state": (site.state, GIB // 2, 2 * GIB), "images": (images, 2 * GIB, 20 * GIB)}
    yield "disks", machine.disks(probes, places)
    specs = _specs(site)
    yield "secrets", state.secrets(_references(docs, specs), lambda ref: _read(ref, site.folder))
    yield "programs", machine.programs(probes, _used(docs, specs))
    wanted = Counter(s.ramdisk for s in specs if s.image and s.kind != "switch")
    yield (
        "ramdisks",
        state.ramdisks({f: _ramdisk(site, f) for f in wanted if (built / f).exists()}, wanted),
    )
    every = seconds(docs.site.backup.every) if docs.site.backup else None
    yield "backup", state.backups(remembered["backup"], every, probes.now())
    yield "restore", state.doubt(remembered["doubted"], remembered["restored_at"], probes.now())


def _nouns(docs: SiteDocs) -> dict[str, dict[str, Any]]:
    return {"host": dict(docs.hosts), "role": dict(docs.roles), "pool": dict(docs.pools)}


def _folder(site: OpenSite, given: str | None, name: str) -> Path:
    """As OpenSite has it, without making anything."""
    return site.folder / Path(given).expanduser() if given else site.state / name


def _mode(docs: SiteDocs) -> Check:
    pools = Counter(p.mode or docs.site.mode for p in docs.pools.values())
    other = [name for name, p in docs.pools.items() if p.mode and p.mode != docs.site.mode]
    said = f"{docs.site.mode}" + (f"; {few(sorted(other))}: {pools and docs.pools[other[0]].mode}" if other else "")
    if docs.site.mode == "read-only" and "read-write" not in pools:
        return ok("mode", f"{said}: nothing is written to any BMC or machine")
    return ok("mode", said)


def _databases(site: OpenSite) -> Iterator[Check]:
    from metalimmu.store.migrations import names

    yield from state.store(site.state / "store.sqlite", names())
    yield from state.engine(site.state / "engine.sqlite", versions.known())


def _remembered(site: OpenSite) -> dict[str, Any]:
    """What the store says; nothing where it cannot be opened as it is, which `_databases` has said then."""
    from metalimmu.service.aftermath import in_doubt
    from metalimmu.store.facts import BACKUP
    from metalimmu.store.migrations import names
    from metalimmu.store.records import RunStatus

    empty: dict[str, Any] = dict(under_way=0, newest=None, ahead=[], backup=None, doubted=[], restored_at=None)  # noqa: C408
    path = site.state / "store.sqlite"
    if not path.exists() or any(c.verdict != "ok" for c in state.store(path, names())):
        return empty
    if any("older" in c.what for c in state.store(path, names())):
        return empty  # opening it would migrate it
    try:
        store = site.store
        events = store.history(limit=1)
        mark = store.restored()
        return {
            "under_way": len(store.runs(status=(RunStatus.running, RunStatus.queued), limit=100_000)),
            "newest": events[-1].at if events else None,
            "ahead": _ahead(site),
            "backup": store.fact(BACKUP),
            "doubted": sorted(h.name for h in store.hosts().values() if in_doubt(h)),
            "restored_at": mark.at if mark else None,
        }
    except MetalimmuError:
        return empty


def _ahead(site: OpenSite) -> list[float]:
    """Seconds by which BMCs were ahead of us when they were last read."""
    found = []
    for host in islice(site.store.known_hosts(), _BMCS):
        value = site.store.values(host.host).get("bmc.clock")
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append(float(value))
    return found


def _certificates(site: OpenSite, docs: SiteDocs) -> dict[Path, str]:
    files: dict[Path, str] = {}
    own = site.state / "tls" / "controller.pem"
    if own.exists():
        files[own] = "the controller's own, pinned by machines"
    users: dict[str, list[str]] = defaultdict(list)
    if docs.site.tls.ca:
        users[docs.site.tls.ca].append("BMCs of the site")
    for host in docs.hosts.values():
        if host.tls is not None and host.tls.ca:
            users[host.tls.ca].append(host.name)
    for alert in docs.site.alerts:
        ca = next((a.ca for a in (alert.webhook, alert.slack, alert.email, alert.alertmanager) if a is not None), None)
        if ca:
            users[ca].append(f"alert {alert.name}")
    if docs.site.backup is not None and docs.site.backup.ca:
        users[docs.site.backup.ca].append("backup")
    return files | {site.folder / Path(ca).expanduser(): f"CA of {few(names)}" for ca, names in users.items()}


def _specs(site: OpenSite) -> list[HostSpec]:
    from metalimmu.desired.resolve import resolve_all

    return list(resolve_all(site.docs, root=site.folder).values())


def _references(docs: SiteDocs, specs: list[HostSpec]) -> dict[str, list[str]]:
    """Reference -> who needs it. `login:` and `text:` in front say what it must hold."""
    found: dict[str, list[str]] = defaultdict(list)
    for spec in specs:
        if spec.credentials and not spec.bmc.startswith("fake:"):
            found[spec.credentials].append(spec.name)
        if spec.proof.by == "ssh" and spec.proof.ssh_key:
            found[f"text:{spec.proof.ssh_key}"].append(f"proof of {spec.name}")
    for alert in docs.site.alerts:
        who = f"alert {alert.name}"
        texts = [alert.webhook.secret if alert.webhook else None, alert.slack.url if alert.slack else None]
        logins = [a.credentials for a in (alert.email, alert.alertmanager) if a is not None]
        for ref in filter(None, texts):
            found[f"text:{ref}"].append(who)
        for ref in filter(None, logins):
            found[ref].append(who)
    if docs.site.backup is not None:
        if docs.site.backup.passphrase:
            found[f"text:{docs.site.backup.passphrase}"].append("backup")
        if docs.site.backup.credentials:
            found[docs.site.backup.credentials].append("backup")
    return found


def _read(ref: str, folder: Path) -> None:
    from metalimmu.bmc import credentials

    if ref.startswith("text:"):
        credentials.secret(ref.removeprefix("text:"), folder=folder)
    else:
        credentials.read(ref, folder=folder)


def _used(docs: SiteDocs, specs: list[HostSpec]) -> dict[str, tuple[str, str]]:
    used = {}
    if any(s.proof.by == "ssh" for s in specs):
        used["ssh"] = ("openssh-client", "prove hosts by ssh")
    if docs.site.backup is not None and docs.site.backup.age:
        used["age"] = ("age", "encrypt backups")
    return used


def _ramdisk(site: OpenSite, flavour: str) -> bool | None:
    try:
        return site.ramdisk(flavour).current
    except (MetalimmuError, OSError, ValueError, TypeError):
        return None


def _pin(path: Path) -> str | None:
    from metalimmu.boot import tls

    try:
        return tls.pin(path) if path.exists() else None
    except MetalimmuError:
        return None


def _versions() -> dict[str, str]:
    found = {"metalimmu": metalimmu.__version__, "Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
