"""Rollouts and freezes as everybody else sees them: `store.rollouts`. The rules of protocol.Store hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from metalimmu.plan.guards import Standing
from metalimmu.plan.waves import RolloutState, RowState
from metalimmu.store.rollout_records import FreezeRecord, RolloutHost, RolloutRecord, Scene

Guarding = Callable[[Standing], None]
"""Raises GuardRefused. Runs inside the transaction: it must be quick and must not call the store."""


class RolloutStore(Protocol):
    def add(self, rollout: RolloutRecord, hosts: Iterable[RolloutHost]) -> RolloutRecord:
        """With all its hosts, at once. A second add of the same id returns what is there."""
        ...

    def get(self, rollout: str) -> RolloutRecord:
        """Raises NotFound."""
        ...

    def find(self, *, states: Iterable[RolloutState] | None = None, limit: int = 100) -> list[RolloutRecord]:
        """The newest first."""
        ...

    def set(
        self,
        rollout: str,
        *,
        expect: Iterable[RolloutState] | None = None,
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        **fields: Any,
    ) -> RolloutRecord:
        """Fields of the rollout and of its hosts, in one transaction; nothing unless it is in one of the states of
        `expect`: without them, unless it has ended.
        """
        ...

    def set_hosts(self, rollout: str, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Fields by host, in one transaction; a new state has its time in `since`."""
        ...

    def hosts(self, rollout: str) -> list[RolloutHost]:
        """In their order."""
        ...

    def scene(self, rollout: str) -> Scene: ...

    def counts(self, rollout: str) -> dict[RowState, int]: ...

    def standing(self) -> Standing:
        """What guards count, at one moment."""
        ...

    def freeze(self, record: FreezeRecord) -> FreezeRecord: ...

    def thaw(self, freeze: str, by: str) -> FreezeRecord:
        """Raises NotFound, UsageError when it has ended."""
        ...

    def freezes(self, *, ended: bool = False) -> list[FreezeRecord]:
        """Those that hold, or all."""
        ...
