"""What forbids an act, and until when: pure.

==================  ============================================================  ========  =====  ===========  ========
guard               refuses                                                       begin     power  power off,   power on
                                                                                  reimage,  step   reset
                                                                                  rollback
==================  ============================================================  ========  =====  ===========  ========
``site``            a host that the site's documents no longer have               yes       yes    yes          yes
``mode``            every write while site or pool say read-only                  yes       yes    yes          yes
``protected``       a protected host, without --allow-protected --reason          yes       yes    yes          -
``approvals``       a pool that wants signatures, without an approved plan        yes       -      -            -
``freeze``          hosts of a freeze, until it ends                              yes       -      yes          -
``window``          a reimage outside of its pool's windows                       yes       -      -            -
``max_hosts``       one more host than so many that change at once in the site    yes       yes    yes          yes
``min_active``      taking an active host where the pool has none to spare        yes       yes    yes          -
``max_unavailable`` taking an active host where too many of the pool are away     yes       yes    yes          -
``failure_domain``  a second host of one rack, MLAG pair or label                 yes       yes    yes          -
``rollout``         a host of a rollout that is paused, cancelled or stopped    yes       -      -            -
==================  ============================================================  ========  =====  ===========  ========

*begin* is asked in the transaction that gives the lease and again before the first write to the BMC. From the medium's
insertion to the proof a machine is not stopped by a freeze or by a window that closes: half-written is worse. Going back
by itself (--auto-rollback) is the end of what was begun, so a closed window does not hold it up.

A host *changes* while a run, or a person's power act, has its lease; for `max_hosts` and `failure_domain` also while it
has a config push that it has not ended, for as long as a machine that is well may take for it. It is *active* when its
state is active, it is on, has reported since it was restarted (or could have), is in neither quarantine nor maintenance,
and does not change. A host that is not active costs nothing more by being reimaged: `min_active` and `max_unavailable`
never keep a broken pool from being mended.
`release` changes no machine and is asked nothing. The identify light, and what is typed into a console, are asked for
`mode` alone. A `config push` is asked like the beginning of a reimage, but for `min_active` and `max_unavailable`: the
machine goes on. Where a pool wants approvals it is refused: there is no plan of it that could be signed. It is asked again
when the machine fetches.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

import msgspec

from metalimmu.desired import times
from metalimmu.desired.schedules import MaintenanceWindow
from metalimmu.desired.selector import matches


class Guard(StrEnum):
    site = "site"
    mode = "mode"
    protected = "protected"
    approvals = "approvals"
    freeze = "freeze"
    window = "window"
    max_hosts = "max_hosts"
    min_active = "min_active"
    max_unavailable = "max_unavailable"
    failure_domain = "failure_domain"
    rollout = "rollout"


BY_TIME = frozenset({Guard.freeze, Guard.window})
"""Refusals that end by themselves, or by a word, with nothing else changed."""
BY_OTHERS = frozenset({Guard.max_hosts, Guard.min_active, Guard.max_unavailable, Guard.failure_domain})
"""Refusals that end when other hosts have ended."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    guard: Guard
    text: str
    hint: str
    until: float | None = None  # when it is over, where that is known


class Stage(StrEnum):
    begin = "begin"  # before anything is written
    power = "power"  # before the machine is taken away from what runs on it


class HostRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the documents say of one host."""

    pool: str | None = None
    mode: str = "read-write"
    protected: bool = False
    domains: frozenset[str] = frozenset()  # see `domains`
    labels: Mapping[str, str] = {}


class PoolRules(msgspec.Struct, frozen=True, kw_only=True):
    hosts: frozenset[str]
    min_active: int | None = None
    max_unavailable: int | None = None  # as a number of hosts
    max_said: str = ""  # as the document says it
    windows: tuple[MaintenanceWindow, ...] = ()
    approvals: int = 0  # people beside the author who must have signed the plan


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    hosts: Mapping[str, HostRules]
    pools: Mapping[str, PoolRules]
    max_hosts: int = 10


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    reason: str
    by: str = ""
    selector: str = ""  # empty: the whole site
    since: float = 0.0
    until: float | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says at one moment."""

    active: frozenset[str] = frozenset()  # hosts that serve, those that change not yet taken off
    changing: Mapping[str, str] = {}  # host -> run that has its lease
    pushed: Mapping[str, str] = {}  # host -> config push that it has not ended yet
    freezes: tuple[Freeze, ...] = ()
    halted: Mapping[str, str] = {}  # rollouts that begin nothing -> paused, cancelling or stopped

    @property
    def under_way(self) -> Mapping[str, str]:
        """Hosts that change, or get a config while they go on."""
        return {**self.pushed, **self.changing} if self.pushed else self.changing


class World(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    rules: Rules
    standing: Standing

    @cached_property
    def _served(self) -> dict[int, int]:
        """By pool: a plan for a fleet asks for each of its hosts."""
        return {}

    def serving(self, pool: PoolRules) -> int:
        """How many hosts of the pool are active."""
        if id(pool) not in self._served:
            there = pool.hosts & self.standing.active
            self._served[id(pool)] = len(there) - sum(h in there for h in self.standing.changing)
        return self._served[id(pool)]

    def started(self, host: str, run: str) -> World:
        """The world when this host changes too."""
        changing = {**self.standing.changing, host: run}
        return msgspec.structs.replace(self, standing=msgspec.structs.replace(self.standing, changing=changing))

    def idle(self) -> World:
        """The world when all that is under way has ended well."""
        standing = self.standing
        active = standing.active | frozenset(standing.changing)
        return msgspec.structs.replace(
            self, standing=msgspec.structs.replace(standing, active=active, changing={}, pushed={})
        )


class Act(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    verb: str  # reimage | rollback | power on | power off | power reset
    stage: Stage = Stage.begin
    allow_protected: bool = False
    allow_same_domain: bool = False
    returning: bool = False  # back to what it was, because its rollout failed
    rollout: str = ""
    approved: int = 0  # people who signed the saved plan that says so
    costs: bool | None = None  # does the act take away an active host? None: as the store says now


def domains(
    pool: str | None, labels: Mapping[str, str], leaves: list[str], site_keys: list[str], pool_keys: list[str] | None
) -> frozenset[str]:
    """What two hosts must not have in common while they change. A pool's own keys hold among its hosts alone."""
    keys, scope = (site_keys, "") if pool_keys is None else (pool_keys, f" of pool {pool}")
    found = set()
    for key in keys:
        values = leaves if key == "leaves" else [labels[key]] if key in labels else []
        found |= {f"{'leaf' if key == 'leaves' else key} {value}{scope}" for value in values}
    return frozenset(found)


def refusals(act: Act, world: World, now: float) -> tuple[Refusal, ...]:
    """Everything that forbids the act, what cannot pass by itself first. Empty: nothing does."""
    rules = world.rules.hosts.get(act.host)
    if rules is None:
        text = f"{act.host} is no longer in the site's documents"
        return (Refusal(guard=Guard.site, text=text, hint="add it again, or leave it out"),)
    found = [*_words(act, rules, world), *_times(act, rules, world, now), *_counts(act, rules, world)]
    return tuple(found)


def _words(act: Act, rules: HostRules, world: World) -> list[Refusal]:
    found = []
    halted = world.standing.halted.get(act.rollout)
    if halted and act.stage is Stage.begin:
        text = f"{act.host}: rollout {act.rollout} is {halted}"
        found.append(Refusal(guard=Guard.rollout, text=text, hint=f"`metalimmu run show {act.rollout}` says why"))
    if rules.mode != "read-write":
        text = f"{act.host}: the site (or the pool of {act.host}) is in mode read-only: nothing is written"
        hint = "set `mode: read-write` in site.yaml or in the pool"
        found.append(Refusal(guard=Guard.mode, text=text, hint=hint))
    if rules.protected and not act.allow_protected and act.verb != "power on":
        hint = "if you mean it: --allow-protected --reason TEXT"
        found.append(Refusal(guard=Guard.protected, text=f"{act.host} is protected", hint=hint))
    found += _approvals(act, rules, world)
    return found


def _approvals(act: Act, rules: HostRules, world: World) -> list[Refusal]:
    """The author and others must have signed; without the author's own signature nobody knows who that was, so the same
    number of people is asked for. Going back by itself was approved with the rollout.
    """
    pool = world.rules.pools.get(rules.pool or "")
    if pool is None or not pool.approvals or act.returning or act.stage is not Stage.begin:
        return []
    if act.verb not in ("reimage", "rollback", "config push") or act.approved > pool.approvals:
        return []
    if act.verb == "config push":
        text = f"{act.host}: pool {rules.pool} wants approvals, and a config push has no plan that could be signed"
        hint = "a reimage brings the config: `metalimmu plan … --force --out FILE --key KEY`, `approve`, `apply`; or change `approvals` of the pool"
        return [Refusal(guard=Guard.approvals, text=text, hint=hint)]
    text = f"{act.host}: pool {rules.pool} wants a saved plan, signed by its author and {pool.approvals} other" + (
        "s" if pool.approvals > 1 else ""
    )
    hint = "`metalimmu plan … --out FILE --key KEY`; the others: `metalimmu approve FILE`; then `metalimmu apply FILE`"
    return [Refusal(guard=Guard.approvals, text=text, hint=hint)]


def _times(act: Act, rules: HostRules, world: World, now: float) -> list[Refusal]:
    if act.stage is Stage.power or act.verb == "power on":
        return []
    found = []
    for freeze in world.standing.freezes:
        if (freeze.until is None or freeze.until > now) and frozen(freeze, rules):
            what = f"-l {freeze.selector}" if freeze.selector else "the site"
            end = f"until {stamp(freeze.until)}" if freeze.until else "until somebody ends it"
            text = f"{act.host} is frozen {end} ({what}, by {freeze.by}): {freeze.reason}"
            hint = f"wait, or `metalimmu freeze off {freeze.id}`"
            found.append(Refusal(guard=Guard.freeze, text=text, hint=hint, until=freeze.until))
    pool = world.rules.pools.get(rules.pool or "")
    if pool is not None and not act.verb.startswith("power") and not act.returning:
        opens = times.opens(pool.windows, now)
        if opens is not None:
            text = f"{act.host}: pool {rules.pool} is outside of its maintenance windows; the next opens {stamp(opens)}"
            hint = "wait for it, or change `windows:` of the pool"
            found.append(Refusal(guard=Guard.window, text=text, hint=hint, until=opens))
    return found


def frozen(freeze: Freeze, rules: HostRules) -> bool:
    return not freeze.selector or matches(rules.labels, freeze.selector)


def _counts(act: Act, rules: HostRules, world: World) -> list[Refusal]:
    standing = world.standing
    under_way = standing.under_way
    others = [h for h in under_way if h != act.host]
    found = []
    if len(others) >= world.rules.max_hosts:
        text = f"{act.host}: {len(others)} hosts change now, guards.max_hosts is {world.rules.max_hosts}"
        found.append(Refusal(guard=Guard.max_hosts, text=text, hint="wait for them (`metalimmu run list`)"))
    if act.verb == "power on":
        return found
    pool = world.rules.pools.get(rules.pool or "")
    if pool is not None:
        found += _pool(act, rules, pool, world)
    if not act.allow_same_domain and rules.domains:
        for other in others:
            there = world.rules.hosts.get(other)
            shared = sorted(rules.domains & there.domains) if there else []
            if shared:
                text = f"{act.host}: {other} changes now, and is in {shared[0]} too"
                what = f"run {standing.changing[other]}" if other in standing.changing else standing.pushed[other]
                hint = f"wait for {what}, or --allow-same-domain"
                found.append(Refusal(guard=Guard.failure_domain, text=text, hint=hint))
                break
    return found


def _pool(act: Act, rules: HostRules, pool: PoolRules, world: World) -> list[Refusal]:
    """Counted as they will be: without this host."""
    serves = act.host in world.standing.active
    if not (serves if act.costs is None else act.costs):
        return []
    after = world.serving(pool) - (serves and act.host not in world.standing.changing)
    size = len(pool.hosts)
    found = []
    if pool.min_active is not None and after < pool.min_active:
        text = f"{act.host}: pool {rules.pool} would have {after} active of {size}, min_active is {pool.min_active}"
        hint = _spare(rules.pool, "min_active")
        found.append(Refusal(guard=Guard.min_active, text=text, hint=hint))
    if pool.max_unavailable is not None and size - after > pool.max_unavailable:
        said = f" ({pool.max_said})" if pool.max_said.endswith("%") else ""
        text = f"{act.host}: pool {rules.pool} would have {size - after} of {size} not active, max_unavailable is {pool.max_unavailable}{said}"
        hint = _spare(rules.pool, "max_unavailable")
        found.append(Refusal(guard=Guard.max_unavailable, text=text, hint=hint))
    return found


def to_spare(pool: PoolRules, world: World) -> int | None:
    """How many of its active hosts `min_active` and `max_unavailable` let go at once; None: they say nothing."""
    serving = world.serving(pool)
    left = []
    if pool.min_active is not None:
        left.append(serving - pool.min_active)
    if pool.max_unavailable is not None:
        left.append(pool.max_unavailable - (len(pool.hosts) - serving))
    return max(0, min(left)) if left else None


def _spare(pool: str | None, guard: str) -> str:
    return f"mend what is not active (`metalimmu host list -l pool={pool}`), wait for what changes, or change `{guard}` of the pool"


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
