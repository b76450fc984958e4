"""Rollouts, their hosts, and freezes, as they are kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from metalimmu.plan.guards import Standing
from metalimmu.plan.outcomes import Ending
from metalimmu.plan.waves import RolloutState, RowState
from metalimmu.store.records import Record


class RolloutRecord(Record, frozen=True, kw_only=True):
    """One verb over many hosts."""

    id: str  # o-YYYYMMDD-…
    verb: str  # reimage | rollback
    state: RolloutState = RolloutState.running
    reason: str = ""  # why it is in this state, or what it waits for
    options: dict[str, Any] = {}  # max_failures, auto_rollback, allow_same_domain, allow_protected, reason, force, …
    by: str = ""
    plan_digest: str = ""  # of the saved plan that it carries out
    created: float = 0.0
    finished: float | None = None


class RolloutHost(Record, frozen=True, kw_only=True):
    """One host of a rollout."""

    rollout: str
    host: str
    seq: int  # in which order
    wave: int
    pool: str = ""
    state: RowState = RowState.waiting
    since: float = 0.0  # in this state
    after: float = 0.0  # waiting: not before; soaking: its end
    run: str | None = None  # the newest
    attempt: int = 0  # how many runs there were
    reason: str = ""
    image: str = ""
    digest: str = ""
    before_image: str | None = None  # what it goes back to
    before_digest: str | None = None
    soak: float = 0.0  # seconds
    forgiven: bool = False  # a failure that a `resume` has left behind


class Place(Record, frozen=True, kw_only=True):
    """A host's place in its rollout, to be taken together with its lease."""

    rollout: str
    was: RowState  # or else somebody was quicker
    failures: int | None = None  # or else it has stopped: so many may not have failed
    fields: dict[str, Any] = {}  # of RolloutHost, that change


class Scene(NamedTuple):
    """What decides about the next act of a rollout, at one moment."""

    rows: list[RolloutHost]  # of its present wave, of waves that failed, and all that are under way, in their order
    forgiven: int  # failures that a `resume` has left behind, which are not among them
    ended: dict[str, Ending]  # of those under way, by host
    standing: Standing


class FreezeRecord(Record, frozen=True, kw_only=True):
    id: str  # f-YYYYMMDD-…
    reason: str
    by: str
    selector: str = ""
    since: float = 0.0
    until: float | None = None
    ended: float | None = None
    ended_by: str = ""
