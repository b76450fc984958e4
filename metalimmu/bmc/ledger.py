"""One login attempt per BMC and credential version, so that nobody is locked out of an account.

A BMC that said 401 is not asked again with the same user name and password: not by the next run, not by the next
process. `Credentials.version` changes when they change; then one attempt is made again.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class LoginLedger(Protocol):
    """Kept by the store, so that it outlives a process; `MemoryLedger` where there is no store."""

    def refused(self, bmc: str, version: str) -> str | None:
        """When this version was refused (ISO 8601, or any words), or None."""
        ...

    def record_refusal(self, bmc: str, version: str, when: float) -> None: ...

    def clear(self, bmc: str) -> None:
        """Forget: the operator knows that the login is good now (an unlocked account)."""
        ...


class MemoryLedger:
    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def refused(self, bmc: str, version: str) -> str | None:
        with self._lock:
            when = self._refused.get((bmc, version))
        return None if when is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))

    def record_refusal(self, bmc: str, version: str, when: float) -> None:
        with self._lock:
            self._refused[bmc, version] = when

    def clear(self, bmc: str) -> None:
        with self._lock:
            self._refused = {k: v for k, v in self._refused.items() if k[0] != bmc}


PROCESS = MemoryLedger()
"""Shared by all connections of this process that were given no other."""
