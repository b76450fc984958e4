"""Everything that can be known to be wrong before a machine is touched: documents, credentials rules, and every template of every host."""

from __future__ import annotations

from pathlib import Path

import msgspec

from metalimmu.desired.checks_filled import unrendered
from metalimmu.desired.checks_waivers import run_out
from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.hook_words import unverified
from metalimmu.desired.load import Examined, examine
from metalimmu.desired.problems import Problem, listed
from metalimmu.desired.render import attempt
from metalimmu.desired.resolve import resolve
from metalimmu.desired.types import Host, HostSpec, SiteDocs
from metalimmu.errors import TemplateError


class Report(msgspec.Struct, frozen=True):
    problems: tuple[Problem, ...]
    remarks: tuple[str, ...] = ()  # what is allowed, and must be said aloud
    hosts: int = 0
    roles: int = 0


def check(folder: Path) -> Report:
    """Load, resolve and render all of it. Reads files only: no BMC, no machine, no store."""
    examined = examine(folder)
    docs, problems, found = examined
    if docs is None:
        return Report(tuple(problems), (), len(found.hosts), len(found.roles))
    specs, wrong = _resolved(docs, examined, folder)
    wrong += _rendered(docs, specs)
    wrong += unrendered(found, specs)
    if problems:  # their templates may be wrong as well, and who mends wants to hear all of it at once
        return Report((*problems, *(w for w in wrong if w not in problems)), (), len(docs.hosts), len(docs.roles))
    said = remarks(specs)
    if old := run_out(docs.waivers):
        said += (f"the day of these waivers has passed, take them out of waivers.yaml: {listed(old)}",)
    return Report(tuple(wrong), said, len(docs.hosts), len(docs.roles))


def _resolved(docs: SiteDocs, examined: Examined, folder: Path) -> tuple[list[HostSpec], list[Problem]]:
    specs: list[HostSpec] = []
    problems: list[Problem] = []
    for placed in examined.found.hosts:
        if not _whole(placed, examined.found):
            continue
        try:
            specs.append(resolve(docs, placed.value.name, root=folder))
        except TemplateError as exc:
            problems.append(placed.problem(("credentials",), "a reference that renders", exc.message, exc.hint))
    return specs, problems


def _whole(host: Placed[Host], found: Collected) -> bool:
    """Could it and what it names be read? A template would else miss what is only wrong elsewhere."""
    role, pool = host.value.role, host.value.pool
    named = [host, *([found.roles.get(role)] if role else []), *([found.pools.get(pool)] if pool else []), found.site]
    return all(one is not None and not one.partial for one in named)


def _rendered(docs: SiteDocs, specs: list[HostSpec]) -> list[Problem]:
    """Each fault of a template once, with the number of hosts that it hits."""
    url = docs.site.urls.machines
    controller = {"url": url, "deployment": "check", "phone_home": url}
    hosts: dict[Problem, list[str]] = {}
    for spec in specs:
        for p in attempt(spec, controller=controller)[1]:
            hosts.setdefault(msgspec.structs.replace(p, field=""), []).append(spec.name)
    return [msgspec.structs.replace(p, field=_few(names)) for p, names in hosts.items()]


def _few(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def remarks(specs: list[HostSpec]) -> tuple[str, ...]:
    """What an operator has switched off or left out, and should hear each time."""
    off = [s.name for s in specs if not s.tls.verify and "+https" in s.bmc]
    clear = [s.name for s in specs if s.bmc.startswith("redfish+http:")]
    nobody = [s.name for s in specs if not s.serial and not s.nics]
    blind = [s.name for s in specs if any(unverified(call) for call in (*s.before, *s.after, *s.health))]
    no_proof = sorted({s.role for s in specs if s.role and s.proof.by == "none"})
    said = (
        (off, "TLS is OFF (verify: false): anyone on the path can read the BMC's password of"),
        (clear, "no TLS (redfish+http): the BMC's password travels in the clear for"),
        (nobody, "neither serial nor nics: nothing tells the right machine from a wrong one for"),
        (blind, "TLS is OFF (verify: false) in hooks or health checks: anyone on the path can answer for"),
        (no_proof, "proof is none: hosts will show as unproven, of role"),
    )
    return tuple(f"{text} {listed(names)}" for names, text in said if names)
