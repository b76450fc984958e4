"""`power`: one person at a time, for as long as the act lasts, and nothing by one who has lost the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from config_rig import Site, deployed, listening
from rack import Rack

from metalimmu.errors import BmcError, LeaseHeld, LeaseLost
from metalimmu.service import hosts, runs
from metalimmu.service.planning import plan_host
from metalimmu.service.site import OpenSite
from metalimmu.store import leases

LIMITS = {"power": "6s", "media": "10s", "check_in": "20s", "stall": "10s", "phone_home": "20s", "bmc": "15s"}


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    return Rack(tmp_path, 1, limits=LIMITS)


@pytest.fixture
def site(rack: Rack) -> Iterator[OpenSite]:
    opened = OpenSite(rack.site)
    yield opened
    opened.close()


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_host_stays_held_for_as_long_as_the_act_lasts(
    rack: Rack, site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "UNUSED", 0.6)
    rack.fault("node-1", "set_power", "ignore")
    plan = plan_host(site, "node-1", verb="reimage")
    with ThreadPoolExecutor(1) as pool:
        act = pool.submit(hosts.power, site, "node-1", "off")
        eventually(lambda: site.store.history("node-1", kind="power"))
        asked = time.monotonic()
        eventually(lambda: time.monotonic() - asked > 2.0)
        assert not act.done()
        with pytest.raises(LeaseHeld, match="works on node-1"):
            runs.submit(site, plan)
        assert site.store.rollouts.standing().changing["node-1"].startswith("power off")
        with pytest.raises(BmcError, match="still On after 6 s"):
            act.result()
    assert site.store.leases() == []
    assert runs.submit(site, plan).host == "node-1"


def test_who_has_lost_the_host_writes_nothing(rack: Rack, site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped for a while, and goes on."""
    real = OpenSite.connect

    def connect(self: OpenSite, *args: Any, **kwargs: Any) -> Any:
        bmc = real(self, *args, **kwargs)
        lease = site.store.lease("node-1")
        assert lease is not None
        site.store.release_lease("node-1", str(lease.run))
        site.store.acquire_lease("node-1", "r-2", "bert")
        return bmc

    monkeypatch.setattr(OpenSite, "connect", connect)
    with pytest.raises(LeaseLost, match="of run r-2"):
        hosts.power(site, "node-1", "off")
    assert rack.machine("node-1").power == "On"
    assert [lease.run for lease in site.store.leases()] == ["r-2"]


def test_a_lease_that_nobody_renews_was_left_by_a_crash(site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "UNUSED", 0.2)
    site.store.acquire_lease("node-1", "power off r-1", "ann")
    plan = plan_host(site, "node-1", verb="reimage")
    eventually(lambda: not site.store.rollouts.standing().changing)
    assert runs.submit(site, plan).host == "node-1"


def test_a_restarted_host_counts_again_when_its_system_has_reported(tmp_path: Path) -> None:
    made = Site(tmp_path)
    with ExitStack() as stack:
        deployed(made, stack)
        opened = stack.enter_context(closing(made.open()))
        assert opened.store.rollouts.standing().active == {"node-1"}
        made.rack.fault("node-1", "guest:no-report", "")
        asked = time.time()
        hosts.power(opened, "node-1", "reset")
        limit = opened.spec("node-1").limits["phone_home"]
        settles = opened.store.host("node-1").settles
        assert settles is not None
        assert asked + limit <= settles <= time.time() + limit
        listening(made, 2)
        assert opened.store.rollouts.standing().active == set()  # nobody has seen it
        hosts.power(opened, "node-1", "reset")
        listening(made, 3)
        assert opened.store.rollouts.standing().active == {"node-1"}
