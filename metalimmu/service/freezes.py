"""Freezes: nothing of these hosts is changed for a while, by nobody. What is under way is finished."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from metalimmu.desired.selector import matches, parse
from metalimmu.errors import UsageError
from metalimmu.plan.guards import frozen
from metalimmu.service.guarding import Guards
from metalimmu.service.runs import who
from metalimmu.store.ids import freeze_id
from metalimmu.store.rollout_records import FreezeRecord
from metalimmu.store.rollouts import freeze as as_rule

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

_CHANGING = frozenset({"image", "state", "proof"})


def freeze(site: OpenSite, *, reason: str, selector: str | None = None, until: float | None = None) -> FreezeRecord:
    """`until`: seconds since 1970, or until somebody ends it. Raises UsageError."""
    if not reason.strip():
        raise UsageError("a freeze needs a reason: others must know whom to ask", hint="--reason TEXT")
    now = time.time()
    if until is not None and until <= now:
        raise UsageError("this freeze would end before it begins", hint="give a time that is still to come")
    if selector is not None:
        _check(site, selector)
    record = FreezeRecord(id=freeze_id(now), reason=reason, by=who(), selector=selector or "", since=now, until=until)
    return site.store.rollouts.freeze(record)


def _check(site: OpenSite, selector: str) -> None:
    """What a host is labelled with today must hold tomorrow too."""
    if found := sorted(_CHANGING & {t.key for t in parse(selector)}):
        raise UsageError(
            f"a freeze by {found[0]} would let go of a host as soon as that changes",
            hint="use pool, role, rack, model, name or a label",
        )
    if not any(matches(h.labels, selector) for h in Guards(site).rules().hosts.values()):
        raise UsageError(
            f"no host matches -l {selector}", hint="`metalimmu host list -l …` shows what a selector means"
        )


def thaw(site: OpenSite, freeze: str | None = None) -> list[FreezeRecord]:
    """End one freeze, or all that hold. Raises NotFound, UsageError."""
    names = [freeze] if freeze else [f.id for f in site.store.rollouts.freezes()]
    if not names:
        raise UsageError("nothing is frozen", hint="`metalimmu freeze status --all` lists what has ended")
    return [site.store.rollouts.thaw(name, who()) for name in names]


def hosts_of(site: OpenSite, record: FreezeRecord) -> list[str]:
    rule = as_rule(record)
    return [name for name, host in Guards(site).rules().hosts.items() if frozen(rule, host)]
