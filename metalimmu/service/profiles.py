"""Profiles: list, show, diff, lint, capture, coverage."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu import paths, structs
from metalimmu.desired import profile_files
from metalimmu.desired.neutral import neutral
from metalimmu.desired.profile_files import Read
from metalimmu.desired.volatile import volatile
from metalimmu.errors import BmcUnsupported, NotFound, UsageError
from metalimmu.plan.capture import Captured, capture, read_only
from metalimmu.plan.coverage import Coverage, coverage
from metalimmu.plan.lint import Report
from metalimmu.plan.lint_profile import field, lint_profile
from metalimmu.plan.profile_diff import Difference, differences
from metalimmu.plan.values import wanted_text
from metalimmu.service import profile_machines
from metalimmu.service.scans.outliers import few
from metalimmu.store.scan_records import ScanCounts

if TYPE_CHECKING:
    from metalimmu.service.profile_machines import Machine
    from metalimmu.service.site import OpenSite

MOST_SCANS = 1000
"""So far back the trend looks for scans of the whole site, among those of single hosts."""


def read(name: str, site: Path | None) -> Read:
    """By file, or by the name of one of the site or of those that ship. Raises SiteError with all that is wrong."""
    file = Path(name)
    if file.suffix not in (".yaml", ".yml") and "/" not in name:
        found = profile_files.find(name, site)
        if found is None:
            raise NotFound(f"no profile {name!r}", hint="see `metalimmu profile list`, or name a file")
        file = found
    return profile_files.read(file, site)


def rows(site: Path | None) -> list[dict[str, Any]]:
    """All profiles of the site and all that ship; the site's own win over those of the same name."""
    own = {p.stem: p for p in sorted((site / "profiles").glob("*.yaml"))} if site else {}
    ship = {p.stem: p for p in sorted(paths.data("profiles").glob("*.yaml")) if p.stem not in own}
    found = []
    for where, files in (("site", own), ("shipped", ship)):
        for name, file in files.items():
            got = profile_files.read(file, site)
            match = got.profile.match
            found.append(
                {
                    "name": name,
                    "from": where,
                    "match": {k: v for k, v in msgspec.to_builtins(match).items() if v} if match else None,
                    "extends": list(got.resolved.chain[:-1]),
                    "settings": len(got.resolved.expectations),
                    "description": got.profile.description,
                    "file": str(file),
                }
            )
    return found


def show(name: str, site: Path | None) -> dict[str, Any]:
    """The resolved profile: what it asks for, in the end, and where each of it was written."""
    got = read(name, site)
    return {
        "name": got.resolved.name,
        "chain": list(got.resolved.chain),
        "files": got.files,
        "description": got.profile.description,
        "settings": [
            {
                "setting": field(e.setting),
                "expected": wanted_text(e.op, e.value),
                "severity": e.severity,
                "owner": e.owner,
                "from": f"{e.profile}:{e.line}",
                "because": e.because,
            }
            for e in got.resolved.expectations
        ],
    }


def diff(a: str, b: str, site: Path | None) -> list[Difference]:
    return differences(read(a, site).resolved, read(b, site).resolved)


def lint(name: str, site: Path | None, against: str | None) -> Report:
    """The documents are checked in any case (SiteError). `against` is a recording, or a host of the site, which is read."""
    got = read(name, site)
    if against is None:
        return Report(registry="", checked=len(got.resolved.expectations))
    return lint_machine(got, machine(against, site))


def machine(against: str, site: Path | None) -> Machine:
    path = Path(against)
    if path.exists():
        return profile_machines.from_recording(path)
    if site is None:
        raise UsageError(
            f"{against} is no recording, and there is no site that has such a host",
            hint="name a folder or zip with a recording, or give --site",
        )
    return profile_machines.live(_open(site), [against], profile_machines.BIOS)[0]


def lint_machine(got: Read, of: Machine) -> Report:
    """Raises BmcUnsupported when the machine has no attribute registry."""
    if of.known_registry is None:
        why = getattr(of.registry, "detail", "") or "no reason given"
        raise BmcUnsupported(
            f"{of.name} has no attribute registry to check against: {why}",
            hint="take another machine or recording of the same model; `profile lint FILE` alone checks the document",
        )
    return lint_profile(
        got.resolved,
        of.known_registry,
        neutral=neutral(),
        noise=volatile().is_noise,
        current=of.attributes,
        make=of.make,
        files=got.files,
    )


class Written(msgspec.Struct, frozen=True):
    """A captured profile. `unchecked`: machines without an attribute registry, whose read-only attributes may be in it."""

    text: str
    unchecked: list[str]


def captured(hosts: Sequence[str], recordings: Sequence[Path], site: Path | None, *, now: bool = False) -> Written:
    """Hosts by the last scan, or read now where asked for or where no scan has been. A registry that no scan has read is."""
    found = [profile_machines.from_recording(path).captured for path in recordings]
    if hosts:
        if site is None:
            raise UsageError("there is no site that has these hosts", hint="give --site, or --from RECORDING")
        found += _hosts(_open(site), list(dict.fromkeys(hosts)), now=now)
    if not found:
        raise UsageError("nothing to capture from", hint="name hosts, or --from RECORDING")
    text = capture(found, neutral=neutral(), noise=volatile().is_noise, now=time.time())
    return Written(text, [m.host for m in found if m.has_bios and m.registry is None])


def _hosts(site: OpenSite, names: list[str], *, now: bool) -> list[Captured]:
    known = {} if now else profile_machines.stored(site, names)
    if profile_machines.fetch_registries(site, known.values()):
        known = profile_machines.stored(site, names)
    missing = [name for name in names if name not in known]
    fresh = {m.name: m.captured for m in profile_machines.live(site, missing)} if missing else {}
    return [known.get(name) or fresh[name] for name in names]


def coverages(site: OpenSite, names: Collection[str]) -> list[Coverage]:
    """By the last scan: what was compared, of what the host has. Hosts that were never read are left out."""
    under: dict[str, set[str]] = {}
    for record in site.store.current_findings(list(names)):
        under.setdefault(record.host, set()).add(record.finding.setting)
    profiles = {h.host: h.about.profile for h in site.store.known_hosts(list(names))}
    noise = volatile().is_noise
    return [
        coverage(
            host,
            known.settings,
            under.get(host, set()),
            noise=partial(_noise, noise, known.manufacturer),
            fixed=read_only(known.registry, known.settings),
            profile=profiles.get(host, ""),
        )
        for host, known in profile_machines.stored(site, names).items()
    ]


def coverage_rows(site: OpenSite, hosts: Sequence[str], selector: str | None) -> list[dict[str, Any]]:
    """Of the hosts that are named or selected; of all without either."""
    from metalimmu.desired.resolve import resolve_all
    from metalimmu.service.scans.scan import chosen

    names = chosen(site, resolve_all(site.docs, root=site.folder), hosts, selector)
    found = []
    for one in coverages(site, names):
        parts = {section: f"{covered} of {total}" for section, (covered, total) in one.sections.items()}
        row = {f: getattr(one, f) for f in ("host", "profile", "covered", "settings", "not_covered")}
        found.append(row | {"percent": round(one.percent, 1)} | parts)
    return found


def _noise(noise: Any, manufacturer: str, setting: str) -> bool:
    return bool(noise(setting, manufacturer))


def trend(site: OpenSite, selector: str | None = None, limit: int = 10) -> list[dict[str, Any]]:
    """Of the last scans of the whole site, or of exactly this selector, the newest first: how many of the settings that
    somebody could decide the profiles decided then, over all hosts that were read. Times are seconds since 1970.
    """
    found = []
    for scan in site.store.scans(MOST_SCANS):
        if scan.unfinished or scan.scope.get("hosts") or scan.scope.get("selector") != selector:
            continue
        counts = structs.convert(scan.counts, ScanCounts)
        found.append(
            {
                "at": scan.created,
                "scan": scan.id,
                "hosts": scan.hosts,
                "read": sum(n for state, n in counts.states.items() if state != "unknown"),
                "covered": counts.covered,
                "settings": counts.settings,
                "percent": round(100 * counts.covered / counts.settings, 1) if counts.settings else None,
            }
        )
    return found[:limit]


def uncovered(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `coverage_rows`: each setting that no profile decides, and where; what most hosts have comes first."""
    hosts: dict[str, list[str]] = {}
    for row in found:
        for setting in row["not_covered"]:
            hosts.setdefault(setting, []).append(row["host"])
    return [
        {"setting": setting, "hosts": len(names), "which": few(names), "all": names}
        for setting, names in sorted(hosts.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _open(site: Path) -> OpenSite:
    from metalimmu.service.site import OpenSite

    return OpenSite(site)
