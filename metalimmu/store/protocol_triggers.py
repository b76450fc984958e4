"""The part of the store that schedules and alerts use: `store.triggers`. See protocol.Store for what holds for all of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from metalimmu.store.trigger_records import AlertState, OutboxRecord, OutboxStatus, ScheduleState, TurnRecord


class TriggerStore(Protocol):
    # schedules
    def see_schedule(self, name: str, definition: str) -> ScheduleState:
        """What is known of a schedule. One that is new or has another definition is seen `since` now."""
        ...

    def pause_schedule(self, name: str, reason: str, by: str) -> ScheduleState:
        """Raises NotFound."""
        ...

    def resume_schedule(self, name: str) -> ScheduleState:
        """`since` is now: what was due while it was paused is not caught up. Raises NotFound."""
        ...

    def claim(self, turn: TurnRecord) -> bool:
        """True for exactly one caller per schedule and due time, over all processes."""
        ...

    def turns(self, schedule: str | None = None, *, unfinished: bool = False, limit: int = 100) -> list[TurnRecord]:
        """The newest first."""
        ...

    def set_turn(self, schedule: str, due: float, **fields: Any) -> None: ...

    # alerts
    def alert_states(self) -> tuple[int, list[AlertState]]:
        """What receivers were told of and still holds, with a number that changes when any of it does."""
        ...

    def commit_alerts(
        self,
        number: int,
        *,
        keep: Iterable[AlertState] = (),
        forget: Iterable[AlertState] = (),
        messages: Iterable[OutboxRecord] = (),
    ) -> bool:
        """States and messages in one transaction. False, and nothing is written, when `number` is no longer the newest.
        A message whose key is there already is not written again.
        """
        ...

    # outbox
    def due_messages(self, limit: int = 100) -> list[OutboxRecord]:
        """Neither sent nor given up, due, and not being sent by somebody. The oldest first."""
        ...

    def hold_message(self, message: int, seconds: float) -> bool:
        """True for one sender; the others wait until it is done or the time is over (it was killed)."""
        ...

    def message_sent(self, message: int) -> None: ...

    def message_failed(self, message: int, error: str, *, again: float | None) -> None:
        """`again` is when it is tried next; None: given up."""
        ...

    def messages(self, *, status: OutboxStatus | None = None, limit: int = 100) -> list[OutboxRecord]:
        """The newest first."""
        ...

    def count_messages(self) -> dict[OutboxStatus, int]: ...

    def forget_messages(self, before: float) -> None:
        """Those that were sent or given up before this time."""
        ...
