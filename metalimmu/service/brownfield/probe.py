"""The census: what each BMC can do, over a fleet. Reads only; kept as observations of kind `probe`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.bmc.probe import QUESTIONS, Answer, Known, Probe, nothing
from metalimmu.desired.resolve import resolve_all
from metalimmu.desired.selector import select
from metalimmu.errors import MetalimmuError, ScanStopped
from metalimmu.log import redacted
from metalimmu.service.brownfield.many import MAX_REFUSED

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite

KIND = "probe"
_ADDRESS = re.compile(r"^https?://[^ /]+: ")  # so that one reason of many hosts is one reason


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `trouble` is why nothing could be asked; then all answers are unknown. `asked` false: not even tried."""

    host: str
    bmc: str
    probe: Probe
    trouble: str = ""
    asked: bool = True


def chosen(site: OpenSite, hosts: Iterable[str], selector: str | None) -> list[HostSpec]:
    """By name, by selector, or all. Raises NotFound, UsageError."""
    names = list(dict.fromkeys(hosts))
    specs = [site.spec(name) for name in names] if names else list(resolve_all(site.docs, root=site.folder).values())
    return select(specs, selector) if selector else specs


def probe(
    site: OpenSite,
    specs: Iterable[HostSpec],
    *,
    max_refused: int = MAX_REFUSED,
    progress: Callable[[Probed], None] = lambda _: None,
) -> Iterator[Probed]:
    """Ask each BMC, many at once; results as they come, kept in the store. After `max_refused` refused logins nobody is
    logged in any more: the others' answers are unknown.
    """
    store = site.store
    for spec, value, failure in _asked(site, list(specs), max_refused):
        why = _ADDRESS.sub("", failure.message) if failure else ""
        found = Probed(
            host=spec.name,
            bmc=spec.bmc,
            probe=value or nothing(why),
            trouble="" if value else why,
            asked=not isinstance(failure, ScanStopped),
        )
        if found.asked:  # what was not asked is no observation
            store.observe(spec.name, KIND, redacted(_kept(found)))
        progress(found)
        yield found


def _asked(
    site: OpenSite, specs: list[HostSpec], max_refused: int
) -> Iterator[tuple[HostSpec, Probe | None, MetalimmuError | None]]:
    from metalimmu.bmc.collect import CollectSettings, collecting
    from metalimmu.bmc.probe import probe as ask
    from metalimmu.bmc.redfish_service import Service
    from metalimmu.bmc.tree import Tree

    redfish = {s.name: s for s in specs if s.bmc.startswith("redfish")}
    for spec in specs:
        if spec.name not in redfish:
            scheme = spec.bmc.partition("://")[0]
            yield spec, nothing(f"not modelled: {scheme} cannot say", model=spec.labels.get("model", "")), None
    known: Known = {}
    read = collecting(
        redfish.values(),
        lambda t: ask(Service(t.bmc, t.system), Tree(), known),
        settings=CollectSettings(max_refused=max_refused),
        ledger=site.ledger,
        budget=site.budget,
        folder=site.folder,
    )
    for one in read if redfish else ():
        yield redfish[one.target.name], one.value, one.failure


def _kept(found: Probed) -> dict[str, Any]:
    """Without what differs at each time: so the same answers are one observation."""
    data: dict[str, Any] = msgspec.to_builtins(found)
    data["probe"].pop("requests")
    for answer in data["probe"]["answers"]:
        answer["detail"] = {k: v for k, v in answer["detail"].items() if k not in _MOVING}
        if answer["capability"] in ("sessions", "event_subscriptions"):
            answer["reason"] = answer["answer"]
    return data


_MOVING = frozenset({"open", "subscribed"})


def check(found: Iterable[Probed]) -> None:
    """Raises ScanStopped when the run was stopped by refused logins: the answers that came are good all the same."""
    left = sum(not one.asked for one in found)
    if left:
        raise ScanStopped(f"stopped after too many refused logins; {left} BMCs were not asked")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a make say what of one capability."""

    capability: str
    make: str
    yes: int = 0
    no: int = 0
    unknown: int = 0

    @property
    def text(self) -> str:
        words = ((self.yes, "yes"), (self.no, "no"), (self.unknown, "unknown"))
        return ", ".join(f"{n} {word}" for n, word in words if n) or "-"


def census(found: Iterable[Probed]) -> list[Count]:
    """Capability by make, in the order of the questions; make `all` is the sum."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    makes: dict[str, None] = {}
    for one in found:
        make = one.probe.make or "unknown"
        makes[make] = None
        for answer in one.probe.answers:
            for name in (make, "all"):
                tally = counts.setdefault((answer.capability, name), {"yes": 0, "no": 0, "unknown": 0})
                tally[answer.answer] += 1
    order = [*sorted(makes), "all"] if makes else []
    return [Count(capability=c, make=m, **counts[c, m]) for c in QUESTIONS for m in order if (c, m) in counts]


def reasons(found: Iterable[Probed], capability: str) -> dict[tuple[str, str], list[str]]:
    """(answer, reason) -> hosts, the most frequent first: what to look at when a count surprises."""
    by: dict[tuple[str, str], list[str]] = {}
    for one in found:
        answer = _of(one.probe, capability)
        if answer is not None:
            by.setdefault((answer.answer, answer.reason), []).append(one.host)
    return dict(sorted(by.items(), key=lambda item: -len(item[1])))


def _of(probe: Probe, capability: str) -> Answer | None:
    return next((a for a in probe.answers if a.capability == capability), None)
