"""Guards of a site, asked at the time of each act: before a person is, in the transaction that gives the lease, and in
the workflow before the first write to a BMC and before the machine is taken away from what runs on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metalimmu.desired.resolve import labels_of
from metalimmu.desired.units import share
from metalimmu.errors import GuardRefused, HostProtected, ReadOnlyMode
from metalimmu.lifecycle import State
from metalimmu.plan.guards import Act, Guard, HostRules, PoolRules, Refusal, Rules, Stage, Standing, World
from metalimmu.plan.guards import domains as domains_of
from metalimmu.plan.guards import refusals as judge

if TYPE_CHECKING:
    from metalimmu.desired.types import Host, SiteDocs
    from metalimmu.service.site import OpenSite
    from metalimmu.store.protocol_rollouts import Guarding
    from metalimmu.store.records import HostRecord, RunRecord

PUSH = "config push"  # the verb of service.pushes

_KINDS: dict[Guard, type[GuardRefused]] = {Guard.mode: ReadOnlyMode, Guard.protected: HostProtected}


class Guards:
    """`refresh` is called before each look at the documents: a worker reads them again when they have changed."""

    def __init__(
        self, site: OpenSite, *, clock: Callable[[], float] = time.time, refresh: Callable[[], None] = lambda: None
    ) -> None:
        self._site = site
        self._clock = clock
        self._refresh = refresh
        self._made: tuple[SiteDocs, Rules] | None = None

    def rules(self) -> Rules:
        self._refresh()
        docs = self._site.docs
        if self._made is None or self._made[0] is not docs:
            self._made = (docs, rules(docs))
        return self._made[1]

    def world(self) -> World:
        return World(rules=self.rules(), standing=self._site.store.rollouts.standing())

    def refusals(self, act: Act, world: World | None = None) -> tuple[Refusal, ...]:
        return judge(act, world or self.world(), self._clock())

    def check(self, act: Act) -> None:
        """Raises GuardRefused."""
        if found := self.refusals(act):
            raise refused(found)

    def inside(self, act: Act) -> Guarding:
        """For the store's transaction."""
        found = self.rules()

        def ask(standing: Standing) -> None:
            if said := judge(act, World(rules=found, standing=standing), self._clock()):
                raise refused(said)

        return ask

    def of_run(self, run: RunRecord, stage: str) -> None:
        """workflows.context.Guarded. Raises GuardRefused."""
        costs = _was_active(self._site.store.host(run.host))  # it is `deploying` by now
        self.check(act(run.verb, run.host, run.options, stage=Stage(stage), costs=costs))


def act(
    verb: str, host: str, options: Mapping[str, Any], *, stage: Stage = Stage.begin, costs: bool | None = None
) -> Act:
    """`options` are those of a run, or of a rollout."""
    return Act(
        host=host,
        verb=verb,
        stage=stage,
        allow_protected=bool(options.get("allow_protected") and options.get("reason")),
        allow_same_domain=bool(options.get("allow_same_domain")),
        returning=bool(options.get("returning")),
        rollout=str(options.get("rollout", "")),
        approved=len(options.get("approved_by", ())),  # written by `apply` alone, after it has verified the signatures
        costs=costs,
    )


def refused(found: Sequence[Refusal]) -> GuardRefused:
    """One error of all of them; its class is the first one's."""
    first, *more = found
    text = first.text + "".join(f"; {r.text}" for r in more)
    return _KINDS.get(first.guard, GuardRefused)(text, hint=first.hint)


def rules(docs: SiteDocs) -> Rules:
    guards = docs.site.guards
    hosts: dict[str, HostRules] = {}
    members: dict[str, list[str]] = {name: [] for name in docs.pools}
    for host in docs.hosts.values():
        pool = docs.pools[host.pool] if host.pool else None
        role = docs.roles[host.role] if host.role else None
        labels = labels_of(host, role.labels if role else {}, pool.labels if pool else {})
        leaves = host.location.leaves if host.location else []
        own = pool.failure_domain if pool else None
        if host.pool:
            members[host.pool].append(host.name)
        hosts[host.name] = HostRules(
            pool=host.pool,
            mode=(pool.mode if pool else None) or docs.site.mode,
            protected=host.protected,
            domains=domains_of(host.pool, labels, leaves, guards.failure_domain, own) | pair_of(host),
            labels=labels,
        )
    pools = {
        name: PoolRules(
            hosts=frozenset(members[name]),
            min_active=pool.min_active,
            max_unavailable=None if pool.max_unavailable is None else share(pool.max_unavailable, len(members[name])),
            max_said=str(pool.max_unavailable or ""),
            windows=tuple(pool.windows),
            approvals=pool.approvals,
        )
        for name, pool in docs.pools.items()
    }
    return Rules(hosts=hosts, pools=pools, max_hosts=guards.max_hosts)


def pair_of(host: Host) -> frozenset[str]:
    """The two switches of a pair never go at once, whatever the site says of failure domains."""
    if host.switch is None or host.switch.peer is None:
        return frozenset()
    return frozenset({f"pair {' and '.join(sorted((host.name, host.switch.peer)))}"})


def _was_active(record: HostRecord) -> bool:
    """Of a host whose run has begun: did it serve before? What was never deployed, or was set aside, did not."""
    aside = record.quarantine is not None or record.maintenance is not None or record.power == "Off"
    return record.state in (State.active, State.deploying) and record.image is not None and not aside
