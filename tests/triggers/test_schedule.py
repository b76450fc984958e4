"""When schedules are due: clocks that change, hosts that are spread, windows, and schedulers that were away."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.desired import times
from metalimmu.desired.schedules import Schedule
from metalimmu.desired.units import seconds
from metalimmu.triggers.schedule import Turn, place, turn, upcoming

BERLIN = ZoneInfo("Europe/Berlin")


def schedule(**fields: object) -> Schedule:
    return msgspec.convert({"cron": "0 2 * * *", "timezone": "Europe/Berlin", **fields}, Schedule)


def berlin(text: str) -> float:
    """`2026-10-25 02:30+02:00` as it is; without an offset, Berlin's clock."""
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=BERLIN)).timestamp()


def clock(at: float) -> str:
    return dt.datetime.fromtimestamp(at, BERLIN).strftime("%m-%d %H:%M%z")


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # Forward: 02:00 to 03:00 do not exist on 29 March 2026.
        ("0 2 * * *", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:00+0200"]),
        ("30 2 * * *", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
        ("0,30 2 * * *", "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 02:00+0200"]),  # and not twice at 03:00
        ("*/30 2 * * *", "2026-03-28 12:00", ["03-30 02:00+0200", "03-30 02:30+0200"]),
        ("0 * * * *", "2026-03-29 00:30", ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"]),
        # Back: 02:00 to 03:00 come twice on 25 October 2026.
        ("30 2 * * *", "2026-10-24 12:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("45 2 * * *", "2026-10-25 02:30+01:00", ["10-26 02:45+0100"]),  # asked within the second of them
        ("0 * * * *", "2026-10-25 01:30", ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"]),
        ("0 0 29 2 *", "2026-01-01 00:00", ["02-29 00:00+0100"]),
    ],
)  # fmt: skip
def test_cron_where_clocks_change(cron: str, after: str, expected: list[str]) -> None:
    assert [clock(at) for at in times.following(cron, BERLIN, berlin(after), len(expected))] == expected


@pytest.mark.parametrize("cron", ["", "* * * *", "0 0 2 * * *", "61 * * * *", "@daily", "a b c d e", "0 0 30 2 *"])
def test_what_is_no_cron_expression(cron: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        times.following(cron, dt.UTC, 0.0, 1)


@pytest.mark.parametrize("name", ["Mars/Base", "", "../../etc/passwd", "Europe", "europe/berlin\0"])
def test_an_unknown_time_zone(name: str) -> None:
    assert times.zone(name) is None


def test_due_once_and_then_at_the_next_time() -> None:
    s = schedule()
    since = berlin("2026-05-01 12:00")
    assert turn(s, berlin("2026-05-02 01:59:59"), None, since) is None
    first = turn(s, berlin("2026-05-02 02:00"), None, since)
    assert first == Turn(berlin("2026-05-02 02:00"), berlin("2026-05-02 02:00"), berlin("2026-05-02 02:00"))
    assert turn(s, berlin("2026-05-02 02:00:05"), first.due, since) is None
    following = upcoming(s, berlin("2026-05-02 02:00:05"), first.due, since)
    assert following is not None
    assert following.due == berlin("2026-05-03 02:00")


def test_what_was_due_before_it_was_written_down_is_not_missed() -> None:
    assert turn(schedule(), berlin("2026-05-02 12:00"), None, berlin("2026-05-02 11:59")) is None


@pytest.mark.parametrize("away", ["2026-05-03 09:00", "2026-06-20 09:00", "2029-01-01 09:00"])
def test_missed_times_are_caught_up_once(away: str) -> None:
    s = schedule()
    last = berlin("2026-05-01 02:00")
    now = berlin(away)
    caught = turn(s, now, last, last)
    assert caught is not None
    assert caught.start == now
    assert clock(caught.due) == clock(now).replace("09:00", "02:00")
    assert turn(s, now + 1, caught.due, last) is None


PLACE_OF_NODE_1 = 0.666379563


def test_splay_is_before_and_after_and_each_host_keeps_its_moment() -> None:
    s = schedule(splay="30m")
    since = berlin("2026-05-01 12:00")
    due = berlin("2026-05-02 02:00")
    assert turn(s, due - 1801, None, since) is None
    found = turn(s, due - 1800, None, since)
    assert found == Turn(due, due - 1800, due + 1800)
    hosts = [f"node-{i}" for i in range(10_000)]
    moments = [found.moment(place("ams1", "nightly", h)) for h in hosts]
    assert min(moments) >= found.start
    assert max(moments) <= found.end
    minutes = [0] * 60
    for moment in moments:
        minutes[int((moment - found.start) // 60)] += 1
    assert 100 < min(minutes) <= max(minutes) < 240  # evenly: 167 each
    # Written down: another program version that spreads otherwise would move every host.
    assert place("ams1", "nightly", "node-1") == pytest.approx(PLACE_OF_NODE_1)
    assert place("ams1", "weekly", "node-1") != place("ams1", "nightly", "node-1") != place("ams2", "nightly", "node-1")


def test_a_scheduler_that_comes_back_within_the_splay_goes_on_with_the_same_moments() -> None:
    s = schedule(splay="30m")
    since = berlin("2026-05-01 12:00")
    due = berlin("2026-05-02 02:00")
    assert turn(s, due + 900, None, since) == Turn(due, due - 1800, due + 1800)


def test_missed_with_a_splay_hosts_are_spread_as_widely_as_ever() -> None:
    now = berlin("2026-05-02 09:00")
    found = turn(schedule(splay="30m"), now, None, berlin("2026-05-01 12:00"))
    assert found == Turn(berlin("2026-05-02 02:00"), now, now + 3600)


NIGHT = {"start": "22:00", "end": "06:00"}


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        ({"window": NIGHT}, "2026-05-02 02:00", ("05-02 02:00", "05-02 02:00", "05-02 06:00")),
        # Due outside of the window: it waits, and is started once.
        ({"cron": "0 12 * * *", "window": NIGHT}, "2026-05-02 21:59:59", None),
        ({"cron": "0 12 * * *", "window": NIGHT}, "2026-05-02 22:00", ("05-02 22:00", "05-02 22:00", "05-03 06:00")),
        # Due within the opening as well: what waited is dropped.
        ({"cron": "5 * * * *", "window": NIGHT}, "2026-05-02 22:00", None),
        ({"cron": "5 * * * *", "window": NIGHT}, "2026-05-02 22:05", ("05-02 22:05", "05-02 22:05", "05-03 06:00")),
        # Missed, and caught up within the same window or in the next one.
        ({"window": NIGHT}, "2026-05-02 05:00", ("05-02 05:00", "05-02 05:00", "05-02 06:00")),
        ({"window": NIGHT}, "2026-05-02 06:00", None),
        # Splay is cut at the window's edges, and spread within them.
        ({"window": {"start": "02:00", "end": "02:10"}, "splay": "30m"}, "2026-05-02 01:59", None),
        ({"window": {"start": "02:00", "end": "02:10"}, "splay": "30m"}, "2026-05-02 02:00", ("05-02 02:00", "05-02 02:10", "05-02 02:10")),
        # Days: the night of Saturday ends on Sunday. 2 May 2026 is a Saturday.
        ({"window": {**NIGHT, "days": ["sat"]}}, "2026-05-02 02:00", None),
        ({"window": {**NIGHT, "days": ["sat"]}}, "2026-05-02 22:00", None),  # due at 02:00 of this opening
        ({"window": {**NIGHT, "days": ["sat"]}}, "2026-05-03 02:00", ("05-03 02:00", "05-03 02:00", "05-03 06:00")),
        ({"window": {"start": "00:00", "end": "00:00", "days": ["sat"]}}, "2026-05-02 02:00", ("05-02 02:00", "05-02 02:00", "05-03 00:00")),
    ],
)  # fmt: skip
def test_windows(fields: dict[str, object], now: str, expected: tuple[str, str, str] | None) -> None:
    found = turn(schedule(**fields), berlin(now), None, berlin("2026-05-01 23:00"))
    shown = None if found is None else tuple(clock(t)[:11] for t in (found.start, found.end, found.closes or 0))
    assert shown == expected


CRONS = st.sampled_from(
    ["0 2 * * *", "30 2 * * *", "*/10 * * * *", "5 * * * *", "0 */6 * * *", "15 3 * * mon", "0 0 1 * *", "0,30 1-3 * * *"]
)  # fmt: skip
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
TIMES = st.sampled_from([f"{h:02}:{m:02}" for h in range(24) for m in (0, 15, 50)])
WINDOWS = st.none() | st.fixed_dictionaries(
    {
        "start": TIMES,
        "end": TIMES,
        "days": st.lists(st.sampled_from(["mon", "wed", "sat", "sun"]), unique=True, max_size=3),
    }
)
STEPS = st.lists(st.sampled_from([5.0, 61.0, 600.0, 3600.0, 7200.0, 86400.0, 400_000.0]), min_size=5, max_size=60)


@settings(max_examples=150, deadline=None)
@given(cron=CRONS, zone=ZONES, window=WINDOWS, splay=st.sampled_from(["0s", "2m", "5m"]), steps=STEPS,
       begin=st.integers(1_767_225_600, 1_798_761_600))  # fmt: skip
def test_however_often_a_scheduler_looks(
    cron: str, zone: str, window: object, splay: str, steps: list[float], begin: int
) -> None:
    """Each due time is started at most once, in order, never early, never outside of the window; what `upcoming` promises happens."""
    s = schedule(cron=cron, timezone=zone, splay=splay, window=window)
    now, last, started = float(begin), None, []
    for step in steps:
        promised = upcoming(s, now, last, float(begin))
        found = turn(s, now, last, float(begin))
        assert promised is not None
        assert promised.start >= now - 2 * seconds(splay) - 60
        assert found == (promised if promised.start <= now else None)
        if found:
            assert last is None or found.due > last
            assert found.start <= now
            assert found.due - seconds(splay) <= found.start <= found.end
            assert found.end - found.start <= 2 * seconds(splay)
            if found.closes is not None:
                assert now < found.closes
                assert found.end <= found.closes
            assert turn(s, now, found.due, float(begin)) is None
            last = found.due
            started.append(now)
        now += step
    due = []
    for at in times.coming(cron, times.zone(zone) or dt.UTC, float(begin)):
        if at > now + seconds(splay):
            break
        due.append(at)
    assert len(started) <= len(due)


@settings(max_examples=40, deadline=None)
@given(cron=CRONS, zone=ZONES, splay=st.sampled_from(["0s", "2m"]), begin=st.integers(1_767_225_600, 1_798_761_600))
def test_who_looks_often_enough_misses_nothing(cron: str, zone: str, splay: str, begin: int) -> None:
    s = schedule(cron=cron, timezone=zone, splay=splay)
    expected = times.following(cron, times.zone(zone) or dt.UTC, float(begin) + seconds(splay), 5)
    last: float | None = None
    found = []
    since = float(begin) + seconds(splay)
    for at in expected:  # looks a little before and a little after each of them
        for now in (at - seconds(splay) - 1, at - seconds(splay) + 20):
            if (t := turn(s, now, last, since)) is not None:
                found.append(t.due)
                last = t.due
    assert found == expected
    assert all(a < b for a, b in pairwise(found))
