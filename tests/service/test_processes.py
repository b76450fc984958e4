"""Several `metalimmu` on one site: interrupted, killed, taken over, out of disk."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rack import Rack

from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus

DEADLINE = 120


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(rack: Rack, *args: str, limit: int | None = None) -> subprocess.Popen[str]:
    def small() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "metalimmu", "--site", str(rack.site), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=small,  # noqa: PLW1509
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(out + err) from None
    return process.returncode, out, err


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def waiting_in(rack: Rack, step: str, host: str = "node-1") -> bool:
    store = OpenSite(rack.site).store
    runs = store.runs(host=host)
    steps = store.steps(runs[0].id) if runs else []
    found = bool(steps) and steps[-1].name == step
    store.close()
    return found


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_a_run_that_resume_finishes(
    tmp_path: Path, stack: ExitStack, sign: signal.Signals
) -> None:
    rack = Rack(tmp_path)
    rack.power_up(stack, faults={"node-1": {"network_cut": "6"}})
    first = start(rack, "reimage", "node-1", "--yes")
    until(lambda: waiting_in(rack, "write"), "the write never began")
    first.send_signal(sign)
    code, _, err = end(first)
    assert code == 130
    assert "run resume" in err
    store = OpenSite(rack.site).store
    (run,) = store.runs()
    assert run.status is RunStatus.interrupted

    code, _, err = end(start(rack, "reimage", "node-1", "--yes"))
    assert code == 1
    assert run.id in err  # the host is that run's, and says so

    code, out, err = end(start(rack, "run", "resume", run.id))
    assert code == 0, out + err
    assert store.run(run.id).status is RunStatus.succeeded
    assert rack.machine("node-1").generation == 3
    store.close()


def test_a_waiting_process_takes_over_from_a_dead_worker(tmp_path: Path, stack: ExitStack) -> None:
    rack = Rack(tmp_path, hosts=2)
    rack.power_up(stack, faults={"node-1": {"network_cut": "6"}, "node-2": {"network_cut": "6"}})
    first = start(rack, "reimage", "node-1", "--yes")
    until(lambda: waiting_in(rack, "write"), "the first never wrote")
    second = start(rack, "reimage", "node-2", "--yes")
    until(lambda: waiting_in(rack, "write", "node-2"), "the worker never took the second run")
    first.kill()
    first.communicate()
    code, out, err = end(second)
    assert code == 0, out + err
    store = OpenSite(rack.site).store
    until(lambda: len(store.runs()) == 2, "a run was lost")
    code, out, err = (
        end(start(rack, "run", "resume", store.runs(host="node-1")[0].id))
        if store.run(store.runs(host="node-1")[0].id).status != RunStatus.succeeded
        else (0, "", "")
    )
    assert code == 0, out + err
    assert {r.status for r in store.runs()} == {RunStatus.succeeded}
    assert [rack.machine(n).generation for n in rack.names] == [3, 3]
    store.close()


def test_killed_and_started_again_it_goes_on_by_itself(tmp_path: Path, stack: ExitStack) -> None:
    rack = Rack(tmp_path, hosts=2)
    rack.power_up(stack, faults={"node-1": {"network_cut": "4"}})
    first = start(rack, "reimage", "node-1", "--yes")
    until(lambda: waiting_in(rack, "write"), "the write never began")
    first.kill()
    first.communicate()
    code, out, err = end(start(rack, "run", "resume", OpenSite(rack.site).store.runs()[0].id))
    assert code == 0, out + err
    assert "web@1 proven" in out


@pytest.mark.parametrize("limit", [200_000, 340_000])  # no room for the engine; room for it, and not for the run
def test_the_controllers_disk_is_full(tmp_path: Path, stack: ExitStack, limit: int) -> None:
    rack = Rack(tmp_path)
    rack.power_up(stack)
    code, out, err = end(start(rack, "reimage", "node-1", "--yes", limit=limit))
    assert code != 0
    assert "hint:" in err, out + err
    assert "Traceback" not in err
    assert "disk" in err or "full" in err, err
    store = OpenSite(rack.site).store
    left = [r for r in store.runs() if r.status not in (RunStatus.failed, RunStatus.cancelled)]
    args = ("run", "resume", left[0].id) if left else ("reimage", "node-1", "--yes")
    code, out, err = end(start(rack, *args))
    assert code == 0, out + err
    assert store.host("node-1").proof == "proven"
    store.close()
