"""Deployments of switches, as everybody else sees them: `store.switches`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from metalimmu.store.switch_records import SwitchRecord

Change = Callable[[SwitchRecord], Mapping[str, Any]]


class Switches(Protocol):
    """`store.switches`. Each method is one transaction."""

    def add(self, record: SwitchRecord) -> SwitchRecord:
        """Adding it again changes nothing."""
        ...

    def get(self, deployment: str) -> SwitchRecord:
        """Raises NotFound."""
        ...

    def find(self, hashed: str) -> SwitchRecord | None: ...

    def running(self) -> list[SwitchRecord]: ...

    def of(self, host: str, *, limit: int = 20) -> list[SwitchRecord]:
        """Newest first."""
        ...

    def update(self, deployment: str, change: Change | None = None, **fields: Any) -> SwitchRecord: ...
