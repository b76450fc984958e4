"""A run survives the death of its worker, and no finished step is done twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metalimmu.engine.lock import WorkerLock

WORKER = Path(__file__).with_name("engine_worker.py")


def work(tmp_path: Path, mode: str) -> tuple[int, list[str]]:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path / "engine.sqlite"), str(log), mode],
        check=False,
        timeout=90,
        capture_output=True,
        text=True,
    )
    lines = log.read_text().splitlines()
    log.write_text("")
    return done.returncode, lines


@pytest.mark.parametrize("end", ["die", "interrupt"])
def test_a_run_goes_on_at_the_step_it_was_in(tmp_path: Path, end: str) -> None:
    code, lines = work(tmp_path, end)
    assert code == (-9 if end == "die" else 0)
    assert lines == ["step 0", "step 1", "step 2"]
    code, lines = work(tmp_path, "resume")
    assert code == 0
    assert lines == ["left ['run-1']", "step 2", "step 3", "run-1 total 6"]


def test_one_id_is_executed_once(tmp_path: Path) -> None:
    assert work(tmp_path, "run") == (0, ["step 0", "step 1", "step 2", "step 3", "run-1 total 6"])
    assert work(tmp_path, "run") == (0, [])


def test_one_worker_per_site(tmp_path: Path) -> None:
    first, second = WorkerLock(tmp_path / "lock"), WorkerLock(tmp_path / "lock")
    assert first.take()
    assert first.take()
    assert not second.take()
    assert "pid" in second.holder()
    first.release()
    assert second.take()
    second.release()
