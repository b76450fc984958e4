"""`kill -9` of the controller at every step, before it did anything and after it did everything but note it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import forked
import killed
import msgspec
import pytest
from rack import Rack

import metalimmu
from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.plan.reimage import TITLES
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus

HERE = Path(__file__).parent

EVERY_STEP = {
    "hooks": {"before": ["true"], "after": ["true"]},
    "health": {"command": "true", "for": "300ms", "every": "100ms"},
    "salvage": {"paths": ["/var/log"], "limit": "1MB"},
    "erase": [{"disk": "root", "how": "zero"}],
}
ELSEWHERE = {"erase-after"}  # needs a second disk


def controller(rack: Rack, step: str, when: str = "", package: Path | None = None) -> subprocess.CompletedProcess[str]:
    if package is None:
        return forked.run(killed.main, rack.site, step, when)
    path = os.pathsep.join((str(package), str(HERE), str(HERE.parent)))
    return subprocess.run(
        [sys.executable, str(killed.__file__), str(rack.site), step, when],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


def killed_and_resumed(
    folder: Path,
    step: str,
    when: str,
    package: Path | None = None,
    *,
    fault: tuple[Any, ...] = (),
    targets: tuple[str, ...] = (),
    **role: Any,
) -> dict[str, Any]:
    """`targets`: for the boot override, that the BMC names."""
    with ExitStack() as stack:
        rack = Rack(folder)
        rack.write("roles/web.yaml", {"image": "web@1", "ramdisk": "fake", **EVERY_STEP, **role})
        rack.write("pools/new.yaml", {"burn_in": {"cpu": "1s"}})
        hosts = rack.site / "hosts/rack.yaml"
        hosts.write_text(f"{hosts.read_text()}  pool: new\n")
        rack.power_up(stack, pace=0.3)
        if fault:
            rack.fault("node-1", *fault)
        FileMachine(rack.state("node-1")).update(lambda m: msgspec.structs.replace(m, targets=targets))
        died = controller(rack, step, when)
        if died.returncode == 0 and step == "nth write":
            return {"writes": int(when)}  # it has fewer
        assert died.returncode == -9, died.stderr[-2000:]
        again = controller(rack, "resume", package=package)
        assert again.returncode == 0, again.stderr[-2000:]
        site = OpenSite(rack.site)
        (run,) = site.store.runs()
        assert run.status is RunStatus.succeeded, (step, when, run.error)
        host = site.store.host("node-1")
        assert (host.state, host.proof, host.image) == ("active", "proven", "web@1")
        deployment = site.store.deployment(run.id)
        assert deployment.report is not None
        machine = rack.machine("node-1")
        assert machine.media["Cd"].image is None
        assert machine.boot.enabled == "Disabled"
        site.close()
        return {
            "step": step,
            "when": when,
            "boots": machine.generation - 1,
            "chunks": deployment.report.fetched_chunks,
            "method": deployment.method,
            "run": again.stdout,
        }


def test_resume_finishes_whatever_step_the_controller_died_in(tmp_path: Path) -> None:
    cases = [(step, when) for step in TITLES if step not in ELSEWHERE for when in ("before", "after")]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda c: killed_and_resumed(tmp_path / f"{c[0]}-{c[1]}", *c), cases))
    assert len(results) == len(cases)
    for found in results:
        assert found["boots"] == 2, found  # not one more than without the crash
        assert found["chunks"] == 4, found  # nothing was written twice


def test_resume_finishes_after_whichever_write_the_controller_died(tmp_path: Path) -> None:
    """In the middle of an act too: between any two writes to store or BMC."""
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda n: killed_and_resumed(tmp_path / str(n), "nth write", str(n)), range(1, 26)))
    died = [r for r in results if "boots" in r]
    assert 10 < len(died) < len(results), [r.get("writes") for r in results]  # all of them, and the count is right
    for found in died:
        assert found["boots"] == 2, found
        assert found["chunks"] == 4, found


@pytest.mark.parametrize("step", ["insert", "write"])
def test_the_program_is_upgraded_in_mid_run(tmp_path: Path, step: str) -> None:
    """The newer program has other sources, another version and one step more: the run goes on by its own plan."""
    newer = tmp_path / "newer"
    shutil.copytree(Path(metalimmu.__file__).parent, newer / "metalimmu", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pxe", "profiles"):
        (newer / name).symlink_to(Path(metalimmu.__file__).parent.parent / name)
    _change(newer / "metalimmu" / "__init__.py", f'"{metalimmu.__version__}"', '"99.0"')
    _change(
        newer / "metalimmu" / "plan" / "reimage.py",
        '"prove": "prove and record",',
        '"prove": "prove", "celebrate": "new in 99.0",',
    )
    _change(newer / "metalimmu" / "workflows" / "reimage.py", "_CLEAN_UP = 120.0", "_CLEAN_UP = 121.0")
    found = killed_and_resumed(tmp_path / "rack", step, "before", package=newer)
    assert found["boots"] == 2


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, (file, old)
    file.write_text(text.replace(old, new))
