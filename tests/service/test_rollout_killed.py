"""Twelve simulated machines in waves, and a controller that is killed again and again: each host is reimaged once."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import yaml
from rack import Rack
from test_processes import end, start, until

from metalimmu.plan.waves import RowState
from metalimmu.service.site import OpenSite
from metalimmu.store.records import RunStatus

HOSTS = 12


def rack_of(folder: Path, **pool: object) -> Rack:
    rack = Rack(folder, HOSTS, mib=3)
    document = yaml.safe_load((rack.site / "hosts/rack.yaml").read_text())
    for i, host in enumerate(document):
        host |= {"pool": "web", "location": {"rack": f"r{i % 4}"}}
    rack.write("hosts/rack.yaml", document)
    rack.write("pools/web.yaml", {"batch": 6, "failure_domain": ["rack"], **pool})
    return rack


def test_killed_again_and_again_it_reimages_each_host_once(tmp_path: Path) -> None:
    dice = random.Random(4)
    with ExitStack() as stack:
        rack = rack_of(tmp_path)
        rack.power_up(stack, pace=0.1)
        site = OpenSite(rack.site)
        stack.callback(site.close)
        store = site.store.rollouts
        process = start(rack, "reimage", "-l", "pool=web", "--confirm", str(HOSTS), "--batch", "6")
        until(lambda: store.find() or process.poll() is not None, "no rollout")
        (rollout,) = store.find()
        kills, done = 0, -1
        while process.poll() is None:
            time.sleep(dice.uniform(1.0, 4.0))
            now = sum(r.state is RowState.done for r in store.hosts(rollout.id))
            if process.poll() is None and kills < 8 and (now > done or kills < 3):
                process.kill()
                process.communicate()
                kills, done = kills + 1, now
                process = start(rack, "run", "resume", rollout.id)
        code, out, err = end(process)
        assert code == 0 or "has ended (done)" in err, out + err  # killed after its last word
        assert kills >= 3
        assert {r.state for r in store.hosts(rollout.id)} == {RowState.done}
        runs = site.store.runs()
        assert Counter(r.host for r in runs) == Counter(rack.names)  # one run each
        assert {r.status for r in runs} == {RunStatus.succeeded}
        assert all(rack.machine(n).generation == 3 for n in rack.names)  # two boots each
        assert not site.store.leases()
        _never_two_of_one_rack(rack, site)


def _never_two_of_one_rack(rack: Rack, site: OpenSite) -> None:
    where = {n: h.location.rack for n, h in site.docs.hosts.items() if h.location}
    spans = [(where[r.host], r.started or 0.0, r.finished or 0.0) for r in site.store.runs()]
    for name in set(where.values()):
        times = sorted((a, b) for w, a, b in spans if w == name)
        assert all(b <= a2 for (_, b), (a2, _) in pairwise(times)), (name, times)


def test_ctrl_c_leaves_a_rollout_that_resume_finishes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        rack = rack_of(tmp_path)
        rack.power_up(stack, pace=0.1, faults={"node-1": {"network_cut": "3"}})
        site = OpenSite(rack.site)
        stack.callback(site.close)
        process = start(rack, "reimage", "node-1", "node-2", "--yes")
        until(lambda: any(s.name == "write" for r in site.store.runs() for s in site.store.steps(r.id)), "no write")
        process.send_signal(signal.SIGINT)
        code, out, err = end(process)
        assert code == 130
        assert "machines are left as they are" in err
        (rollout,) = site.store.rollouts.find()
        assert rollout.state == "paused"
        code, out, err = end(start(rack, "run", "resume", rollout.id))
        assert code == 0, out + err
        assert "2 done" in out
        assert Counter(r.host for r in site.store.runs()) == Counter(["node-1", "node-2"])
        code, out, err = end(start(rack, "run", "show", rollout.id))
        assert code == 0, err
        assert "#" in out
        assert "node-2" in out


def test_two_people_at_once_never_exceed_a_guard(tmp_path: Path) -> None:
    """Overlapping rollouts from two processes: the store's transaction decides, whoever is the worker."""
    with ExitStack() as stack:
        rack = rack_of(tmp_path, failure_domain=[])
        site_yaml = yaml.safe_load((rack.site / "site.yaml").read_text())
        rack.write("site.yaml", {**site_yaml, "guards": {"max_hosts": 2}})
        rack.power_up(stack, pace=0.1)
        site = OpenSite(rack.site)
        stack.callback(site.close)
        names = rack.names[:6]
        people = [start(rack, "reimage", *names[a:b], "--confirm", str(b - a)) for a, b in ((0, 4), (2, 6))]
        most = 0
        while any(p.poll() is None for p in people):
            most = max(most, len(site.store.rollouts.standing().changing))
            time.sleep(0.05)
        for person in people:
            code, out, err = end(person)
            assert code == 0, out + err
        assert most == 2
        assert Counter(r.host for r in site.store.runs()) == Counter(names)  # who came second found it done
        assert {h.proof for h in site.store.hosts().values() if h.name in names} == {"proven"}
