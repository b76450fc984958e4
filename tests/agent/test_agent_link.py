"""Log lines and orders."""

from __future__ import annotations

import calendar
import struct

import pytest

from metalimmu.agent import clock
from metalimmu.agent.client import Backoff
from metalimmu.agent.link import LINE, LINES, PER_MESSAGE, Fence, Log


def test_lines_are_bounded_and_plain():
    seen = []
    log = Log(seen.append)
    log("x" * 10_000)
    log("evil \x1b[2J\nline")
    assert seen == ["x" * LINE, "evil  [2J line"]
    assert log.take() == tuple(seen)
    assert log.take() == ()


def test_lines_that_were_not_sent_come_back_in_order_and_the_oldest_go():
    log = Log(lambda line: None)
    for i in range(LINES):
        log(str(i))
    lines = log.take()
    assert lines == tuple(map(str, range(PER_MESSAGE)))
    for i in range(LINES, LINES + 10):
        log(str(i))
    log.give_back(lines)
    kept = []
    while part := log.take():
        kept += part
    assert kept == list(map(str, range(10, LINES + 10)))


def test_a_fence_never_goes_back_and_is_kept(tmp_path):
    file = tmp_path / "fence"
    fence = Fence(file)
    assert [fence.accepts(n) for n in (3, 3, 5, 4, 5)] == [True, True, True, False, True]
    assert Fence(file).newest == 5
    file.write_text("junk")
    assert Fence(file).newest == 0


def test_pauses_double_and_are_spread():
    backoff = Backoff(1.0, 10.0)
    pauses = [backoff.next() for _ in range(8)]
    for pause, most in zip(pauses, [1, 2, 4, 8, 10, 10, 10, 10], strict=True):
        assert most / 2 <= pause <= most
    backoff.reset()
    assert backoff.next() <= 1


def test_rtc_time():
    when = calendar.timegm((2026, 11, 20, 7, 50, 1))
    assert struct.unpack("=9i", clock.rtc_time(when))[:6] == (1, 50, 7, 20, 10, 126)


def test_the_clock_is_set_only_when_it_is_wrong(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(clock.time, "clock_settime", lambda which, value: done.append(value))
    monkeypatch.setattr(clock.time, "time", lambda: 1000.0)
    assert clock.set_clocks(1001.5, tmp_path / "rtc0") == ""
    assert clock.set_clocks(0.0, tmp_path / "rtc0") == "", "the controller did not say"
    assert done == []
    told = clock.set_clocks(5000.0, tmp_path / "rtc0")
    assert done == [5000.0]
    assert "-4000 s off" in told
    assert "not the hardware clock" in told


def test_a_clock_that_cannot_be_set_is_told(monkeypatch, tmp_path):
    def refuse(which, value):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(clock.time, "clock_settime", refuse)
    assert "cannot be set" in clock.set_clocks(5000.0, tmp_path / "rtc0")


@pytest.mark.parametrize("text", ["", "x"])
def test_short_lines(text):
    log = Log(lambda line: None)
    log(text)
    assert log.take() == (text,)
