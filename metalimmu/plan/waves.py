"""A rollout: which host is next, when to wait, when to stop. Pure.

Pools go one after the other, so that a bad version meets one of them. Of each pool the first host goes alone, then come
batches. The order is the same for ever, and neighbours in it stand in different failure domains. A wave begins when the
one before has ended and has been well for the pool's soak time.

::

    waiting ──► running ──► soaking ──► done                 (nothing to do: waiting ──► done)
       ▲           │            │
       │  refused  ├──► failed ◄┘      the rollout stops at max_failures; with auto-rollback:
       └───────────┘      │            rolling-back ──► rolled-back | failed
    refused, untouched    └──►
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from metalimmu.plan.guards import BY_OTHERS, BY_TIME, Guard, World, refusals
from metalimmu.plan.guards import Act as Asked


class RolloutState(StrEnum):
    running = "running"
    paused = "paused"  # by a person, or Ctrl-C; what is under way is finished
    cancelling = "cancelling"
    stopped = "stopped"  # by failures, or because nothing can go on; `run resume` goes on
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


ENDED = frozenset({RolloutState.done, RolloutState.failed, RolloutState.cancelled})
HALTED = ENDED | {RolloutState.stopped}
"""Nothing happens any more, until somebody says so."""


class RowState(StrEnum):
    waiting = "waiting"
    running = "running"
    soaking = "soaking"  # proven, and looked at for the soak time
    done = "done"
    failed = "failed"
    refused = "refused"  # by a guard, when the rollout was asked for
    rolling_back = "rolling-back"
    rolled_back = "rolled-back"
    untouched = "untouched"


OPEN = frozenset({RowState.waiting, RowState.running, RowState.soaking, RowState.rolling_back})
BUSY = frozenset({RowState.running, RowState.rolling_back})
WENT_WRONG = frozenset({RowState.failed, RowState.rolling_back, RowState.rolled_back})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One host of a rollout."""

    host: str
    wave: int
    state: RowState = RowState.waiting
    after: float = 0.0  # not before; of soaking: its end
    returns: bool = False  # something before is recorded, to which it can go back


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    verb: str
    state: RolloutState
    rows: tuple[Row, ...]  # at least those of the present wave, of waves that failed, and all that are under way
    forgiven: int = 0  # failures from before a `resume`, not among the rows
    max_failures: int = 1
    auto_rollback: bool = False
    allow_same_domain: bool = False
    allow_protected: bool = False
    approved: int = 0  # people who signed its plan


class Start(msgspec.Struct, frozen=True, tag=True):
    host: str


class RollBack(msgspec.Struct, frozen=True, tag=True):
    host: str


class Wait(msgspec.Struct, frozen=True, tag=True):
    reason: str
    until: float | None = None


class Stop(msgspec.Struct, frozen=True, tag=True):
    """No more until a person has looked."""

    reason: str


class Finish(msgspec.Struct, frozen=True, tag=True):
    state: RolloutState
    reason: str = ""


Act = Start | RollBack | Wait | Stop | Finish


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A host that a rollout is to have."""

    host: str
    pool: str = ""
    domains: frozenset[str] = frozenset()


def waves(members: Iterable[Member], batch: Mapping[str, int]) -> list[tuple[str, int]]:
    """(host, wave), in order. `batch`: hosts of a wave by pool; of each pool the first host is a wave of its own."""
    pools: dict[str, list[Member]] = {}
    for member in members:
        pools.setdefault(member.pool, []).append(member)
    found: list[tuple[str, int]] = []
    wave = 0
    for pool in sorted(pools):
        size = max(1, batch[pool])
        order = spread(pools[pool])
        for place, host in enumerate(order):
            if place <= 1 or (place - 1) % size == 0:
                wave += 1
            found.append((host, wave))
    return found


def spread(members: Sequence[Member]) -> list[str]:
    """Hosts of one failure domain as far from each other as can be; by name where nothing else decides."""
    domains: dict[tuple[str, ...], list[str]] = {}
    for member in members:
        domains.setdefault(tuple(sorted(member.domains)), []).append(member.host)
    placed = [
        ((i + 0.5) / len(hosts), domain, host)
        for domain, hosts in domains.items()
        for i, host in enumerate(sorted(hosts))
    ]
    return [host for _, _, host in sorted(placed)]


def decide(rollout: Rollout, world: World, now: float) -> tuple[Act, ...]:
    """What is to be done at this moment. Never empty; asked again when something has changed."""
    if rollout.state in HALTED:
        return (Finish(rollout.state),)
    rows = rollout.rows
    busy = [r for r in rows if r.state in BUSY]
    if rollout.state is RolloutState.cancelling:
        return (
            (Wait(f"cancelled; first to be finished: {_hosts(busy)}"),) if busy else (Finish(RolloutState.cancelled),)
        )
    failed = [r for r in rows if r.state in WENT_WRONG]
    if len(failed) >= max(1, rollout.max_failures):
        return _failing(rollout, failed, busy, world, now)
    if not any(r.state in OPEN for r in rows):
        return (_finish(rollout),)
    if rollout.state is RolloutState.paused:
        return (Wait(f"paused; first to be finished: {_hosts(busy)}" if busy else "paused"),)
    return _wave(rollout, world, now)


def _finish(rollout: Rollout) -> Finish:
    failed = sum(r.state is RowState.failed for r in rollout.rows) + rollout.forgiven
    return Finish(RolloutState.failed, f"{failed} hosts failed") if failed else Finish(RolloutState.done)


def _wave(rollout: Rollout, world: World, now: float) -> tuple[Act, ...]:
    here = min(r.wave for r in rollout.rows if r.state in OPEN)
    rows = [r for r in rollout.rows if r.wave == here]
    found: list[Act] = []
    refused: list[Wait] = []
    stuck: list[str] = []
    for row in rows:
        if row.state is not RowState.waiting:
            continue
        if row.after > now:
            refused.append(Wait(f"{row.host} is tried again", row.after))
            continue
        said = refusals(_asked(rollout, row.host), world, now)
        if not said:
            found.append(Start(row.host))
            world = world.started(row.host, rollout.id)
            continue
        if said[0].guard is Guard.max_hosts:  # the others of the wave would hear the same
            refused.append(Wait(said[0].text))
            break
        passing = all(s.guard in BY_TIME or (s.guard in BY_OTHERS and world.standing.under_way) for s in said)
        text = said[0].text
        if passing:
            refused.append(Wait(text, max((s.until for s in said if s.until), default=None)))
        else:
            stuck.append(text)
    soaking = [r for r in rows if r.state is RowState.soaking]
    busy = [r for r in rows if r.state in BUSY]
    if not found and not refused and not busy and not soaking:
        return (Stop(f"nothing can go on: {stuck[0]}"),)
    if found:
        return tuple(found)
    if busy:
        more = f"; {refused[0].reason}" if refused else ""
        return (Wait(f"{_hosts(busy)} of wave {here} under way{more}"),)
    if soaking and not refused:
        return (Wait(f"wave {here} must stay well", max(r.after for r in soaking)),)
    return (refused[0],)


def _failing(rollout: Rollout, failed: Sequence[Row], busy: Sequence[Row], world: World, now: float) -> tuple[Act, ...]:
    """Those under way finish; then those of the wave go back, where that was asked for."""
    reason = f"{_hosts(failed)} failed, max_failures is {rollout.max_failures}"
    if any(r.state is RowState.running for r in busy):
        return (Wait(f"it stops: {reason}; first to be finished: {_hosts(busy)}"),)
    returning = rollout.auto_rollback and rollout.verb != "rollback"
    back = _to_return(rollout, failed) if returning else []
    if not back and busy:
        return (Wait(f"going back: {_hosts(busy)}"),)
    if not back:
        return (Finish(RolloutState.failed, _returned(failed)),) if returning else (Stop(reason),)
    if rollout.state is RolloutState.paused:
        return (Wait(f"paused; then these go back: {', '.join(r.host for r in back[:5])}"),)
    found: list[Act] = []
    refused: list[str] = []
    until: list[float] = []
    for row in back:
        if row.after > now:
            until.append(row.after)
            continue
        said = refusals(_asked(rollout, row.host, returning=True), world, now)
        if said:
            refused.append(said[0].text)
            until += [s.until for s in said if s.until]
            continue
        found.append(RollBack(row.host))
        world = world.started(row.host, rollout.id)
    if found:
        return tuple(found)
    if refused and not busy and not world.standing.under_way and not until:
        return (Stop(f"{reason}; going back is refused: {refused[0]}"),)
    return (Wait(f"going back: {refused[0] if refused else _hosts(busy) or 'soon'}", max(until, default=None)),)


def _returned(failed: Sequence[Row]) -> str:
    left = [r for r in failed if r.state is RowState.failed]
    went = f"{len(failed) - len(left)} of the wave went back"
    return f"{went}; {_hosts(left)} did not" if left else went


def _to_return(rollout: Rollout, failed: Sequence[Row]) -> list[Row]:
    """Hosts of the waves that failed which the rollout has touched and which have something to go back to."""
    bad = {r.wave for r in failed}
    touched = (RowState.failed, RowState.done, RowState.soaking)
    return [r for r in rollout.rows if r.wave in bad and r.returns and r.state in touched]


def _asked(rollout: Rollout, host: str, *, returning: bool = False) -> Asked:
    return Asked(
        host=host,
        verb="rollback" if returning else rollout.verb,
        allow_protected=rollout.allow_protected,
        allow_same_domain=rollout.allow_same_domain,
        approved=rollout.approved,
        returning=returning,
    )


def _hosts(rows: Sequence[Row]) -> str:
    return f"{len(rows)} hosts" if len(rows) > 3 else ", ".join(r.host for r in rows)
