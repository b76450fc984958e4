"""A hundred reimages at once in one controller process, on fake BMCs and simulated machines.

The controller is all that metalimmu is: documents, plans, runs in the engine, store, boot service with TLS and chunks.
It runs in a process of its own, so that its memory (VmHWM of /proc/PID/status: the most that it ever had) and its CPU
(user and system) are its alone. The machines live in another process: each reads its boot media over HTTP, checks in over
pinned TLS, fetches every chunk, checks each, reads back, reports, and reports once more as the new system. They pause as
real ones do. Both processes are bound to two processors.

There is no competitor: what is claimed is a limit (400 MB), and that none is lost. "Not lost" is asked of both sides:
the store says succeeded, active and proven for every host, and every machine's disk holds exactly the image's chunks.
CPU per reimage is told in parts: planning (what the command line does before the run) and running.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.options import options
from benchmarks.processes import ROOT
from benchmarks.result import Result, limited, told

MEMORY = 400.0  # MB
CPUS = 2
IMAGE = 16  # MiB, two of them zeros
LIMITS = {"power": "2m", "media": "2m", "check_in": "10m", "stall": "5m", "phone_home": "10m", "bmc": "2m"}
DEADLINE = 1500.0


def run() -> list[Result]:
    hosts = 8 if options().quick else 100
    rounds = [_once(hosts) for _ in range(options().repeat(3))]
    good = all(r["succeeded"] == r["proven"] == r["disks"] == hosts for r in rounds)
    name = f"{hosts} reimages at once"
    more = {"rounds": rounds}
    return [
        limited(
            f"{name}: memory of the controller", [r["memory_mb"] for r in rounds], MEMORY, unit="MB", equal=good, **more
        ),
        limited(f"{name}: lost", [float(hosts - r["succeeded"]) for r in rounds], 0, unit="hosts", equal=good),
        told(f"{name}: CPU of a run", [r["run_cpu"] / hosts * 1e3 for r in rounds], unit="ms", equal=good),
        told(f"{name}: CPU of its plan", [r["plan_cpu"] / hosts * 1e3 for r in rounds], unit="ms"),
        told(f"{name}: at work at one moment", [float(r["most_at_once"]) for r in rounds], unit="runs"),
        told(f"{name}: all done after", [r["run_wall"] for r in rounds], unit="s"),
    ]


def _once(hosts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        me = [sys.executable, "-m", "benchmarks.fakes_100"]
        machines = subprocess.Popen(
            [*me, "machines", folder, str(hosts)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert machines.stdin is not None
        assert machines.stdout is not None
        try:
            if machines.stdout.readline() != b"ready\n":
                raise RuntimeError("the simulated machines did not start")
            done = subprocess.run(
                [*me, "controller", folder], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=DEADLINE + 120
            )
            machines.stdin.close()
            disks = json.loads(machines.stdout.readline())
            machines.wait(60)
        finally:
            machines.kill()
            machines.wait()
            machines.stdout.close()
        return {**json.loads(done.stdout), "disks": disks["right"], "machines_cpu": disks["cpu"]}


def _bind() -> None:
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CPUS]))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- the other processes


def machines(folder: Path, hosts: int) -> None:
    """Until standard input ends; then how many disks are right."""
    sys.path.insert(0, str(ROOT / "tests"))
    from rack import Rack  # type: ignore[import-not-found]  # of the tests

    from metalimmu.images.catalogue import Catalogue

    _bind()
    rack = Rack(folder, hosts, mib=IMAGE, images=("web@1",), limits=LIMITS)
    with ExitStack() as stack:
        live = rack.power_up(stack, pace=1.0)
        print("ready", flush=True)
        sys.stdin.read()
        image = Catalogue(rack.site / ".metalimmu" / "images").get("web@1")
        wanted = {i: c for i, c in enumerate(image.manifest.chunks) if c is not None}
        right = sum(m.disk.complete == image.digest and m.disk.chunks == wanted for m in live.values())
        print(json.dumps({"right": right, "cpu": round(_cpu(), 2)}), flush=True)


def controller(folder: Path) -> None:
    from metalimmu.lifecycle import Proof, State
    from metalimmu.service.planning import plan_host
    from metalimmu.service.runs import submit
    from metalimmu.service.site import OpenSite
    from metalimmu.service.worker import Worker
    from metalimmu.store.records import FINAL, Outcome, RunStatus

    _bind()
    site = OpenSite(folder / "site")
    names = list(site.docs.hosts)
    runs = []
    for name in names:
        plan = plan_host(site, name)
        runs.append(submit(site, plan).id)
    planned = _cpu()
    began = time.monotonic()
    worker = Worker(site)
    worker.try_start()
    most = 0
    try:
        while True:
            # One transaction a second: the watcher's own cost is in the controller's, as a watching person's would be.
            now = site.store.runs(limit=len(runs) + 1)
            most = max(most, sum(r.status is RunStatus.running for r in now))
            if all(r.status in FINAL for r in now):
                break
            if time.monotonic() - began > DEADLINE:
                break
            time.sleep(1)
        wall = time.monotonic() - began
        # Runs that the engine has taken on, and of these, at one moment, those that were in a step.
        spans = sorted(
            edge
            for run in runs
            for edge in _edges([s for s in site.store.steps(run) if s.outcome is not Outcome.running])
        )
        found = [site.store.run(r) for r in runs]
        hosts = [site.store.host(n) for n in names]
        deployments = [site.store.deployment(r.id) for r in found if r.status is RunStatus.succeeded]
        result = {
            "succeeded": sum(r.status is RunStatus.succeeded for r in found),
            "proven": sum(h.state is State.active and h.proof is Proof.proven for h in hosts),
            "most_at_once": _overlap(spans),
            "running_at_once": most,
            "run_wall": round(wall, 2),
            "plan_cpu": round(planned, 2),
            "run_cpu": round(_cpu() - planned, 2),
            "memory_mb": _peak(),
            "served_mb": round(sum(d.chunk_bytes + d.media_bytes for d in deployments) / 1e6),
            "failures": [f"{r.host}: {r.error.message if r.error else r.status}" for r in found if r.status is not RunStatus.succeeded],
        }  # fmt: skip
    finally:
        worker.stop()
        site.close()
    print(json.dumps(result))


def _edges(steps: list[Any]) -> list[tuple[float, int]]:
    """A run is at work from its first step's beginning to its last one's end."""
    return [(steps[0].started, 1), (steps[-1].finished, -1)] if steps else []


def _overlap(edges: list[tuple[float, int]]) -> int:
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


def _peak() -> float:
    """VmHWM (proc(5)) in MB of 10^6 bytes."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


if __name__ == "__main__":
    if sys.argv[1] == "machines":
        machines(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        controller(Path(sys.argv[2]))
