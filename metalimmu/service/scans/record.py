"""Results into the store: in batches, as they come, each host once."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import msgspec

from metalimmu.store.scan_records import Scanned
from metalimmu.store.scans import state

if TYPE_CHECKING:
    from metalimmu.store.scan_protocol import ScanStore

BATCH = 200  # hosts
LONGEST = 2.0  # seconds that a result waits: what a killed scan may have to read again


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a scan is. Times in seconds."""

    done: int
    total: int
    unknown: int = 0
    drift: int = 0
    elapsed: float = 0.0
    here: int = 0  # done by this process: a resumed scan began with more

    @property
    def rate(self) -> float:
        """Hosts per second."""
        return self.here / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the end, if it goes on like this; None: nobody can tell yet."""
        return (self.total - self.done) / self.rate if self.here else None


class Recorder:
    """Collects results and writes them; `flush` at the end, also of a scan that was interrupted."""

    def __init__(
        self,
        store: ScanStore,
        scan: str,
        *,
        total: int,
        done: int = 0,
        progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._scan = scan
        self._progress = progress
        self._clock = clock
        self._began = self._flushed = clock()
        self._batch: list[Scanned] = []
        self._total = total
        self._done = done
        self._here = self._unknown = self._drift = 0

    def add(self, scanned: Scanned, *, left_out: Collection[str] = ()) -> None:
        """Raises StoreError."""
        self._batch.append(scanned)
        self._here += 1
        found = state(scanned)
        self._unknown += found == "unknown"
        self._drift += found == "drift"
        if len(self._batch) >= BATCH or self._clock() - self._flushed >= LONGEST:
            self.flush(left_out=left_out)
        self.say()

    def flush(self, *, left_out: Collection[str] = ()) -> None:
        if self._batch:
            self._store.record_scanned(self._scan, self._batch, left_out=left_out)
            self._batch = []
        self._flushed = self._clock()

    def say(self) -> None:
        if self._progress is not None:
            self._progress(
                Progress(
                    done=self._done + self._here,
                    total=self._total,
                    unknown=self._unknown,
                    drift=self._drift,
                    elapsed=self._clock() - self._began,
                    here=self._here,
                )
            )
