"""Turns: claimed once, each host at its moment, broken off and gone on with, and ended when the window closes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from trigger_rig import Clock, Reading, write_site

from metalimmu.engine.lock import WorkerLock
from metalimmu.errors import NotFound, StoreError, UsageError
from metalimmu.service.site import OpenSite
from metalimmu.triggers import turns
from metalimmu.triggers.listing import rows
from metalimmu.triggers.paced import WindowClosed
from metalimmu.triggers.schedule import place

MINUTELY = {"cron": "* * * * *"}
DAY = 1_780_000_000.0 - 1_780_000_000.0 % 86400  # midnight, UTC


@pytest.fixture
def clock() -> Clock:
    return Clock(DAY)


def opened(folder: Path, clock: Clock, **schedules: object) -> OpenSite:
    site = OpenSite(write_site(folder, schedules))
    site.store.triggers._clock = clock
    site.store._clock = clock
    return site


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[OpenSite]:
    site = opened(tmp_path, clock, nightly={"cron": "0 2 * * *", "splay": "30m"})
    assert turns.claim_due(site, clock.now) == []  # seen
    yield site
    site.close()


def claimed(site: OpenSite, clock: Clock, at: float) -> turns.TurnRecord:
    clock.now = at
    (turn,) = turns.claim_due(site, at)
    return turn


def test_each_host_is_read_at_its_own_moment(site: OpenSite, clock: Clock) -> None:
    turn = claimed(site, clock, DAY + 5400)  # 01:30
    reading = Reading(clock)
    scan = turns.run(site, turn, read=reading, clock=clock, wait=clock.wait)
    assert scan is not None
    assert scan.trigger == "schedule:nightly"
    assert scan.finished is not None
    assert sorted(h for h, _ in reading.read) == ["n1", "n2", "n3", "n4"]
    for host, at in reading.read:
        moment = DAY + 5400 + 3600 * place("ams1", "nightly", host)
        assert moment <= at <= moment + 65
    assert turns.claim_due(site, clock.now) == []
    (done,) = site.store.triggers.turns("nightly")
    assert (done.scan, done.error, done.due) == (scan.id, None, DAY + 7200)
    assert done.finished is not None


def test_nobody_else_gets_the_same_turn(site: OpenSite, clock: Clock) -> None:
    other = OpenSite(site.folder)
    clock.now = DAY + 5400
    assert len(turns.claim_due(site, clock.now) + turns.claim_due(other, clock.now)) == 1
    other.close()


def test_a_turn_that_broke_off_goes_on_with_who_is_left(site: OpenSite, clock: Clock) -> None:
    turn = claimed(site, clock, DAY + 5400)
    first = Reading(clock, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        turns.run(site, turn, read=first, clock=clock, wait=clock.wait)
    assert first.closed == len(first.groups)  # conversations with BMCs were ended
    assert turns.claim_due(site, DAY + 86400 + 7200) == []  # the next turn waits for it
    (left,) = turns.unfinished(site)
    second = Reading(clock)
    scan = turns.run(site, left, read=second, clock=clock, wait=clock.wait)
    assert scan is not None
    assert sorted(h for h, _ in first.read + second.read) == ["n1", "n2", "n3", "n4"]  # none twice, none lost
    assert len(site.store.scans()) == 1
    assert turns.unfinished(site) == []
    assert turns.run(site, left, read=second, clock=clock, wait=clock.wait) is None


def test_killed_between_the_scans_end_and_the_turns(
    site: OpenSite, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = claimed(site, clock, DAY + 5400)
    triggers = site.store.triggers

    def full(*_: object, **__: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(triggers, "set_turn", full)
        with pytest.raises(StoreError):
            turns.run(site, turn, read=Reading(clock), clock=clock, wait=clock.wait)
    again = Reading(clock)
    scan = turns.run(site, turn, read=again, clock=clock, wait=clock.wait)
    assert again.read == []
    assert scan is not None
    assert triggers.turns("nightly")[0].scan == scan.id


def test_when_the_window_closes_it_ends_and_says_so(tmp_path: Path, clock: Clock) -> None:
    window = {"start": "02:00", "end": "02:01"}
    site = opened(tmp_path, clock, nightly={"cron": "0 2 * * *", "window": window})
    turns.claim_due(site, clock.now)
    turn = claimed(site, clock, DAY + 7200)
    assert turn.closes == DAY + 7260
    reading = Reading(clock, seconds=25.0)
    with pytest.raises(WindowClosed, match="window closed with 1 hosts not read"):
        turns.run(site, turn, read=reading, clock=clock, wait=clock.wait)
    assert len(reading.read) == 3
    (record,) = site.store.scans()
    assert record.finished is not None
    assert "window closed" in record.summary["broke_off"]
    (done,) = site.store.triggers.turns("nightly")
    assert "window closed" in str(done.error)
    assert turns.unfinished(site) == []
    assert "window closed" in rows(site)[0]["outcome"]
    site.close()


def test_one_process_runs_a_turn(site: OpenSite, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_GLANCE", 0.1)
    turn = claimed(site, clock, DAY + 5400)
    lock = WorkerLock(site.state / "turns/nightly.lock")
    assert lock.take()
    assert turns.unfinished(site) == []
    with pytest.raises(UsageError, match="is being run by"):
        turns.run(site, turn, read=Reading(clock), clock=clock, wait=clock.wait)
    lock.release()
    assert [t.due for t in turns.unfinished(site)] == [turn.due]


def test_paused_and_resumed(site: OpenSite, clock: Clock) -> None:
    site.store.triggers.pause_schedule("nightly", "BMC update", "ann@c1")
    assert turns.claim_due(site, DAY + 7200) == []
    assert rows(site)[0]["next"] == "paused by ann@c1: BMC update"
    clock.now = DAY + 5 * 86400
    site.store.triggers.resume_schedule("nightly")
    assert turns.claim_due(site, clock.now) == []  # what was due meanwhile is not caught up
    assert len(turns.claim_due(site, clock.now + 7200)) == 1


def test_a_changed_schedule_does_not_start_for_the_past(tmp_path: Path, clock: Clock) -> None:
    site = opened(tmp_path, clock, nightly={"cron": "0 2 * * *"})
    turns.claim_due(site, clock.now)
    clock.now = DAY + 12 * 3600
    write_site(tmp_path, {"nightly": {"cron": "0 10 * * *"}})
    site.reload()
    assert turns.claim_due(site, clock.now) == []
    clock.now = DAY + 86400 + 36000
    assert len(turns.claim_due(site, clock.now)) == 1
    site.close()


def test_started_by_a_person(tmp_path: Path, clock: Clock) -> None:
    site = opened(tmp_path, clock, half={"cron": "0 2 * * *", "splay": "6h", "scope": "half=1"})
    scan = turns.start(site, "half", read=Reading(clock), clock=clock)
    assert scan is not None
    assert (scan.hosts, clock.waits) == (2, [])
    with pytest.raises(NotFound, match="no schedule 'x'") as caught:
        turns.start(site, "x")
    assert "half" in caught.value.hint
    clock.now += 60
    with pytest.raises(KeyboardInterrupt):
        turns.start(site, "half", read=Reading(clock, stop_after=0), clock=clock)
    with pytest.raises(UsageError, match="a turn that is not finished"):
        turns.start(site, "half", read=Reading(clock), clock=clock)
    site.close()


def test_an_error_ends_the_turn_and_the_next_one_comes(tmp_path: Path, clock: Clock) -> None:
    site = opened(tmp_path, clock, nightly={"cron": "0 2 * * *", "scope": "pool=none"})
    turns.claim_due(site, clock.now)
    turn = claimed(site, clock, DAY + 7200)
    with pytest.raises(UsageError, match="no host fits"):
        turns.run(site, turn, read=Reading(clock), clock=clock, wait=clock.wait)
    assert "no host fits" in str(site.store.triggers.turns("nightly")[0].error)
    assert len(turns.claim_due(site, DAY + 86400 + 7200)) == 1
    site.close()


def test_many_hosts_are_read_in_groups_and_not_one_by_one(tmp_path: Path, clock: Clock) -> None:
    site = OpenSite(write_site(tmp_path, {"n": {"cron": "0 2 * * *", "splay": "30m"}}, hosts=200))
    site.store.triggers._clock = site.store._clock = clock
    turns.claim_due(site, clock.now)
    turn = claimed(site, clock, DAY + 5400)
    reading = Reading(clock, seconds=0.0)
    turns.run(site, turn, read=reading, clock=clock, wait=clock.wait)
    assert len(reading.read) == 200
    assert 30 <= len(reading.groups) <= 61
    times = [at for _, at in reading.read]
    assert times == sorted(times)
    assert max(times) - min(times) > 3300
    site.close()
