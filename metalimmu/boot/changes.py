"""Wakes who waits for a deployment, at once and only them. What changed is in the store; this only says: look."""

from __future__ import annotations

import threading
import time


class Changes:
    """Each deployment has a count of its changes. A waiter passes the count it saw before it looked into the store, so a
    change between looking and waiting is not lost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._waiting: dict[str, threading.Condition] = {}

    def count(self, deployment: str) -> int:
        with self._lock:
            return self._counts.get(deployment, 0)

    def notify(self, deployment: str) -> None:
        with self._lock:
            self._counts[deployment] = self._counts.get(deployment, 0) + 1
            waiting = self._waiting.get(deployment)
            if waiting is not None:
                waiting.notify_all()

    def wait(self, deployment: str, timeout: float, *, since: int | None = None) -> int:
        """Until the count differs from `since` (None: from now on), or `timeout` seconds. Returns the count."""
        deadline = time.monotonic() + timeout
        with self._lock:
            seen = self._counts.get(deployment, 0) if since is None else since
            waiting = self._waiting.setdefault(deployment, threading.Condition(self._lock))
            while self._counts.get(deployment, 0) == seen:
                left = deadline - time.monotonic()
                if left <= 0 or not waiting.wait(left):
                    break
            return self._counts.get(deployment, 0)
