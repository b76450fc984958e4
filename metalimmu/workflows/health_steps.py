"""Health of a host that is proven: only a host whose checks have all been good for as long as they ask is active.

A run that is taken up again begins to count anew: nobody has looked in between.
"""

from __future__ import annotations

from typing import Any

from metalimmu.desired.hook_words import health_limit, title
from metalimmu.desired.types import Health as Document
from metalimmu.desired.units import seconds
from metalimmu.errors import Unhealthy
from metalimmu.lifecycle import State, move
from metalimmu.plan.health import Watch
from metalimmu.store.records import HealthRecord
from metalimmu.workflows.calls import occasion
from metalimmu.workflows.context import Context
from metalimmu.workflows.step import Evidence, Step

_TOLD = 20  # breaks that become events of the run; the evidence counts all


class Health(Step):
    name = "health"
    pause = 0.5

    def __init__(self) -> None:
        self._watches: list[tuple[str, Document, Watch]] = []
        self._told = 0

    def observe(self, c: Context) -> Evidence | None:
        if not self._watches:
            c.drop_bmc()
            self._watches = watches(c.spec.health, c.tools.clock.monotonic())
        for name, document, watch in self._watches:
            if watch.due(c.tools.clock.monotonic()):
                self._look(c, name, document, watch)
        c.notes["checks"] = found = evidence(self._watches)
        now = c.tools.clock.monotonic()
        lost = [(n, w) for n, _, w in self._watches if w.given_up(now)]
        if lost:
            why = "; ".join(f"{name}: {watch.verdict()}" for name, watch in lost)
            _record(c, "unhealthy", why, found)
            if not proven(c):
                raise Unhealthy(
                    f"{c.host} is unhealthy with {c.plan.image.ref}, which is not kept: {why}",
                    hint="its old slot is the default still: a reboot leads back to it",
                )
            raise Unhealthy(f"{c.host} is proven at {c.plan.image.ref} and unhealthy: {why}")
        if not all(w.steady for _, _, w in self._watches):
            return None
        said = summary(self._watches)
        active = {"state": move(c.tools.store.host(c.host).state, State.active)} if proven(c) else {}
        _record(c, "healthy", said, found, **active)
        c.event("healthy", f"{c.host} is healthy: {said}", checks=found)
        return {"summary": said}

    def _look(self, c: Context, name: str, document: Document, watch: Watch) -> None:
        start = c.tools.clock.monotonic()
        told = occasion(c, "health", name, key=f"{c.run}/health/{name}")
        answer = c.tools.calls.look(document, told, check=c.check)
        broken = watch.saw(answer.good, answer.words, start=start, end=c.tools.clock.monotonic())
        if broken and self._told < _TOLD:
            self._told += 1
            c.event("health", f"{name} {broken}", **answer.evidence)

    def explain(self, c: Context) -> str:  # noqa: ARG002
        return "; ".join(f"{name}: {w.verdict()}" for name, _, w in self._watches if not w.steady)


def proven(c: Context) -> bool:
    """Is health asked of a host that is recorded as proven? Of a switch's new slot it is asked before that is kept."""
    names = [s.name for s in c.plan.steps]
    return "record" not in names or names.index("record") < names.index(Health.name)


def health_comes(c: Context) -> bool:
    """Is it still to be asked when the host is recorded as proven?"""
    return bool(c.spec.health) and proven(c)


def watches(checks: tuple[Document, ...], begun: float) -> list[tuple[str, Document, Watch]]:
    """Looked at one after the other, so each may have to wait for all the others."""
    patience = sum(seconds(c.timeout) for c in checks) + 30.0
    return [
        (
            title(c),
            c,
            Watch(
                hold=seconds(c.for_),
                every=seconds(c.every),
                limit=health_limit(c),
                patience=patience + seconds(c.every),
                begun=begun,
            ),
        )
        for c in checks
    ]


def evidence(found: list[tuple[str, Document, Watch]]) -> list[dict[str, Any]]:
    return [{"check": name, **watch.evidence()} for name, _, watch in found]


def summary(found: list[tuple[str, Document, Watch]]) -> str:
    each = ", ".join(f"{name} good for {w.held:.0f} s" if w.held else f"{name} good" for name, _, w in found)
    breaks = sum(w.breaks for _, _, w in found)
    return each + (f", after {breaks} breaks" if breaks else "")


def _record(c: Context, word: str, why: str, checks: list[dict[str, Any]], **fields: Any) -> None:
    record = HealthRecord(word=word, why=why, at=c.tools.clock.now(), run=c.run, checks=checks)
    c.tools.store.update_host(c.host, health=record, **fields)
