"""Run a reimage on a Rack in this process, or in one that a test can kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metalimmu.service.planning import plan_host
from metalimmu.service.runs import submit
from metalimmu.service.site import OpenSite
from metalimmu.service.worker import Worker
from metalimmu.store.records import FINAL, RunRecord, RunStatus

PACE = 0.1  # of a second's pause


def reimage(
    folder: Path,
    host: str = "node-1",
    *,
    deadline: float = 90,
    planned: Callable[[], object] = lambda: None,
    **options: Any,
) -> RunRecord:
    """`planned` is called between plan and run: what goes wrong then was not foreseen."""
    site = OpenSite(folder)
    try:
        plan = plan_host(site, host, **options)
        planned()
        run = submit(site, plan)
        return finish(site, [run.id], deadline=deadline)[0]
    finally:
        site.close()


def finish(site: OpenSite, runs: list[str], *, deadline: float = 90) -> list[RunRecord]:
    """Be the worker until these runs have ended."""
    worker = Worker(site, pace=PACE)
    end = time.monotonic() + deadline
    try:
        while True:
            worker.try_start()
            records = [site.store.run(r) for r in runs]
            if all(r.status in FINAL or r.status is RunStatus.interrupted for r in records):
                return records
            if time.monotonic() > end:
                raise AssertionError([(r.id, r.status, site.store.steps(r.id)[-1:]) for r in records])
            time.sleep(0.05)
    finally:
        worker.stop()
