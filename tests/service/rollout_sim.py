"""A site of a thousand hosts without machines: the store, its guards, `decide` and the driver are the real ones; what a
machine does is drawn by lot, in simulated time. Every act is checked against what is true, not against what is recorded.
"""

from __future__ import annotations

import heapq
import itertools
import random
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.desired.schedules import MaintenanceWindow
from metalimmu.desired.types import HostSpec, Network, ProofRule, Tls
from metalimmu.errors import BmcUnreachable, GuardRefused, LeaseHeld
from metalimmu.lifecycle import Proof, State
from metalimmu.observed.types import SystemIdentity
from metalimmu.plan import waves
from metalimmu.plan.guards import HostRules, PoolRules, Rules, Stage, Standing, World, frozen, refusals
from metalimmu.plan.types import ImageFacts, Plan, PlanStep
from metalimmu.plan.waves import Member, RolloutState, RowState
from metalimmu.service.guarding import act, refused
from metalimmu.service.rollout_driver import Driver
from metalimmu.store.records import ErrorText, HostRecord, Quarantine, RunRecord, RunStatus
from metalimmu.store.rollout_records import FreezeRecord, RolloutHost, RolloutRecord
from metalimmu.store.rollouts import freeze as as_freeze
from metalimmu.store.sqlite import HOSTS, SqliteStore

ACTS = 13  # of one host's run
FAILS = 0.02  # of all acts
DIES = 0.002  # before, and after, each write of the driver
MEANWHILE = 0.2  # of plannings of a way back with no other host under way: a person's word comes before the act
OLD, NEW = "web@1", "web@2"
DAY = 86_400.0
BEGIN = 1_800_000_000.0


class Died(BaseException):
    """kill -9 of the controller."""


class Wrong(BaseException):
    """What may never be."""


class Later:
    """The driver's threads: what they do comes after what the driver and people do meanwhile; the controller dies in it."""

    def __init__(self, meanwhile: Callable[[RolloutRecord], None]) -> None:
        self._meanwhile = meanwhile
        self._asked: list[tuple[Future[None], Callable[[], None]]] = []

    def submit(self, function: Callable[..., None], *args: Any, **kwargs: Any) -> Future[None]:
        def work() -> None:
            if kwargs.get("back"):
                self._meanwhile(args[0])
            function(*args, **kwargs)

        done: Future[None] = Future()
        self._asked.append((done, work))
        return done

    def run(self) -> bool:
        """All that was asked for. Was there anything?"""
        asked, self._asked = self._asked, []
        for done, work in asked:
            work()
            done.set_result(None)
        return bool(asked)


class Mortal:
    """The store, for the driver: the controller dies before or after a write, now and then."""

    def __init__(self, sim: Sim, real: Any) -> None:
        self._sim, self._real = sim, real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name == "rollouts":
            return Mortal(self._sim, found)
        return self._call(name, found) if name in ("admit", "set", "set_hosts", "update_host") else found

    def _call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._sim.maybe_die()
            result = function(*args, **kwargs)
            if name == "admit":
                self._sim.admitted_now(result)
            if name == "update_host":  # quarantine of one that did not stay well: from now on it is known
                self._sim.serving[args[0]] = False
            self._sim.maybe_die()
            return result

        return call


class Sim:
    def __init__(self, seed: int, hosts: int = 1000) -> None:
        self.dice = random.Random(seed)
        self.now = BEGIN + self.dice.random() * 7 * DAY
        self.steady = 0.0
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.store = SqliteStore(Path(self._folder.name) / "store.sqlite", clock=lambda: self.now)
        self.names = [f"n{i:04d}" for i in range(hosts)]
        lots = {name: self.dice.random() for name in self.names}  # a few are new, a few are broken
        self.serving = {name: lot > 0.02 for name, lot in lots.items()}  # what is true
        self.image = {name: OLD if lot > 0.01 else "" for name, lot in lots.items()}
        self.touched = dict.fromkeys(self.names, 0)  # how often each host was taken away from what ran on it
        self.rules = self._rules()
        self.plan_of: dict[str, Plan] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.picked: set[str] = set()
        self.ill: set[str] = set()
        self.freezes: list[str] = []
        self.deaths = self.starts = self.failures = self.returned = 0
        self._hosts()
        self.driver = self._driver()

    def close(self) -> None:
        self.store.close()
        self._folder.cleanup()

    # the site

    def _rules(self) -> Rules:
        dice, names, count = self.dice, self.names, len(self.names)
        cuts = sorted(dice.sample(range(20, count - 20), dice.randrange(0, 4))) if count > 60 else []
        pools: dict[str, PoolRules] = {}
        hosts: dict[str, HostRules] = {}
        for i, (a, b) in enumerate(itertools.pairwise([0, *cuts, count])):
            pool, members = f"p{i}", names[a:b]
            size, active = len(members), sum(self.serving[n] for n in members)
            windows = (MaintenanceWindow(start="08:00", end="20:00"),) if dice.random() < 0.2 else ()
            pools[pool] = PoolRules(
                hosts=frozenset(members),
                min_active=dice.choice([None, int(active * 0.8), active - 10, active - 1]),
                max_unavailable=dice.choice([None, size - active + max(1, size // 20), size - active + 3]),
                windows=windows,
            )
            keyed = dice.random() < 0.5
            for k, name in enumerate(members):
                rack = f"r{k // 20}"
                hosts[name] = HostRules(
                    pool=pool,
                    mode="read-only" if dice.random() < 0.003 else "read-write",
                    protected=dice.random() < 0.003,
                    domains=frozenset({f"rack {pool}-{rack}"}) if keyed else frozenset(),
                    labels={"rack": rack, "pool": pool},
                )
        return Rules(hosts=hosts, pools=pools, max_hosts=dice.choice([5, 20, 60]))

    def _hosts(self) -> None:
        known: dict[str, Any] = {"image": OLD, "digest": digest(OLD)}
        with self.store._db.write() as conn:
            for name in self.names:
                fields = {}
                if self.serving[name]:
                    fields = {"state": State.active, "proof": Proof.proven, **known}
                elif self.image[name]:
                    fields = {"quarantine": Quarantine(reason="disk", since=self.now), **known}
                HOSTS.insert(conn, HostRecord(name=name, **fields))

    # what the driver asks of the site

    def rules_now(self) -> Rules:
        return self.rules

    def inside(self, asked: Any) -> Callable[[Standing], None]:
        def ask(standing: Standing) -> None:
            if said := refusals(asked, World(rules=self.rules, standing=standing), self.now):
                raise refused(said)

        return ask

    def plan(self, rollout: RolloutRecord, row: RolloutHost, *, back: bool) -> Plan:
        if self.dice.random() < FAILS:
            raise BmcUnreachable(f"{row.host}: no answer")
        image = row.before_image if back else row.image
        record = self.store.host(row.host)
        already = record.digest == digest(image or "") and record.proof is Proof.proven and record.quarantine is None
        return plan(row.host, image or "", record.image, steps=not already, verb="rollback" if back else rollout.verb)

    def admitted(self, run: RunRecord, made: Plan) -> None:
        self.plan_of[run.id] = made

    def unwell(self, host: str) -> str:
        """Now and then a host falls ill in its soak, and stays so; or it is only once."""
        lot = self.dice.random()
        if lot < FAILS / 4:
            self.ill.add(host)
        return "HTTP 500" if host in self.ill or lot > 1 - FAILS else ""

    def maybe_die(self) -> None:
        if self.dice.random() < DIES:
            raise Died

    def _driver(self) -> Driver:
        source = _Source(self)
        mortal = Mortal(self, self.store)
        self.workers = Later(self._meanwhile)
        return Driver(
            mortal, source, source, self.workers, by="sim",
            clock=lambda: self.now, monotonic=lambda: self.steady,
        )  # type: ignore[arg-type]  # fmt: skip

    # a person's words

    def ask(self, hosts: list[str], **options: Any) -> str:
        idle = World(rules=self.rules, standing=self.store.rollouts.standing()).idle()
        rows, going = [], []
        for host in hosts:
            said = [r for r in refusals(act("reimage", host, options), idle, self.now) if r.guard != "window"]
            if said:
                rows.append((host, 0, RowState.refused, said[0].text))
            else:
                going.append(
                    Member(host=host, pool=self.rules.hosts[host].pool or "", domains=self.rules.hosts[host].domains)
                )
        sizes = {p: self.dice.choice([3, 10, 50]) for p in self.rules.pools}
        rows += [(host, wave, RowState.waiting, "") for host, wave in waves.waves(going, sizes)]
        soak = self.dice.choice([0.0, 600.0])
        made = [
            RolloutHost(
                rollout="", host=h, seq=i, wave=w, pool=self.rules.hosts[h].pool or "", state=s, reason=r, image=NEW,
                digest=digest(NEW), soak=soak,
            )
            for i, (h, w, s, r) in enumerate(rows)
        ]  # fmt: skip
        name = f"o-20261120-{next(self.order):04d}"
        self.store.rollouts.add(RolloutRecord(id=name, verb="reimage", options=options, by="sim"), made)
        return name

    def mood(self) -> dict[str, Any]:
        """How careful a person is."""
        return {"max_failures": self.dice.choice([1, 3, 10, 1000]), "auto_rollback": self.dice.random() < 0.3}

    # time

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.steady + seconds, next(self.order), what))

    def run(self, rollouts: list[str], *, unrest: bool = True) -> None:
        """Until all have ended. Nothing may be stuck for ever."""
        still = 0
        while True:
            self._tick()
            self._pick_up()
            states = [self.store.rollouts.get(r).state for r in rollouts]
            if all(s in waves.ENDED for s in states):
                return
            if unrest and self.dice.random() < 0.05:
                self._unrest(rollouts)
            for name, state in zip(rollouts, states, strict=True):
                if state in (RolloutState.stopped, RolloutState.paused) and not self._busy(name):
                    self._go_on(name)
            still = 0 if self.events else still + 1
            assert still < 2000, [(r, self.store.rollouts.get(r)) for r in rollouts]
            self._step(300.0 if still < 20 else 3600.0)

    def _busy(self, rollout: str) -> bool:
        counts = self.store.rollouts.counts(rollout)
        return any(counts.get(s) for s in waves.BUSY)

    def _tick(self) -> None:
        try:
            while self.driver.tick() or self.workers.run():
                pass
        except Died:
            self.deaths += 1
            self.driver = self._driver()

    def _step(self, idle: float) -> None:
        """To the next event; all that are due at once."""
        if not self.events:
            self._pass(idle)
            return
        self._pass(max(0.0, self.events[0][0] - self.steady))
        while self.events and self.events[0][0] <= self.steady + 60:
            heapq.heappop(self.events)[2]()

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds

    def _unrest(self, rollouts: list[str]) -> None:
        """Freezes in mid-wave, pauses, a clock that jumps, a person who switches a machine off."""
        lot = self.dice.random()
        if lot < 0.4:
            selector = self.dice.choice(["", f"rack=r{self.dice.randrange(10)}", "pool=p0"])
            until = self.now + self.dice.choice([600.0, 7200.0])
            name = f"f-{next(self.order)}"
            self.store.rollouts.freeze(
                FreezeRecord(id=name, reason="sim", by="sim", selector=selector, since=self.now, until=until)
            )
        elif lot < 0.6:
            name = self.dice.choice(rollouts)
            self.store.rollouts.set(name, expect=(RolloutState.running,), state=RolloutState.paused)
        elif lot < 0.7:
            self.now += self.dice.choice([-3600.0, 3600.0])
        else:
            self._power_off(self.dice.choice(list(self.rules.hosts)))

    def _meanwhile(self, rollout: RolloutRecord) -> None:
        """While a host is looked at, a person pauses or cancels its rollout, and the driver hears it first: with nothing
        else to be finished, that is its end.
        """
        if self.dice.random() < MEANWHILE and not self._busy(rollout.id):
            state = self.dice.choice([RolloutState.paused, RolloutState.cancelling])
            self.store.rollouts.set(rollout.id, expect=(RolloutState.running,), state=state)
            self.driver.tick()

    def _power_off(self, host: str) -> None:
        asked = act("power off", host, {})
        try:
            self.store.acquire_lease(host, "power off r-1", "sim", guard=self.inside(asked))
        except (GuardRefused, LeaseHeld):
            return
        self._taken(host)
        self.store.update_host(host, power="Off")
        self.store.release_lease(host, "power off r-1")
        self.at(1800.0, lambda: self._power_on(host))

    def _power_on(self, host: str) -> None:
        try:
            self.store.acquire_lease(host, "power on r-1", "sim", guard=self.inside(act("power on", host, {})))
        except (GuardRefused, LeaseHeld):
            self.at(300.0, lambda: self._power_on(host))
            return
        record = self.store.host(host)
        self.serving[host] = record.state is State.active and record.quarantine is None
        self.store.update_host(host, power="On")
        self.store.release_lease(host, "power on r-1")

    def _go_on(self, name: str) -> None:
        """A person has looked, and goes on."""
        stopped = self.store.rollouts.get(name).state is RolloutState.stopped
        if stopped and self.dice.random() < 0.02:
            self.store.rollouts.set(name, state=RolloutState.cancelling)
            return
        rows = self.store.rollouts.scene(name).rows if stopped else []
        forgiven = {r.host: {"forgiven": True} for r in rows if r.state in waves.WENT_WRONG}
        if stopped and not forgiven:  # nothing could go on: what is broken is looked after
            self._mend()
        self.store.rollouts.set(name, hosts=forgiven, state=RolloutState.running)

    def _mend(self) -> None:
        """Hosts in quarantine are repaired by hand, and documents are changed."""
        for name, record in self.store.hosts().items():
            if record.quarantine is not None and self.store.lease(name) is None:
                self.store.update_host(name, state=State.deploying)
                self.store.update_host(
                    name, state=State.active, proof=Proof.proven, quarantine=None, image=OLD, digest=digest(OLD)
                )
                self.serving[name], self.image[name] = True, OLD
        allowed = {
            n: msgspec.structs.replace(h, mode="read-write", protected=False) for n, h in self.rules.hosts.items()
        }
        self.rules = msgspec.structs.replace(self.rules, hosts=allowed)

    # the machines

    def _pick_up(self) -> None:
        for run in self.store.runs(status=RunStatus.queued, limit=1000):
            if run.id not in self.picked:
                self.picked.add(run.id)
                self._execute(run)

    def _execute(self, run: RunRecord) -> None:
        self.starts += 1
        fails_at = next((i for i in range(ACTS) if self.dice.random() < FAILS), None)
        if fails_at is not None and self.dice.random() < 0.3:
            fails_at = None  # a BMC that was away for a while
        if self.dice.random() < 0.001:
            self.at(60.0, lambda: self._ends(run, fails_at, in_time=False))
        self.at(60.0, lambda: self._ends(run, fails_at))

    def admitted_now(self, run: RunRecord) -> None:
        """Nothing may begin that a guard forbids. The driver takes an Exception for a fault of ours and goes on."""
        try:
            self._begins(run)
        except AssertionError as exc:
            raise Wrong(run) from exc

    def _begins(self, run: RunRecord) -> None:
        """Checked by our own counting."""
        host, rules = run.host, self.rules
        assert self.store.rollouts.get(run.options["rollout"]).state is RolloutState.running
        mine = rules.hosts[host]
        changing = {r.host for r in self.store.runs(status=(RunStatus.queued, RunStatus.running), limit=5000)}
        assert len(changing) <= rules.max_hosts
        assert mine.mode == "read-write"
        assert not mine.protected
        for other in changing - {host}:
            assert not (mine.domains & rules.hosts[other].domains), (host, other)
        assert not any(frozen(as_freeze(f), mine) for f in self.store.rollouts.freezes()), host
        if rules.pools[mine.pool or ""].windows and not run.options["returning"]:
            assert 8 <= (self.now % DAY) / 3600 < 20
        self._wave(run)

    def _wave(self, run: RunRecord) -> None:
        """Waves before are over; a first host is alone; no start after too many failures."""
        name = run.options["rollout"]
        if run.options["returning"]:
            return
        mine = "SELECT wave FROM rollout_hosts WHERE rollout = ? AND host = ?"
        opened = "state IN ('waiting', 'running', 'soaking', 'rolling-back')"
        sql = f"SELECT count(*) FROM rollout_hosts WHERE rollout = ? AND {opened} AND wave < ({mine})"
        assert self._count(sql, name, name, run.host) == 0
        sql = "SELECT count(*) FROM rollout_hosts WHERE rollout = ? AND state = 'failed' AND NOT forgiven"
        assert self._count(sql, name) < max(1, run.options["max_failures"])

    def _count(self, sql: str, *params: str) -> int:
        with self.store._db.read() as conn:
            return int(conn.execute(sql, params).fetchone()[0])

    def _ends(self, run: RunRecord, fails_at: int | None, *, in_time: bool = True) -> None:
        host, made = run.host, self.plan_of.get(run.id) or Plan.decode(run.plan)
        if self.store.run(run.id).status in (RunStatus.failed, RunStatus.succeeded):
            return
        error = self._asked_again(run, Stage.begin) or (BmcUnreachable("away") if fails_at in (0, 1) else None)
        if error is None:
            record = self.store.host(host)
            self.store.update_host(host, state=State.deploying)
            error = self._asked_again(run, Stage.power, was=record)
            if error is None and fails_at in (2, 3):
                error = BmcUnreachable("away")
            if error is not None:
                self.store.update_host(host, state=record.state if record.state is State.active else State.enrolled)
        if error is not None:
            self._ended(run, error)
            return
        self.touched[host] += 1
        self._taken(host)
        self.store.update_host(host, proof=Proof.unproven)
        self.at(600.0, lambda: self._written(run, made, fails_at))

    def _asked_again(self, run: RunRecord, stage: Stage, was: Any = None) -> Exception | None:
        record = was or self.store.host(run.host)
        costs = record.state is State.active and record.quarantine is None and record.power != "Off"
        asked = act(run.verb, run.host, run.options, stage=stage, costs=costs)
        try:
            self.inside(asked)(self.store.rollouts.standing())
        except GuardRefused as exc:
            return exc
        return None

    def _taken(self, host: str) -> None:
        """The one moment in which a machine stops to serve because of us."""
        if not self.serving[host]:
            return
        self.serving[host] = False
        mine = self.rules.hosts[host]
        pool = self.rules.pools[mine.pool or ""]
        active = sum(self.serving[h] for h in pool.hosts)
        if pool.min_active is not None:
            assert active >= pool.min_active, (host, active, pool.min_active)
        if pool.max_unavailable is not None:
            assert len(pool.hosts) - active <= pool.max_unavailable, (host, active)

    def _written(self, run: RunRecord, made: Plan, fails_at: int | None) -> None:
        host, record = run.host, self.store.host(run.host)
        if fails_at is not None:
            quarantine = Quarantine(reason="failed", since=self.now, run=run.id)
            error = ErrorText(code="StepTimeout", message="report: nothing", at=self.now)
            gone = {"image": None, "digest": None, "previous_image": record.image} if fails_at > 7 else {}
            self.store.update_host(host, state=State.enrolled, quarantine=quarantine, error=error, **gone)
            self._ended(run, error)
            return
        self.serving[host] = True
        self.ill.discard(host)
        self.image[host] = made.image.ref
        self.returned += bool(run.options["returning"])
        self.store.update_host(
            host, state=State.active, proof=Proof.proven, image=made.image.ref, digest=made.image.digest,
            previous_image=record.image, quarantine=None, power="On",
        )  # fmt: skip
        self._ended(run, None)

    def _ended(self, run: RunRecord, error: Any) -> None:
        status = RunStatus.succeeded if error is None else RunStatus.failed
        said = (
            error
            if error is None or isinstance(error, ErrorText)
            else ErrorText(code=error.code, message=error.message)
        )
        self.failures += error is not None
        self.store.set_run(run.id, status=status, finished=self.now, error=said)
        self.store.release_lease(run.host, run.id)

    # the end

    def check_end(self) -> None:
        """Every host is proven, in quarantine, or as it was; and a run that was begun has ended."""
        assert self.store.leases() == []
        runs = self.store.runs(limit=100_000)
        assert all(r.status in (RunStatus.succeeded, RunStatus.failed) for r in runs)
        for name, record in self.store.hosts().items():
            proven = record.state is State.active and record.proof is Proof.proven and record.quarantine is None
            if proven:
                assert record.image == self.image[name], name
            elif record.quarantine is None:
                assert self.touched[name] == 0, (name, record)


class _Source:
    """Guards and site in one, as the driver sees them."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self.plan, self.inside, self.admitted, self.unwell = sim.plan, sim.inside, sim.admitted, sim.unwell

    def rules(self) -> Rules:
        return self._sim.rules


def digest(image: str) -> str:
    return f"sha256:{image}"


_SPEC = HostSpec(
    name="", bmc="fake://x", system=None, serial=None, credentials=None, tls=Tls(), proxy=None, connect_timeout=1.0,
    read_timeout=1.0, mode="read-write", nics=(), network=Network(), role=None, pool=None, image=None, digest=None, held=None,
    boot="auto", firmware="uefi", ramdisk="fake", root_disk={}, wipe_signatures=False, proof=ProofRule(), templates={}, vars={},
    labels={}, protected=False, limits={},
)  # fmt: skip
_IDENTITY = SystemIdentity(system_id="1", uri="/x")
_STEP = PlanStep(name="preflight", title="", limit=1.0, seconds=1.0)


def plan(host: str, image: str, before: str | None, *, steps: bool, verb: str) -> Plan:
    facts = ImageFacts(
        ref=image, digest=digest(image), kind="disk", architecture="x86_64", firmware=("uefi",), size=1, all_bytes=1
    )
    return Plan(
        verb=verb, host=host, spec=_SPEC, image=facts, previous=before, previous_digest=digest(before) if before else None,
        identity=_IDENTITY, method="virtual-media", why="", findings=(), steps=(_STEP,) if steps else (), transfer=0,
    )  # fmt: skip


def scenario(seed: int, hosts: int) -> dict[str, int]:
    """Two people bring a site to its new image, in rollouts that overlap, until hardly a host is left."""
    sim = Sim(seed, hosts)
    try:
        for _ in range(3):
            left = [n for n in sim.names if sim.image[n] != NEW]
            if len(left) < hosts // 20:
                break
            asked = [sim.ask(sim.dice.sample(left, max(1, int(len(left) * 0.7))), **sim.mood()) for _ in range(2)]
            sim.run(asked)
            sim.check_end()
        return {
            "starts": sim.starts,
            "failures": sim.failures,
            "deaths": sim.deaths,
            "returned": sim.returned,
            "new": sum(image == NEW for image in sim.image.values()),
        }
    finally:
        sim.close()
