"""Look at a host's health outside of a run: `prove` of one whose checks have failed before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from metalimmu.errors import Unhealthy
from metalimmu.service.hooks import Caller
from metalimmu.store.records import HealthRecord
from metalimmu.workflows.calls import told
from metalimmu.workflows.health_steps import evidence, summary, watches

if TYPE_CHECKING:
    from metalimmu.desired.types import HostSpec
    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import HostRecord

_PAUSE = 0.2  # seconds between looks at the clock


def look(site: OpenSite, spec: HostSpec, record: HostRecord) -> HealthRecord:
    """Until all checks are good for as long as they ask: that is recorded, and nothing else. Raises Unhealthy."""
    caller = Caller(site)
    caller.ready(spec)
    found = watches(spec.health, time.monotonic())
    image = (record.image, record.digest)
    while not all(watch.steady for _, _, watch in found):
        for name, check, watch in found:
            start = time.monotonic()
            if watch.due(start):
                key = f"{spec.name}/prove/{name}"
                occasion = told(spec, "health", name, image, key=key, verb="prove")
                answer = caller.look(check, occasion, check=lambda: None)
                watch.saw(answer.good, answer.words, start=start, end=time.monotonic())
        lost = [f"{name}: {w.verdict()}" for name, _, w in found if w.given_up(time.monotonic())]
        if lost:
            why = "; ".join(lost)
            said = HealthRecord(word="unhealthy", why=why, at=time.time(), checks=evidence(found))
            site.store.update_host(spec.name, health=said)
            site.store.add_event(spec.name, "health", f"{spec.name} is unhealthy: {why}", data={"checks": said.checks})
            raise Unhealthy(f"{spec.name} is unhealthy: {why}")
        time.sleep(_PAUSE)
    return HealthRecord(word="healthy", why=summary(found), at=time.time(), checks=evidence(found))


def unwell(site: OpenSite, spec: HostSpec, record: HostRecord) -> str:
    """Look once at each check: what is not good now, empty when all is. Nothing is recorded."""
    if not spec.health:
        return ""
    caller = Caller(site)
    caller.ready(spec)
    said = []
    for name, check, _ in watches(spec.health, time.monotonic()):
        image = (record.image, record.digest)
        answer = caller.look(
            check, told(spec, "health", name, image, key=f"{spec.name}/soak/{name}", verb="soak"), check=lambda: None
        )
        if not answer.good:
            said.append(f"{name}: {answer.words}")
    return "; ".join(said)
