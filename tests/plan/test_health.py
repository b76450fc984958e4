"""A check over time: good for so long without a break, given up after so long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metalimmu.plan.health import Watch


def watch(**more: float) -> Watch:
    wanted = {"hold": 60.0, "every": 10.0, "limit": 300.0, "patience": 15.0, "begun": 0.0, **more}
    return Watch(**wanted)


def see(w: Watch, good: bool, at: float, took: float = 0.0) -> str:
    return w.saw(good, "ok" if good else "503", start=at, end=at + took)


def test_one_good_look_is_enough_where_no_time_is_asked() -> None:
    w = watch(hold=0)
    assert not w.steady
    see(w, False, 0)
    assert not w.steady
    see(w, True, 10)
    assert w.steady


def test_good_for_its_time_without_a_break() -> None:
    w = watch()
    for at in range(0, 60, 10):
        see(w, True, at)
        assert not w.steady
    see(w, True, 60)
    assert w.steady


def test_a_break_begins_anew() -> None:
    w = watch()
    for at in range(0, 60, 10):
        see(w, True, at)
    assert "was good for 50 s, then: 503" in see(w, False, 60)
    assert see(w, False, 70) == ""  # said once
    for at in range(80, 140, 10):
        see(w, True, at)
        assert not w.steady
    see(w, True, 140)
    assert w.steady
    assert w.evidence()["breaks"] == 1
    assert w.evidence()["history"] == [{"after": 60.0, "good_for": 50.0, "words": "503"}]


def test_time_in_which_nobody_looked_is_not_time_in_which_it_was_good() -> None:
    """The controller was stopped (SIGSTOP, a suspended machine) between two looks."""
    w = watch()
    see(w, True, 0)
    assert "nobody looked for 600 s" in see(w, True, 600)
    assert not w.steady
    assert w.evidence()["history"] == [{"after": 0.0, "good_for": 0.0, "words": "nobody looked for 600 s"}]


def test_a_look_that_takes_long_counts_from_its_end() -> None:
    w = watch(hold=10, every=1)
    see(w, True, 0, took=9)
    see(w, True, 9, took=9)  # it may have been bad until the end of the first, and since the start of this one
    assert not w.steady
    see(w, True, 19, took=1)
    assert w.steady


def test_given_up_after_its_limit() -> None:
    w = watch()
    see(w, False, 300)
    assert not w.given_up(300)
    assert w.given_up(301)
    assert "not good for 60 s without a break within 300 s; last: 503" in w.verdict()


def test_flapping_to_the_end_is_told() -> None:
    w = watch(hold=25, every=10, limit=1000)
    for i in range(100):
        see(w, i % 3 != 0, i * 10)
    assert not w.steady
    assert w.given_up(1001)
    found = w.evidence()
    assert found["looks"] == 100
    assert found["bad"] == 34
    assert found["breaks"] == 33
    assert len(found["history"]) == 20  # the first and the last ten
    assert "10 s at most, with 33 breaks" in w.verdict()


def test_due_by_the_start_of_the_look_before() -> None:
    w = watch()
    assert w.due(0)
    see(w, True, 0, took=4)
    assert not w.due(9)
    assert w.due(10)


@given(
    looks=st.lists(st.tuples(st.booleans(), st.floats(1, 60), st.floats(0, 9)), max_size=60),
    hold=st.floats(0, 200),
)
def test_steady_is_never_said_on_hope(looks: list[tuple[bool, float, float]], hold: float) -> None:
    """Steady means: the last looks were all good, cover `hold` seconds, and no gap among them is longer than allowed."""
    w = watch(hold=hold)
    at = 0.0
    seen: list[tuple[bool, float, float]] = []
    for good, pause, took in looks:
        at += pause
        see(w, good, at, took)
        seen.append((good, at, at + took))
        at += took
        assert w.steady is _steady(seen, hold, 25.0)


def _steady(seen: list[tuple[bool, float, float]], hold: float, gap: float) -> bool:
    run: list[tuple[bool, float, float]] = []
    for look in reversed(seen):
        if not look[0] or (run and run[0][1] - look[2] > gap):
            break
        run.insert(0, look)
    if not run:
        return False
    return max(run[-1][1] - run[0][2], 0.0) >= hold
