"""A rack with saved plans: make, sign, apply, and be the worker until it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import yaml
from drive import PACE
from rack import LIMITS, Rack
from signing import allow, key

from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.plan.saved import Saved
from metalimmu.service import rollouts
from metalimmu.service.saved_plans import apply as applying
from metalimmu.service.saved_plans import approvals, make
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import FINAL, RunRecord
from metalimmu.store.rollout_records import RolloutRecord

SHORT = {**LIMITS, "check_in": "8s", "phone_home": "6s", "bmc": "5s"}


class SavedSite:
    """Hosts of pool web, whose fields are `pool`; people alice, bob and carol may sign."""

    def __init__(self, folder: Path, stack: ExitStack, hosts: int = 2, **pool: Any) -> None:
        self.rack = Rack(folder, hosts, mib=3, limits=SHORT)
        self.stack = stack
        self.file = folder / "fleet.plan"
        documents = yaml.safe_load((self.rack.site / "hosts/rack.yaml").read_text())
        self.rack.write("hosts/rack.yaml", [h | {"pool": "web"} for h in documents])
        self.rack.write("pools/web.yaml", pool)
        self.keys = {n: key(folder / "keys", n) for n in ("alice", "bob", "carol")}
        allow(self.rack.site, *self.keys.values())
        self.open()

    def open(self) -> OpenSite:
        """Documents as they are now, as a new process sees them."""
        self.site = OpenSite(self.rack.site)
        self.stack.callback(self.site.close)
        return self.site

    def plan(self, *hosts: str, author: str = "", **options: Any) -> Saved:
        signer = self.keys[author] if author else None
        content = make.make(self.site, hosts or self.rack.names, key=signer, **options)
        return make.write(self.site, content, self.file, key=signer)

    def approve(self, name: str) -> None:
        saved = make.load(self.file)
        assert approvals.add(self.file, saved.digest, self.keys[name], approvals.Signers(self.rack.site))

    def check(self, **options: Any) -> applying.Checked:
        return applying.check(self.open(), make.load(self.file), self.file, **options)

    def apply(self, **options: Any) -> str:
        return applying.carry_out(self.site, self.check(**options))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.rack.site / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def machine(self, host: str, **fields: Any) -> None:
        FileMachine(self.rack.state(host)).update(lambda m: msgspec.structs.replace(m, **fields))

    def power_up(self, **more: Any) -> None:
        self.rack.power_up(self.stack, pace=0.2, **more)

    def finish(self, work: str, *, tick: Callable[[], object] = lambda: None, deadline: float = 120) -> Any:
        """The ended run or rollout."""
        worker = Worker(self.site, pace=PACE)
        end = time.monotonic() + deadline
        try:
            while True:
                worker.try_start()
                worker.check()
                tick()
                record = self.record(work)
                if isinstance(record, RolloutRecord):
                    ended = rollouts.halted(self.site, record)
                else:
                    ended = record.status in FINAL
                if ended:
                    return record
                assert time.monotonic() < end, record
                time.sleep(0.05)
        finally:
            worker.stop()

    def record(self, work: str) -> RunRecord | RolloutRecord:
        return self.site.store.rollouts.get(work) if work.startswith("o-") else self.site.store.run(work)

    def states(self, rollout: str) -> dict[str, str]:
        return {r.host: str(r.state) for r in self.site.store.rollouts.hosts(rollout)}
