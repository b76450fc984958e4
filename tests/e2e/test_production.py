"""A pool of four servers in use: to the next version in waves, the controller lost and restored in the middle, and a bad
version that stops at the first server and goes back by itself. Nobody who uses the pool notices any of it.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import image_builds
import pytest
from e2e_rig import Rig, failed
from production_rig import Balancer, Users

from metalimmu.service.site import OpenSite
from metalimmu.store.rollout_records import RolloutRecord

pytestmark = pytest.mark.e2e

LONG = 1200.0  # seconds for what four machines do in one or two minutes on a quiet host
NODES = ["node-1", "node-2", "node-3", "node-4"]
FIRST, SECOND = NODES[:2]


@pytest.fixture
def web() -> None:
    image_builds.web()


@pytest.fixture
def rig(web: None, up: Any, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setenv("METALIMMU_BACKUP_PASSPHRASE", "correct horse battery staple")
    made: Rig = up(servers=4, image="web@1")
    # Three machines boot together: on a busy host that takes long, and is no failure.
    made.limits(check_in="20m", stall="15m", phone_home="20m", bmc="5m", media="5m", power="5m")
    return made


@pytest.fixture
def pool(rig: Rig) -> Iterator[SimpleNamespace]:
    """The balancer and the users of the pool, and its document."""
    balancer, users = Balancer(rig.lab.site), Users(rig)
    for name, port in users.ports.items():
        rig.host_document(name, vars={"port": port})
    rig._edit(
        "pools/lab.yaml",
        lambda p: p.update(
            min_active=3,
            batch=3,
            hooks={
                "before": [
                    {"name": "drain", "command": "./balancer out", "undo": {"command": "./balancer in", "when": "untouched"}}
                ],
                "after": [{"name": "undrain", "command": "./balancer in"}],
            },
            health={
                "http": {"url": "http://127.0.0.1:{{ vars.port }}/healthz", "expect": "^ok"},
                "for": "2s",
                "every": "1s",
                "timeout": "15s",
                "limit": "30s",
            },
        ),
    )  # fmt: skip
    yield SimpleNamespace(balancer=balancer, users=users)
    users.close()


@pytest.mark.timeout(2 * LONG)
def test_in_waves_lost_in_the_middle_and_a_bad_version(rig: Rig, pool: SimpleNamespace) -> None:
    rig("reimage", "-l", "pool=lab", "--yes", seconds=LONG)
    for node in NODES:
        is_at(rig, node, "web@1", boots=1)
    in_use = time.time()
    assert pool.balancer.fewest(NODES, in_use) == 4

    the_next_version(rig)
    for node in NODES:
        is_at(rig, node, "web@2", boots=2)
        wrote_once(rig, node, "web@1", "web@2")

    a_bad_version(rig)
    is_at(rig, FIRST, "web@2", boots=4)
    wrote_once(rig, FIRST, "web@3", "web@2")
    for node in NODES[1:]:
        is_at(rig, node, "web@2", boots=2)

    assert pool.balancer.fewest(NODES, in_use) == 3, "min_active was 3"
    each_hook_once(pool.balancer)
    assert pool.users.turned_away(pool.balancer) == []
    assert pool.users.served(pool.balancer) > 50


def the_next_version(rig: Rig) -> None:
    """Its controller is killed while the second server is written, its state deleted, and restored."""
    rig.role(image="web@2")
    command = rig.start("reimage", "-l", "pool=lab", "--yes")
    rig.until(lambda: rig.step(SECOND) == "check-in", "the second server's turn")
    rig.throttle(1, SECOND)
    rig.until(lambda: 0 < rig.written(SECOND) < 1, "it is written to")
    rollout = newest(rig)
    assert rig.host(FIRST).image == "web@2", "the first went alone"
    file = rig.lab.folder / "controller.tar"
    said = rig("backup", str(file))
    assert "(1 under way)" in said
    at_backup = rig.written(SECOND)
    rig.until(lambda: rig.written(SECOND) > at_backup, "the write goes on after the backup")
    assert rig.written(SECOND) < 1, "it was to be lost in mid-write"
    command.send(signal.SIGKILL)
    command.end(-signal.SIGKILL)
    assert "min_active is 3" in command.out, "the wave has three servers, and takes one at a time"

    rig._opened.close()
    shutil.rmtree(rig._opened.state)
    said = rig("restore", str(file))
    assert "1 runs under way; each goes on when its machine is heard" in said
    assert f"rollouts are paused: {rollout.id}" in said
    rig._opened = OpenSite(rig.lab.site)
    rig.start("serve")
    rig.throttle(0, SECOND)
    run = rig.last_run(SECOND)
    assert run is not None
    rig.until(lambda: rig.store.run(run.id).status == "succeeded", "its run goes on by itself")
    assert {str(r.state) for r in rig.store.rollouts.hosts(rollout.id)} <= {"done", "running", "waiting"}
    assert f"{rollout.id}: done; 4 done" in rig("run", "resume", rollout.id, seconds=LONG)
    assert {r.attempt for r in rig.store.rollouts.hosts(rollout.id)} == {1}
    rig.until(lambda: rig.host(FIRST).proof == "proven", "who was done before the loss is proven again")


def a_bad_version(rig: Rig) -> None:
    rig.role(image="web@3")
    said = rig("reimage", "-l", "pool=lab", "--auto-rollback", "--yes", status=1, seconds=LONG)
    assert "1 of the wave went back" in failed(said)
    rows = {r.host: r for r in rig.store.rollouts.hosts(newest(rig).id)}
    assert {h: str(r.state) for h, r in rows.items()} == {FIRST: "rolled-back"} | dict.fromkeys(NODES[1:], "untouched")
    assert "answered 200 OK, without '^ok'" in rows[FIRST].reason


def newest(rig: Rig) -> RolloutRecord:
    return rig.store.rollouts.find(limit=1)[0]


def is_at(rig: Rig, node: str, ref: str, *, boots: int) -> None:
    """`boots`: into the ramdisk, and as often into the disk, since the machine exists."""
    host = rig.host(node)
    assert (host.state, host.proof, host.image, host.quarantine) == ("active", "proven", ref, None)
    assert host.health is not None
    assert host.health.word == "healthy"
    assert rig.boots(node) == (boots, boots), node
    assert rig.bmc(node) == ("On", "", "")


def wrote_once(rig: Rig, node: str, old: str, new: str) -> None:
    """The machine fetched the chunks that differ, and the first one (its partition table fits the disk), each once."""
    changed = rig.changed_chunks(old, new) | {c for c in rig.chunks(new)[:1] if c}
    report = rig.deployed(node).report
    assert report is not None
    assert (report.fetched_chunks, report.fetched_bytes) == (len(changed), rig.stored(changed)), node


def each_hook_once(balancer: Balancer) -> None:
    """Of every run, before and after, in turn; of the bad one there is no after, and no undo: the machine was touched."""
    words: dict[str, list[str]] = {}
    for said in balancer.said():
        run, _, hook = said.key.partition("/")
        assert said.word == {"before/1-drain": "out", "after/1-undrain": "in"}[hook]
        words.setdefault(run, []).append(said.word)
    assert sorted(map(len, words.values())) == [1] + [2] * 9
    assert all(w == ["out", "in"][: len(w)] for w in words.values())
