"""Image fan-out over many machines: those that wait for their turn do not run out of time."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from drive import finish
from rack import Rack

from metalimmu.boot import limits
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import submit
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus

SHORT = {"power": "5s", "media": "5s", "check_in": "10s", "stall": "3s", "phone_home": "10s", "bmc": "6s"}


def test_machines_that_wait_for_their_turn_do_not_run_out_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SETTLE", 7.0)  # a controller that has just started: all of them wait twice their limit
    rack = Rack(tmp_path, 3, limits=SHORT)
    document = yaml.safe_load((rack.site / "site.yaml").read_text())
    rack.write("site.yaml", document | {"boot": {"agents": 1}})
    with ExitStack() as stack:
        rack.power_up(stack, pace=0.1)
        site = OpenSite(rack.site)
        stack.callback(site.close)
        runs = [submit(site, plan_host(site, host)).id for host in rack.names]
        writing: list[int] = []
        ended = threading.Event()

        def watch() -> None:
            seen = OpenSite(rack.site)
            while not ended.wait(0.05):
                live = seen.store.deployments(live=True)
                writing.append(sum(d.queued is None and d.chunk_bytes > 0 and d.report is None for d in live))
            seen.close()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert [r.status for r in finish(site, runs)] == [RunStatus.succeeded] * 3
        finally:
            ended.set()
            watcher.join()
        waited = [site.store.history(run=run, kind="waits") for run in runs]
        assert all(len(events) >= 1 for events in waited)
        assert "boot.agents" in waited[0][0].text
        assert max(writing) <= 1
        assert all(site.store.deployment(run).queued is None for run in runs)
