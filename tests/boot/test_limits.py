"""Bytes per second of a rack, and agents that write at once: with a clock of the test's own, and on real sockets."""

from __future__ import annotations

import asyncio
import time

import pytest
from boot_rig import Rig, until
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.boot import limits
from metalimmu.boot.limits import BURST, GONE, SETTLE, SILENT, Bucket, Racks, Turns
from metalimmu.observed.types import PowerAction
from metalimmu_emulator.simulated import inject

MB = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(1e3, 1e9),
    asked=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 1 << 20)), min_size=1, max_size=60),
)
def test_no_window_has_more_than_its_rate(rate: float, asked: list[tuple[float, int]]) -> None:
    bucket, now, left = Bucket(rate), 100.0, []
    for pause, size in asked:
        now += pause
        left.append((now + bucket.take(size, now), size))
    for i, (begin, _) in enumerate(left):
        total = 0
        for end, size in left[i:]:
            total += size
            assert total <= rate * (end - begin + BURST) * (1 + 1e-9) + size + 1


def test_racks_do_not_share() -> None:
    clock, slept = Clock(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    racks = Racks(100 * MB, clock=clock, sleep=sleep)

    async def run() -> None:
        for _ in range(100):
            await racks.pace("r1", MB)
        r1 = slept[-1]
        slept.clear()
        await racks.pace("r2", MB)
        assert slept == []
        assert r1 == pytest.approx(0.99 - BURST)

    asyncio.run(run())


def test_without_a_rate_nothing_waits() -> None:
    racks = Racks(None)
    assert not racks.limited
    asyncio.run(asyncio.wait_for(racks.pace("r1", 1 << 40), 1))


def turns(most: int, clock: Clock) -> Turns:
    made = Turns(most, clock=clock)
    clock.now += SETTLE
    return made


def test_so_many_write_and_the_others_follow_in_their_order() -> None:
    clock = Clock()
    t = turns(2, clock)
    assert [t.ask("a"), t.ask("b")] == ["", ""]
    assert t.ask("c") == "2 of 2 agents write now (boot.agents), 0 wait before it"
    assert t.ask("d") == "2 of 2 agents write now (boot.agents), 1 wait before it"
    assert t.ask("a") == "", "it has its turn already"
    t.done("a")
    assert "0 wait before it" not in t.ask("d"), "c asked first"
    assert t.ask("c") == ""
    t.done("b")
    assert t.ask("d") == ""


def test_a_machine_that_is_gone_gives_its_turn_back() -> None:
    clock = Clock()
    t = turns(1, clock)
    t.ask("a")
    t.ask("b")
    for _ in range(int(SILENT / 10) + 1):
        clock.now += 10
        last = t.ask("b")
    assert last == ""
    clock.now += 1
    assert t.ask("a").startswith("1 of 1"), "it comes back, and waits like others"


def test_one_that_waits_and_is_gone_holds_up_nobody() -> None:
    clock = Clock()
    t = turns(1, clock)
    t.ask("a")
    assert t.ask("b")
    assert t.ask("c")
    t.done("a")
    clock.now += GONE + 1
    assert t.ask("c") == ""


def test_after_a_restart_those_that_write_are_counted_before_anybody_begins() -> None:
    clock = Clock()
    t = Turns(2, clock=clock)
    assert "the controller has just started" in t.ask("new")
    t.heard("a")
    t.heard("b")
    clock.now += SETTLE + 1
    assert t.ask("new").startswith("2 of 2")
    t.done("a")
    assert t.ask("new") == ""


def test_no_limit_is_no_limit() -> None:
    t = Turns(None)
    assert all(t.ask(str(i)) == "" for i in range(1000))


# on sockets


@pytest.mark.parametrize("clear", [True, False])
def test_chunks_of_a_rack_come_as_fast_as_it_may_and_another_racks_do_not_wait(tmp_path, clear) -> None:
    rig = Rig(tmp_path, chunks_in_clear=clear)
    rate = 400_000.0
    rig.service = rig.new_service(per_rack=rate)
    try:
        digest = rig.images.add("web", "1", chunks=30)
        for name, rack in (("n1", "r1"), ("n2", "r1"), ("n3", "r2")):
            rig.deploy(name, digest)
            rig.racks[name] = rack
        rig.service.start()
        chunks = sorted({c for c in rig.images.by_digest(digest).manifest.chunks if c})

        def fetch(name: str, shas: list[str]) -> int:
            total = 0
            for sha in shas:
                path = f"/c/{rig.key.secret('chunk', name)}/{sha}"
                status, _, body = rig.get(path) if clear else rig.ask("GET", path)
                assert status == 200
                total += len(body)
            return total

        began = time.monotonic()
        total = fetch("n1", chunks[:10]) + fetch("n2", chunks[10:])
        took = time.monotonic() - began
        assert total > rate / 2
        assert took >= total / rate - BURST - limits.PIECE / rate, "the rack's rate, for both of its machines together"
        began = time.monotonic()
        other = fetch("n3", chunks[:4])
        assert time.monotonic() - began < other / rate + 2
        until(lambda: rig.store.deployment("n3").chunk_bytes == other, 10)
    finally:
        rig.close()


def test_images_that_are_booted_keep_the_limit_and_ramdisks_do_not(tmp_path, monkeypatch) -> None:
    paced: list[tuple[str, int]] = []
    real = Racks.pace

    async def pace(self, rack: str, size: int) -> None:
        paced.append((rack, size))
        await real(self, rack, size)

    monkeypatch.setattr(Racks, "pace", pace)
    rig = Rig(tmp_path)
    with rig.iso.open("ab") as iso:
        iso.write(bytes(1_000_000))
    rate = 2_000_000.0
    rig.service = rig.new_service(per_rack=rate)
    try:
        digest = rig.images.add("web", "1")
        rig.deploy("disk", digest)
        rig.deploy("live", digest, kind="live")
        rig.racks["live"] = "r1"
        rig.service.start()

        def fetch(name: str, file: str) -> tuple[float, int]:
            began = time.monotonic()
            status, _, body = rig.get(f"/m/{rig.key.secret('media', name)}/{file}")
            assert status == 200
            return time.monotonic() - began, len(body)

        for file in ("initrd", "boot.iso"):
            fetch("disk", file)
            assert paced == []
        for file in ("initrd", "boot.iso"):
            took, size = fetch("live", file)
            assert size > rate / 2
            assert took >= size / rate - BURST - limits.PIECE / rate
            assert sum(s for rack, s in paced if rack == "r1") == size
            paced.clear()
    finally:
        rig.close()


def test_an_agent_waits_while_another_writes_and_not_for_one_that_has_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(limits, "SETTLE", 0.0)
    rig = Rig(tmp_path)
    rig.service = rig.new_service(agents=1)
    try:
        digest = rig.images.add("web", "1")
        rig.service.start()
        for name in ("n1", "n2"):
            rig.deploy(name, digest)
        rig.machine("n1", pace=0.2)
        until(lambda: rig.store.deployment("n1").report is not None, 30)
        rig.deploy("n3", digest)
        # n1 has written: it holds no turn while it waits for go.
        held, _ = rig.machine("n2", pace=0.2, start=False)
        inject(held, "network-cut", "20")
        rig.simulated[-1].start()
        held.update(lambda m: m.powered(PowerAction.on))
        until(lambda: rig.store.deployment("n2").check_in is not None, 30)
        rig.machine("n3", pace=0.2)
        until(lambda: rig.store.deployment("n3").queued is not None, 30)
        waiting = rig.store.deployment("n3")
        assert waiting.check_in is not None, "it is known which machine waits"
        assert waiting.chunk_bytes == 0
        until(lambda: rig.store.deployment("n3").report is not None, 60)
        done = rig.store.deployment("n3")
        assert done.queued is None
        assert rig.store.deployment("n2").written < done.written
        assert (done.progressed or 0) >= (waiting.queued or 0)
    finally:
        rig.close()
