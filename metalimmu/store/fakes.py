"""Stores for tests, by name: one that breaks when told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metalimmu.errors import StoreError


class FailingStore:
    """Passes everything on to another store, until `broken`: then each method in `only` (empty: all) raises StoreError,
    as with a full disk.
    """

    def __init__(self, store: Any, *, only: frozenset[str] = frozenset()) -> None:
        self.broken = False
        self.calls: list[str] = []  # refused
        self._store = store
        self._only = only

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.broken and (not self._only or name in self._only):
                self.calls.append(name)
                raise StoreError("store.sqlite: database or disk is full", hint="free space on the disk")
            return method(*args, **kwargs)

        return call
