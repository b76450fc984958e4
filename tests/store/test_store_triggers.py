"""Schedules, alerts and the outbox in the store: what two processes at once, and one that is killed, must not break."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from metalimmu.errors import NotFound
from metalimmu.store.sqlite import SqliteStore
from metalimmu.store.trigger_records import AlertState, OutboxRecord, TurnRecord


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.sqlite", clock=clock)
    yield opened
    opened.close()


def message(key: str, **fields) -> OutboxRecord:
    return OutboxRecord(**{"id": 0, "key": key, "alert": "ops", "kind": "drift", "body": {"k": key}, "created": 1.0} | fields)  # fmt: skip


def test_a_schedule_is_seen_since_it_was_written_or_changed(store: SqliteStore, clock: Clock) -> None:
    triggers = store.triggers
    assert triggers.see_schedule("nightly", "a").since == 1000
    clock.now = 2000
    assert triggers.see_schedule("nightly", "a").since == 1000
    triggers.pause_schedule("nightly", "the BMCs are updated", "ann@host")
    assert triggers.see_schedule("nightly", "b").since == 2000
    found = triggers.see_schedule("nightly", "b")
    assert (found.paused, found.paused_by, found.paused_at) == ("the BMCs are updated", "ann@host", 2000)
    clock.now = 3000
    assert triggers.resume_schedule("nightly").paused is None
    assert triggers.see_schedule("nightly", "b").since == 3000
    with pytest.raises(NotFound):
        triggers.pause_schedule("weekly", "", "")


def _claim(path: Path, ready: object, won: object) -> None:
    store = SqliteStore(path)
    ready.wait()  # type: ignore[attr-defined]
    for due in range(50):
        if store.triggers.claim(TurnRecord(schedule="nightly", due=float(due), begins=0, ends=0)):
            won.put(due)  # type: ignore[attr-defined]
    won.put(None)  # type: ignore[attr-defined]
    store.close()


def test_of_two_processes_one_gets_each_turn(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    SqliteStore(path).close()
    context = multiprocessing.get_context("spawn")
    ready, won = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_claim, args=(path, ready, won)) for _ in range(2)]
    for process in processes:
        process.start()
    claimed = []
    ended = 0
    while ended < 2:
        due = won.get(timeout=60)
        ended += due is None
        claimed += [] if due is None else [due]
    for process in processes:
        process.join(timeout=30)
    assert sorted(claimed) == list(range(50))


def test_turns(store: SqliteStore) -> None:
    triggers = store.triggers
    for due in (1.0, 2.0):
        assert triggers.claim(TurnRecord(schedule="n", due=due, begins=due, ends=due))
    assert not triggers.claim(TurnRecord(schedule="n", due=2.0, begins=9, ends=9))
    triggers.set_turn("n", 1.0, scan="s-1", finished=5.0)
    assert [t.due for t in triggers.turns("n")] == [2.0, 1.0]
    assert [t.due for t in triggers.turns("n", unfinished=True)] == [2.0]
    assert triggers.turns("other") == []
    assert triggers.turns("n")[1].scan == "s-1"


def test_states_and_messages_are_one_transaction_and_only_of_the_newest_number(store: SqliteStore) -> None:
    triggers = store.triggers
    number, states = triggers.alert_states()
    assert states == []
    state = AlertState(alert="ops", cause="c", kind="drift", since=1.0, hosts=("a", "b"), was=2)
    assert triggers.commit_alerts(number, keep=[state], messages=[message("m1"), message("m1")])
    assert not triggers.commit_alerts(number, forget=[state], messages=[message("m2")])
    number, states = triggers.alert_states()
    assert states == [state]
    assert [m.key for m in triggers.messages()] == ["m1"]
    changed = msgspec.structs.replace(state, hosts=("a",), revision=2)
    assert triggers.commit_alerts(number, keep=[changed])
    assert triggers.alert_states()[1] == [changed]
    assert triggers.commit_alerts(triggers.alert_states()[0], forget=[changed])
    assert triggers.alert_states()[1] == []


def test_the_outbox_gives_a_message_to_one_sender_until_he_is_killed(store: SqliteStore, clock: Clock) -> None:
    triggers = store.triggers
    triggers.commit_alerts(0, messages=[message("m1"), message("m2", next_at=1500.0)])
    (first,) = triggers.due_messages()
    assert triggers.hold_message(first.id, 30)
    assert not triggers.hold_message(first.id, 30)
    assert triggers.due_messages() == []
    clock.now += 31  # the sender was killed
    assert [m.key for m in triggers.due_messages()] == ["m1"]
    assert triggers.hold_message(first.id, 30)
    triggers.message_failed(first.id, "503", again=1200.0)
    assert triggers.due_messages() == []
    clock.now = 1200
    (again,) = triggers.due_messages()
    assert (again.attempts, again.error) == (1, "503")
    triggers.message_sent(again.id)
    assert not triggers.hold_message(again.id, 30)
    clock.now = 2000
    (second,) = triggers.due_messages()
    triggers.message_failed(second.id, "410 Gone", again=None)
    assert triggers.due_messages() == []
    assert triggers.count_messages() == {"waiting": 0, "sent": 1, "dropped": 1}
    assert [m.key for m in triggers.messages(status="dropped")] == ["m2"]
    triggers.forget_messages(1999.0)
    assert [m.key for m in triggers.messages()] == ["m2"]
