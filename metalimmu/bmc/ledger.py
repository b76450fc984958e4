"""One login attempt per BMC and credential version, so that nobody is locked out of an account.

A BMC that said 401 is not asked again with the same user name and password: not by the next run, not by the next
process. `Credentials.version` changes when they change; then one attempt is made again.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from metalimmu.bmc.sessions import Sessions


class Refusals(Protocol):
    """Kept by the store of a site, so that it outlives a process; without a site by `ledger_file`."""

    def refused(self, bmc: str, version: str) -> str | None:
        """When this version was refused (ISO 8601, or any words), or None."""
        ...

    def record_refusal(self, bmc: str, version: str, when: float) -> None: ...

    def clear(self, bmc: str) -> None:
        """Forget: the operator knows that the login is good now (an unlocked account)."""
        ...


class LoginLedger(Refusals, Protocol):
    """What is known of logins by all processes: who refused them, and which of their sessions are still there."""

    @property
    def sessions(self) -> Sessions: ...


class Ledger:
    """Refusals that somebody else keeps, and sessions beside them."""

    def __init__(self, refusals: Refusals, sessions: Sessions) -> None:
        self.sessions = sessions
        self.refused = refusals.refused
        self.record_refusal = refusals.record_refusal
        self.clear = refusals.clear


class MemoryLedger:
    """Of one process."""

    def __init__(self) -> None:
        self.sessions = Sessions(None)
        self._refused: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def refused(self, bmc: str, version: str) -> str | None:
        with self._lock:
            when = self._refused.get((bmc, version))
        return None if when is None else stamp(when)

    def record_refusal(self, bmc: str, version: str, when: float) -> None:
        with self._lock:
            self._refused[bmc, version] = when

    def clear(self, bmc: str) -> None:
        with self._lock:
            self._refused = {k: v for k, v in self._refused.items() if k[0] != bmc}


PROCESS = MemoryLedger()
"""Shared by all connections of this process that were given no other."""


def stamp(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def forget(ledger: Refusals, address: str) -> None:
    """As `clear`, for an address as documents have it. The base URL names a BMC that speaks Redfish."""
    base = address.removeprefix("redfish+").removeprefix("redfish-raw+").rstrip("/")
    for name in {address, base}:
        ledger.clear(name)
