"""Carries out rollouts: looks at where each stands, asks `plan.waves`, does what it says. A thread of the site's worker.

Nothing is remembered here. A host's plan, lease, run and place in its rollout are written in one transaction, under the
guards, and the run's id comes from rollout, host and attempt: killed at any point, the next worker goes on and starts no
host twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from metalimmu import log
from metalimmu.errors import GuardRefused, ImageRevoked, LeaseHeld, MetalimmuError, StoreError
from metalimmu.plan import outcomes, waves
from metalimmu.plan.guards import Rules, World
from metalimmu.plan.waves import Finish, RollBack, Rollout, RolloutState, Row, RowState, Start, Stop, Wait
from metalimmu.service.guarding import act as act_of
from metalimmu.service.runs import record_of
from metalimmu.store.ids import attempt_id
from metalimmu.store.records import HealthRecord, Quarantine
from metalimmu.store.rollout_records import Place

if TYPE_CHECKING:
    from metalimmu.plan.guards import Act
    from metalimmu.plan.types import Plan
    from metalimmu.store.protocol import Store
    from metalimmu.store.protocol_rollouts import Guarding
    from metalimmu.store.records import RunRecord
    from metalimmu.store.rollout_records import RolloutHost, RolloutRecord, Scene

logger = log.get("rollouts")

ACTIVE = (RolloutState.running, RolloutState.paused, RolloutState.cancelling)
_LATER = 5.0  # seconds before a host is tried again that another run has
_LOOKS = (1.0, 60.0)  # seconds between looks at a host in its soak: a tenth of it, within these
_JUMP = 30.0  # seconds by which a clock may differ from the time that passed


class GuardSource(Protocol):
    """service.guarding.Guards."""

    def rules(self) -> Rules: ...
    def inside(self, act: Act) -> Guarding: ...


class Around(Protocol):
    """What the driver needs of a site."""

    def plan(self, rollout: RolloutRecord, row: RolloutHost, *, back: bool) -> Plan:
        """Look at the host now. Raises MetalimmuError."""
        ...

    def admitted(self, run: RunRecord, plan: Plan) -> None:
        """A host's run was queued."""
        ...

    def unwell(self, host: str) -> str:
        """Look once at a host that must stay well; why it is not. Raises MetalimmuError."""
        ...


@dataclass
class _Watched:
    """A host in its soak."""

    due: float
    bad: int = 0  # looks in a row


class Driver:
    """`tick` looks at every rollout once. Planning, which asks BMCs, is done by `workers`."""

    def __init__(
        self,
        store: Store,
        guards: GuardSource,
        around: Around,
        workers: Executor,
        *,
        by: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._guards = guards
        self._around = around
        self._workers = workers
        self._by = by
        self._clock = clock
        self._monotonic = monotonic
        self._planning: dict[tuple[str, str], Future[None]] = {}
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._moment = (clock(), monotonic())

    def tick(self) -> bool:
        """Did anything change? Raises StoreError."""
        jump = self._jumped()
        self._collect()
        changed = False
        for rollout in self._store.rollouts.find(states=ACTIVE, limit=1000):
            changed |= self._one(rollout, jump)
        return changed

    def _jumped(self) -> float:
        """Seconds by which the clock was set since the last look: a soak lasts as long as it lasts."""
        now, steady = self._clock(), self._monotonic()
        jump = (now - self._moment[0]) - (steady - self._moment[1])
        self._moment = (now, steady)
        return jump if abs(jump) > _JUMP else 0.0

    def _collect(self) -> None:
        for key, future in list(self._planning.items()):
            if future.done():
                del self._planning[key]
                future.result()

    def _one(self, record: RolloutRecord, jump: float) -> bool:
        scene = self._settled(record, jump)
        world = World(rules=self._guards.rules(), standing=scene.standing)
        acts = waves.decide(_as_plan(record, scene), world, self._clock())
        by_name = {r.host: r for r in scene.rows}
        changed = False
        for one in acts:
            match one:
                case Start(host=host):
                    changed |= self._begin(record, by_name[host], back=False)
                case RollBack(host=host):
                    changed |= self._begin(record, by_name[host], back=True)
                case Wait(reason=reason):
                    if record.reason != reason:
                        self._store.rollouts.set(record.id, reason=reason)
                case Stop(reason=reason):
                    self._end(record, scene.rows, RolloutState.stopped, reason)
                    changed = True
                case Finish(state=state, reason=reason):
                    self._end(record, scene.rows, state, reason)
                    changed = True
        return changed

    def _settled(self, record: RolloutRecord, jump: float) -> Scene:
        """Where it stands, after what has ended was taken in."""
        scene = self._store.rollouts.scene(record.id)
        now = self._clock()
        cancelling = record.state is RolloutState.cancelling
        changes: dict[str, dict[str, Any]] = {}
        for row in scene.rows:
            found: Mapping[str, Any] = {}
            if ending := scene.ended.get(row.host):
                found = outcomes.ended(row.state, ending, row.soak, row.reason, now, cancelling=cancelling)
            elif row.state is RowState.soaking:
                if row.host not in scene.standing.changing:  # else another run has it, and will say what it is
                    self._watch(record, row)
                found = outcomes.soaked(row.host, row.after + jump, scene.standing, now)
            if jump and row.after and "after" not in found:
                found = {**found, "after": row.after + jump}
            if found:
                changes[row.host] = dict(found)
        if not changes:
            return scene
        self._store.rollouts.set_hosts(record.id, changes)
        for host, fields in changes.items():
            if "state" in fields:
                self._watched.pop((record.id, host), None)
                logger.info("%s: %s %s %s", record.id, host, fields["state"], fields.get("reason", ""))
        return self._store.rollouts.scene(record.id)

    def _watch(self, record: RolloutRecord, row: RolloutHost) -> None:
        """A soak is not only time that passes: health is looked at again and again."""
        key = (record.id, row.host)
        seen = self._watched.setdefault(key, _Watched(self._monotonic()))
        if key not in self._planning and self._monotonic() >= seen.due:
            seen.due = self._monotonic() + min(_LOOKS[1], max(_LOOKS[0], row.soak / 10))
            self._planning[key] = self._workers.submit(self._look, row, seen)

    def _look(self, row: RolloutHost, seen: _Watched) -> None:
        """In a worker's thread. One bad look may be chance; the second in a row is not. Raises StoreError."""
        try:
            why = self._around.unwell(row.host)
        except StoreError:
            raise
        except MetalimmuError as exc:
            why = exc.message
        seen.bad = seen.bad + 1 if why else 0
        lease = self._store.lease(row.host)
        if seen.bad < 2 or (lease is not None and lease.run is not None):  # whoever has it says what it is
            return
        now = self._clock()
        quarantine = Quarantine(reason=f"soak: {why}", since=now, run=row.run)
        health = HealthRecord(word="unhealthy", why=why, at=now, run=row.run or "")
        self._store.update_host(row.host, quarantine=quarantine, health=health)
        self._store.add_event(row.host, "quarantine", f"{row.host} did not stay well: {why}", run=row.run or "")

    def _begin(self, record: RolloutRecord, row: RolloutHost, *, back: bool) -> bool:
        key = (record.id, row.host)
        if key in self._planning:
            return False
        self._planning[key] = self._workers.submit(self._start, record, row, back=back)
        return True

    def _start(self, record: RolloutRecord, row: RolloutHost, *, back: bool) -> None:
        """In a worker's thread: plan, then all of it in one transaction. Raises StoreError."""
        try:
            plan = self._around.plan(record, row, back=back)
            if plan.nothing:
                self._already(record, row, plan, back=back)
            else:
                self._admit(record, row, plan, back=back)
        except StoreError:
            raise
        except ImageRevoked as exc:
            self._stop(record, exc.message)
        except LeaseHeld as exc:
            self._set(record, row, after=self._clock() + _LATER, reason=exc.message)
        except GuardRefused as exc:  # the world has changed since it was asked: `decide` sees that too
            self._set(record, row, after=self._clock() + _LATER, reason=row.reason if back else exc.message)
        except MetalimmuError as exc:
            self._failed(record, row, exc.message, back=back)
        except Exception as exc:
            logger.exception("%s: planning %s", record.id, row.host)
            self._failed(record, row, f"a fault in metalimmu: {type(exc).__name__}: {exc}", back=back)

    def _failed(self, record: RolloutRecord, row: RolloutHost, why: str, *, back: bool) -> None:
        reason = f"{row.reason}; going back failed: {why}" if back else why
        self._set(record, row, state=RowState.failed, reason=reason, **({"before_image": None} if back else {}))

    def _admit(self, record: RolloutRecord, row: RolloutHost, plan: Plan, *, back: bool) -> None:
        attempt = row.attempt + 1
        options = {**record.options, "by": record.by, "rollout": record.id, "returning": back}
        run = record_of(plan, attempt_id(record.id, row.host, attempt), options)
        fields: dict[str, Any] = {"state": RowState.rolling_back if back else RowState.running, "run": run.id}
        if not back:
            fields["reason"] = ""
            if row.attempt == 0:
                fields |= {"before_image": plan.previous, "before_digest": plan.previous_digest}
        guard = self._guards.inside(act_of(plan.verb, row.host, options))
        place = Place(
            rollout=record.id,
            was=row.state,
            failures=None if back else _max_failures(record),
            fields={**fields, "attempt": attempt, "after": 0.0},
        )
        self._store.admit(run, self._by, guard=guard, place=place)
        self._around.admitted(run, plan)

    def _already(self, record: RolloutRecord, row: RolloutHost, plan: Plan, *, back: bool) -> None:
        if back:
            self._set(record, row, state=RowState.rolled_back, reason=f"{row.reason}; it still is what it was")
        else:
            self._set(record, row, state=RowState.done, reason=plan.why)

    def _set(self, record: RolloutRecord, row: RolloutHost, **fields: Any) -> None:
        self._store.rollouts.set_hosts(record.id, {row.host: fields})

    def _stop(self, record: RolloutRecord, reason: str) -> None:
        """No more hosts; those under way finish, and are taken in while it is paused."""
        self._store.rollouts.set(record.id, expect=(RolloutState.running,), state=RolloutState.paused, reason=reason)

    def _end(self, record: RolloutRecord, rows: Sequence[RolloutHost], state: RolloutState, reason: str) -> None:
        final = state in waves.ENDED
        for key in [k for k in self._watched if k[0] == record.id]:
            del self._watched[key]
        changes: dict[str, dict[str, Any]] = {
            r.host: {"state": RowState.done, "reason": "its soak was cut short"}
            for r in rows
            if r.state is RowState.soaking
        }
        if final:
            waiting = (r.host for r in self._store.rollouts.hosts(record.id) if r.state is RowState.waiting)
            changes |= {host: {"state": RowState.untouched} for host in waiting}

        # A person's word that came in between (resume, cancel) is not overwritten.
        fields = {"finished": self._clock()} if final else {}
        self._store.rollouts.set(record.id, expect=(record.state,), hosts=changes, state=state, reason=reason, **fields)
        logger.info("%s: %s %s", record.id, state, reason)


def _max_failures(record: RolloutRecord) -> int:
    return max(1, int(record.options.get("max_failures", 1)))


def _as_plan(record: RolloutRecord, scene: Scene) -> Rollout:
    options = record.options
    return Rollout(
        id=record.id,
        verb=record.verb,
        state=record.state,
        rows=tuple(
            Row(
                host=r.host,
                wave=r.wave,
                state=r.state,
                after=r.after,
                returns=r.attempt > 0 and r.before_image is not None and r.before_digest != r.digest,
            )
            for r in scene.rows
        ),
        forgiven=scene.forgiven,
        max_failures=_max_failures(record),
        auto_rollback=bool(options.get("auto_rollback")),
        allow_same_domain=bool(options.get("allow_same_domain")),
        allow_protected=bool(options.get("allow_protected") and options.get("reason")),
        approved=len(options.get("approved_by", ())),
    )
