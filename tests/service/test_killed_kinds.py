"""`kill -9` of the controller in the middle of somebody else's installer: it waits for its answers and for its go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rack import Rack
from test_booted_kinds import bootable
from test_killed import controller

from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus

CASES = [("fetch", "after"), ("install", "after"), ("boot", "after")]


def killed_and_resumed(folder: Path, step: str, when: str) -> tuple[int, int]:
    with ExitStack() as stack:
        rack = Rack(folder)
        rack.write("roles/web.yaml", {"image": bootable(rack, "debian@12", "installer", answers="preseed")})
        rack.power_up(stack, pace=0.3)
        died = controller(rack, step, when)
        assert died.returncode == -9, died.stderr[-2000:]
        again = controller(rack, "resume")
        assert again.returncode == 0, again.stderr[-2000:]
        site = OpenSite(rack.site)
        (run,) = site.store.runs()
        assert run.status is RunStatus.succeeded, (step, when, run.error)
        host = site.store.host("node-1")
        assert (host.state, host.proof, host.image) == ("active", "proven", "debian@12")
        machine = rack.machine("node-1")
        assert (machine.media["Cd"].image, machine.boot.enabled) == (None, "Disabled")
        fetches = site.store.deployment(run.id).fetches
        site.close()
        return machine.generation - 1, fetches


def test_an_installer_outlives_its_controller(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda c: killed_and_resumed(tmp_path / "-".join(c), *c), CASES))
    assert results == [(2, 1)] * len(CASES)  # not one boot more than without the crash, and nothing installed twice
