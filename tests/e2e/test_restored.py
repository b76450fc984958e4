"""The controller's state is lost while real machines are being written: two, or as many as METALIMMU_LOST says (`make
long`: ten). It is restored, and they never notice.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from e2e_rig import Rig

from metalimmu.service.site import OpenSite

pytestmark = [pytest.mark.e2e, pytest.mark.long]

COUNT = int(os.environ.get("METALIMMU_LOST", "2"))
LONG = 200.0 * COUNT  # seconds
NODES = [f"node-{n}" for n in range(1, COUNT + 1)]


def test_lost_in_mid_write(up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METALIMMU_BACKUP_PASSPHRASE", "correct horse battery staple")
    rig: Rig = up(servers=COUNT)
    if COUNT > 2:  # they boot together on few processors
        rig.limits(check_in="40m", stall="30m", phone_home="40m", bmc="10m", media="10m", power="10m")
    commands = [rig.start("reimage", node, "--yes") for node in NODES]
    for node in NODES:
        rig.throttle(1, node)  # slow enough for the second machine to boot meanwhile, on a busy host too
    rig.until(lambda: all(rig.written(n) > 0.1 for n in NODES), "both are written to", seconds=LONG)
    file = rig.lab.folder / "controller.tar"
    said = rig("backup", str(file))
    assert f"({COUNT} under way)" in said
    at_backup = {n: rig.written(n) for n in NODES}
    assert max(at_backup.values()) < 1.0, "the backup was to be made in mid-write"
    rig.until(
        lambda: all(rig.written(n) > at_backup[n] for n in NODES), "the writes go on after the backup", seconds=LONG
    )
    runs = {}
    for node in NODES:
        run = rig.last_run(node)
        assert run is not None
        runs[node] = run.id
    assert min(rig.written(n) for n in NODES) < 1.0, "it was to be lost in mid-write"
    for command in commands:
        command.send(signal.SIGKILL)
        command.end(-signal.SIGKILL)

    lose(rig)
    said = rig("restore", str(file))
    assert f"{COUNT} runs under way; each goes on when its machine is heard" in said
    rig._opened = OpenSite(rig.lab.site)
    serve = rig.start("serve")
    for node in NODES:
        rig.throttle(0, node)
    rig.until(lambda: all(rig.store.run(r).status == "succeeded" for r in runs.values()), "both runs end", seconds=LONG)
    serve.send(signal.SIGINT)
    serve.end()

    wanted = len({c for c in rig.chunks("tiny@1") if c})
    mark = rig.store.restored()
    assert mark is not None
    for node in NODES:
        host, deployment = rig.host(node), rig.deployed(node)
        assert (host.state, host.proof, host.image) == ("active", "proven", "tiny@1")
        assert rig.boots(node) == (1, 1), "not one boot more than without the loss"
        assert rig.bmc(node) == ("On", "", "")
        assert deployment.report is not None
        assert deployment.report.fetched_chunks == wanted, "a chunk was fetched twice"
        assert deployment.fence > mark.floor
        assert [kind for kind, _ in rig.events(node) if kind in ("restored", "heard")] == ["restored", "heard"]


def lose(rig: Rig) -> None:
    """All that the controller kept; images and ramdisks lie elsewhere in the lab."""
    rig._opened.close()
    state = rig._opened.state
    assert (state / "store.sqlite").exists()
    shutil.rmtree(state)
