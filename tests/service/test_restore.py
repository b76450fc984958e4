"""Ten reimages, of simulated machines, are under way; the controller's state is lost, and restored elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import yaml
from forwarder import Forwarder
from rack import LIMITS, Rack, free_port

from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.errors import LeaseLost
from metalimmu.observed.machine import Machine
from metalimmu.service import presence
from metalimmu.service.backup.make import Made, Protection, backup
from metalimmu.service.backup.restore import Report, Secrets, restore
from metalimmu.service.planning import plan_host
from metalimmu.service.runs import resume, submit
from metalimmu.service.site import OpenSite
from metalimmu.store.records import FINAL, DeploymentRecord, RunStatus
from metalimmu_emulator.simulated_agent import Platter

HERE = Path(__file__).parent
SECRET = Protection(passphrase="correct horse battery staple")
OPEN = Secrets(passphrase="correct horse battery staple")
FAST = {**LIMITS, "report_again": "2s", "check_in": "30s", "stall": "30s"}
DEADLINE = 120.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """How often each chunk was written, by disk."""
    seen: Counter[tuple[int, int]] = Counter()
    write = Platter.write

    def counted(self: Platter, index: int, sha: str, data: bytes) -> None:
        seen[id(self), index] += 1
        write(self, index, sha, data)

    monkeypatch.setattr(Platter, "write", counted)
    return seen


def controller(stack: ExitStack, folder: Path, *args: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "controller_process.py"), str(folder), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def until(condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{what}: the controller ended, {process.returncode}: {process.communicate()}")
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def submitted(site: OpenSite, names: list[str]) -> list[str]:
    return [submit(site, plan_host(site, name)).id for name in names]


def lose(rack: Rack) -> None:
    shutil.rmtree(rack.site / ".metalimmu")


def restored(rack: Rack, made: Made, **options: bool) -> tuple[OpenSite, Report]:
    """The documents come from git, into another folder."""
    folder = rack.folder / "elsewhere"
    shutil.copytree(rack.site, folder, ignore=shutil.ignore_patterns(".metalimmu*"))
    site = OpenSite(folder)
    with made.path.open("rb") as file:
        return site, restore(site, file, made.path.name, OPEN, **options)


def statuses(site: OpenSite) -> Counter[str]:
    return Counter(str(r.status) for r in site.store.runs(limit=1000))


@pytest.mark.parametrize("loss", ["at once", "a moment later", "after all was done"])
def test_ten_reimages_go_on_after_the_loss(
    tmp_path: Path, stack: ExitStack, written: Counter[tuple[int, int]], loss: str
) -> None:
    rack = Rack(tmp_path, hosts=10, limits=FAST)
    cuts = {name: {"network_cut": str(2 + 2 * i)} for i, name in enumerate(rack.names)}
    machines = rack.power_up(stack, faults=cuts)
    site = OpenSite(rack.site)
    stack.callback(site.close)
    runs = submitted(site, rack.names)
    first = controller(stack, rack.site)
    until(lambda: all(d.checked_in for d in _deployments(site, runs)), "ten machines in their ramdisks", first)
    made = backup(site, tmp_path / "backup.tar", SECRET, chunks="include")
    under_way = {r["run"] for r in made.manifest.under_way}
    assert len(under_way) > 5
    if loss == "a moment later":
        until(lambda: statuses(site)["succeeded"] >= 3, "three are done", first)
    elif loss == "after all was done":
        until(lambda: statuses(site)["succeeded"] == 10, "all are done", first)
    first.kill()
    first.communicate()
    site.close()
    lose(rack)

    again, report = restored(rack, made)
    stack.callback(again.close)
    assert {r["run"] for r in report.going_on} == under_way
    second = controller(stack, again.folder)
    until(lambda: all(r.status in FINAL for r in again.store.runs(limit=100)), "all runs end", second)
    ended = {r.host: (str(r.status), r.error) for r in again.store.runs(limit=100)}
    assert ended == dict.fromkeys(rack.names, ("succeeded", None))
    for name in rack.names:
        host = again.store.host(name)
        assert (host.state, host.image) == ("active", "web@1"), host
        machine = rack.machine(name)
        assert machine.generation == 3, (name, machines[name].log)  # one boot into the ramdisk, one into the disk
        assert (machine.media["Cd"].image, machine.boot.enabled) == (None, "Disabled")
    assert set(written.values()) == {1}, "a chunk was written twice"
    assert len(written) == 40
    until(lambda: all(again.store.host(n).proof == "proven" for n in rack.names), "all are proven again", second)


def test_the_old_controller_still_lives(tmp_path: Path, stack: ExitStack, written: Counter[tuple[int, int]]) -> None:
    """The address moves to the restored one, back to the old, and again: machines obey the higher fence, and the old
    controller learns from them that it was replaced.
    """
    rack = Rack(tmp_path, hosts=3, limits=FAST | {"bmc": "90s", "media": "90s"})
    address = Address(rack, stack)
    rack.power_up(stack)
    for name in rack.names:
        rack.fault(name, "eject_media", "BmcBusy", None)  # everyone waits for go
    site = OpenSite(rack.site)
    stack.callback(site.close)
    runs = submitted(site, rack.names)
    first = controller(stack, rack.site)
    until(lambda: all(d.report for d in _deployments(site, runs)), "all is written", first)
    made = backup(site, tmp_path / "backup.tar", SECRET, chunks="include")

    again, report = restored(rack, made)
    stack.callback(again.close)
    address.of(again.folder)
    second = controller(stack, again.folder)
    address.turn(again.folder)
    fence = report.mark.floor
    heard = lambda: [d.last_seen or 0.0 for d in again.store.deployments(limit=10)]  # noqa: E731
    until(lambda: min(heard()) > report.mark.at, "the restored one hears all", second)
    until(lambda: {d.fence for d in again.store.deployments(limit=10)} == {fence + 1}, "its runs go on", second)
    (ours,) = {d.fence for d in site.store.deployments(limit=10)}

    address.turn(rack.site)
    until(lambda: statuses(site)["interrupted"] == 3, "the old one gives up", first)
    for run in site.store.runs(limit=10):
        assert run.error is not None
        assert run.error.message.startswith(f"another controller drives {run.host}: its machine has seen fence ")
        seen = int(run.error.message.split()[9].strip(","))
        assert seen in (fence, fence + 1), run.error.message
        assert run.error.message.endswith(f"ours is {ours}")
    before = [_untouched(rack.machine(n)) for n in rack.names]
    assert [m.generation for m in before] == [2, 2, 2]
    resume(site, runs[0])  # a person insists
    until(lambda: statuses(site)["interrupted"] == 3, "the old one refuses again", first)
    assert [_untouched(rack.machine(n)) for n in rack.names] == before, (
        "a controller that was replaced has written to a BMC"
    )

    address.turn(again.folder)
    for name in rack.names:
        FileMachine(rack.state(name)).update(lambda m: msgspec.structs.replace(m, faults=()))
    until(lambda: all(r.status in FINAL for r in again.store.runs(limit=10)), "all runs end", second)
    assert statuses(again) == {"succeeded": 3}
    assert [rack.machine(n).generation for n in rack.names] == [3, 3, 3]
    assert set(written.values()) == {1}
    assert first.poll() is None


def test_the_old_controller_lives_and_nobody_talks_to_it(
    tmp_path: Path, stack: ExitStack, written: Counter[tuple[int, int]]
) -> None:
    """It would think the machines silent and start them again; but it sees that another one has its address."""
    rack = Rack(tmp_path, hosts=3, limits=FAST | {"stall": "24s"})  # it starts a machine again after half of that
    address = Address(rack, stack)
    rack.power_up(stack, faults={name: {"network_cut": "40"} for name in rack.names})  # 8 s
    site = OpenSite(rack.site)
    stack.callback(site.close)
    runs = submitted(site, rack.names)
    first = controller(stack, rack.site, "0.5")
    until(lambda: all(d.checked_in for d in _deployments(site, runs)), "all are in their ramdisks", first)
    made = backup(site, tmp_path / "backup.tar", SECRET, chunks="include")
    again, _ = restored(rack, made)
    stack.callback(again.close)
    address.of(again.folder)
    second = controller(stack, again.folder, "0.5")
    until(again.store.workers, "the restored one works", second)
    address.turn(again.folder)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "another controller answers at https://127.0.0.1" in err.splitlines()[-1]
    until(lambda: all(r.status in FINAL for r in again.store.runs(limit=10)), "all runs end", second)
    assert statuses(again) == {"succeeded": 3}
    assert [rack.machine(n).generation for n in rack.names] == [3, 3, 3]
    assert set(written.values()) == {1}

    site.close()
    with pytest.raises(LeaseLost) as raised:  # nor does it begin again
        presence.check(OpenSite(rack.site))
    assert "move" in raised.value.hint
    presence.check(again)  # the one that it is


def test_restored_twice_from_one_backup(tmp_path: Path) -> None:
    """Both give fences above the first controller's, and the later one above the earlier."""
    rack = Rack(tmp_path)
    site = OpenSite(rack.site)
    run = submitted(site, ["node-1"])[0]
    made = backup(site, tmp_path / "backup.tar", SECRET)
    for _ in range(3):
        last = site.store.take_over("node-1", run, f"worker {_}")
    site.close()
    once, first = restored(rack, made)
    given = [once.store.take_over("node-1", run, f"w{i}") for i in range(5)]
    other = once.store.acquire_lease("node-2", "a run that came later", "somebody")
    assert given[0] > last + 1_000_000
    assert other > first.mark.floor
    once.close()
    time.sleep(1.1)  # the clock's second is what tells two restores of one backup apart
    with made.path.open("rb") as file:
        second = restore(once, file, "backup.tar", OPEN, force=True)
    assert second.mark.floor > first.mark.floor
    assert second.mark.incarnation != first.mark.incarnation
    assert OpenSite(once.folder).store.take_over("node-1", run, "w") > second.mark.floor


def test_deployed_after_the_backup(tmp_path: Path, stack: ExitStack, written: Counter[tuple[int, int]]) -> None:
    """The store knows neither what runs on node-1 nor what waits on node-2: both are listed, and neither is touched."""
    rack = Rack(tmp_path, hosts=3, limits=FAST | {"bmc": "90s", "media": "90s"})
    rack.power_up(stack)
    site = OpenSite(rack.site)
    stack.callback(site.close)
    submitted(site, rack.names)
    first = controller(stack, rack.site)
    until(lambda: statuses(site)["succeeded"] == 3, "all run web@1", first)
    made = backup(site, tmp_path / "backup.tar", SECRET, chunks="include")
    rack.write("roles/web.yaml", {"image": "web@2", "ramdisk": "fake"})
    site.reload()
    rack.fault("node-2", "eject_media", "BmcBusy", None)
    later = dict(zip(("node-1", "node-2"), submitted(site, ["node-1", "node-2"]), strict=True))
    until(lambda: site.store.run(later["node-1"]).status is RunStatus.succeeded, "node-1 runs web@2", first)
    until(lambda: site.store.deployment(later["node-2"]).report, "node-2 waits", first)
    first.kill()
    first.communicate()
    site.close()
    lose(rack)
    counts = dict(written)

    again, report = restored(rack, made)
    stack.callback(again.close)
    assert (report.going_on, report.doubted) == ([], 3)
    assert [again.store.host(n).proof for n in rack.names] == ["unproven"] * 3
    second = controller(stack, again.folder)
    until(lambda: again.store.host("node-3").proof == "proven", "node-3 proves that it is as it was", second)
    until(lambda: again.store.host("node-1").image == "web@2", "node-1 says what it runs", second)
    until(lambda: again.store.observation("node-2", "after-backup"), "node-2 is heard", second)
    one, two = again.store.host("node-1"), again.store.host("node-2")
    assert (one.proof, one.previous_image) == ("unproven", "web@1")
    assert one.error is not None
    assert later["node-1"] in one.error.message
    assert "which runs web@2" in one.error.message
    assert two.error is not None
    assert "whose agent waits in the ramdisk" in two.error.message
    assert dict(written) == counts, "what is not known was written to"

    for name in ("node-1", "node-2"):
        FileMachine(rack.state(name)).update(lambda m: msgspec.structs.replace(m, faults=()))
    fresh = submitted(again, ["node-1", "node-2"])
    until(lambda: all(again.store.run(r).status in FINAL for r in fresh), "reimaged", second)
    for name in ("node-1", "node-2"):
        host = again.store.host(name)
        assert (host.proof, host.image, host.error) == ("proven", "web@2", None)


def test_a_run_that_had_not_begun_waits_for_a_sign_or_a_person(tmp_path: Path, stack: ExitStack) -> None:
    """node-1 reports that it is what it was: its run goes on. node-2 never ran anything of ours: silence decides nothing."""
    rack = Rack(tmp_path, hosts=2, limits=FAST)
    rack.power_up(stack)
    site = OpenSite(rack.site)
    stack.callback(site.close)
    submitted(site, ["node-1"])
    first = controller(stack, rack.site)
    until(lambda: statuses(site)["succeeded"] == 1, "node-1 runs web@1", first)
    first.kill()
    first.communicate()
    rack.write("roles/web.yaml", {"image": "web@2", "ramdisk": "fake"})
    site.reload()
    runs = submitted(site, rack.names)
    made = backup(site, tmp_path / "backup.tar", SECRET, chunks="include")
    site.close()
    lose(rack)

    again, report = restored(rack, made)
    stack.callback(again.close)
    assert {r["run"] for r in report.going_on} == set(runs)
    second = controller(stack, again.folder)
    until(lambda: again.store.run(runs[0]).status is RunStatus.succeeded, "node-1 goes on by itself", second)
    until(lambda: again.store.run(runs[1]).status is RunStatus.interrupted, "node-2 waits for a person", second)
    left = again.store.run(runs[1])
    assert left.error is not None
    assert left.error.message == "nothing was heard of node-2 since the restore"
    assert f"`metalimmu run resume {runs[1]}`" in left.error.hint
    assert rack.machine("node-2").generation == 1
    resume(again, runs[1])
    until(lambda: again.store.run(runs[1]).status is RunStatus.succeeded, "the person has decided", second)
    assert again.store.run(runs[1]).error is None
    assert [rack.machine(n).generation for n in rack.names] == [5, 3]


def _untouched(machine: Machine) -> Machine:
    """Without what reading it changes."""
    return msgspec.structs.replace(machine, sessions=0)


class Address:
    """The site's URLs lead to whichever controller has the address now; each listens on ports of its own."""

    def __init__(self, rack: Rack, stack: ExitStack) -> None:
        document = yaml.safe_load((rack.site / "site.yaml").read_text())
        fronts = [int(document["urls"][name].rsplit(":", 1)[1]) for name in ("bmc", "machines")]
        self._ports: dict[Path, list[int]] = {}
        self.of(rack.site)
        self._forwarders = [
            stack.enter_context(Forwarder(front, port))
            for front, port in zip(fronts, self._ports[rack.site], strict=True)
        ]

    def of(self, folder: Path) -> None:
        """Give the controller in this folder its ports."""
        bmc, machines = free_port(), free_port()
        self._ports[folder] = [bmc, machines]
        path = folder / "site.yaml"
        document = yaml.safe_load(path.read_text())
        document["listen"] = {"bmc": f"127.0.0.1:{bmc}", "machines": f"127.0.0.1:{machines}"}
        path.write_text(yaml.safe_dump(document))

    def turn(self, folder: Path) -> None:
        for forwarder, port in zip(self._forwarders, self._ports[folder], strict=True):
            forwarder.turn(port)


def _deployments(site: OpenSite, runs: list[str]) -> list[DeploymentRecord]:
    found = site.store.deployments(limit=100)
    return found if len(found) == len(runs) else [NOTHING_YET]


NOTHING_YET: Any = SimpleNamespace(checked_in=None, report=None)
