"""The part of the store that scans write and that drift, history, report and metrics read. See protocol.Store.

What is read of many hosts comes in pages behind an iterator: memory does not grow with the fleet, no transaction stays
open while the caller thinks, and each record is from one moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from metalimmu.observed.registry import Registry
from metalimmu.observed.remembered import MakeKey, Remembered
from metalimmu.observed.snapshot import Value
from metalimmu.observed.types import Unknown
from metalimmu.plan.types import Word
from metalimmu.store.scan_records import (
    BlameRecord,
    ChangeRecord,
    FindingRecord,
    HostScan,
    ScanCounts,
    Scanned,
    ScanRecord,
    ValueRecord,
)


class ScanStore(Protocol):
    # scans
    def begin_scan(self, scope: Mapping[str, Any], *, trigger: str, hosts: Sequence[str]) -> ScanRecord:
        """The list of hosts is kept with it, so that a scan which was killed is resumed with exactly what is left."""
        ...

    def scan(self, scan: str) -> ScanRecord:
        """Raises NotFound."""
        ...

    def scans(self, limit: int = 20) -> list[ScanRecord]:
        """The newest first."""
        ...

    def unfinished_scans(self) -> list[ScanRecord]:
        """The newest first; one of them may be under way in another process."""
        ...

    def finish_scan(self, scan: str, summary: Mapping[str, Any]) -> ScanRecord:
        """A second finish changes nothing."""
        ...

    def scan_summary(self, scan: str) -> ScanCounts: ...

    def scanned_hosts(self, scan: str) -> set[str]: ...

    def pending_hosts(self, scan: str) -> list[str]:
        """Those not yet recorded, in the order of the scan's list. Of a finished scan: none."""
        ...

    def record_scanned(self, scan: str, batch: Iterable[Scanned], *, left_out: Collection[str] = ()) -> None:
        """One transaction. A host that this scan has recorded already is passed over, so a batch may be sent again.

        A host on which nothing is new costs one row. `left_out`: names of settings that the snapshots had and that are
        not kept (volatile ones), so that they do not look as if they had vanished.
        """
        ...

    # what is known
    def known_hosts(self, hosts: Iterable[str] | None = None) -> Iterator[HostScan]:
        """Hosts that were ever scanned, by name; the snapshot of one moment."""
        ...

    def values(self, host: str, at: float | None = None) -> dict[str, Value]:
        """Every setting as it was known at that time; None: now. {} for a host that was never read."""
        ...

    def fleet_values(self, hosts: Iterable[str] | None = None) -> Iterator[tuple[HostScan, dict[str, Value]]]:
        """The current values, host by host."""
        ...

    def value_history(self, host: str, setting: str) -> list[ValueRecord]:
        """The oldest first."""
        ...

    def last_change(self, host: str, setting: str) -> ChangeRecord | None:
        """None: the value is the first that was ever seen."""
        ...

    def changes(self, since: float, hosts: Collection[str] | None = None) -> Iterator[ChangeRecord]:
        """In the order of time. What a host's first read found is no change."""
        ...

    def current_findings(
        self, hosts: Collection[str] | None = None, words: Collection[Word] | None = None
    ) -> Iterator[FindingRecord]:
        """Findings that hold, `stale` ones included: what the last scan could not look at again is as it was."""
        ...

    def fixed_findings(self, since: float, hosts: Collection[str] | None = None) -> Iterator[FindingRecord]:
        """Drift that ended at or after `since`, in the order of time; `ended` says how."""
        ...

    def finding_history(self, host: str, setting: str) -> list[FindingRecord]:
        """The oldest first; those that hold last."""
        ...

    def fleet(self) -> ScanCounts:
        """The newest state of all hosts that were ever scanned, counted as a scan counts; `new`, `fixed`, `changes`,
        `requests` and `seconds` are 0. Waivers are not looked at.
        """
        ...

    # blame
    def keep_blame(self, blames: Iterable[BlameRecord]) -> None: ...

    def blame(self, host: str, setting: str, at: float) -> BlameRecord | None:
        """Of the change that was first seen at `at`."""
        ...

    # what was learnt of a make: bmc.walk's PathMemory is made of these two
    def remembered(self, key: MakeKey) -> Remembered | None: ...

    def remember(self, key: MakeKey, remembered: Remembered) -> None: ...

    def registry(self, vendor: str, model: str, bios: str) -> Registry | Unknown | None:
        """None: never looked for. Unknown: looked for, and there is none that can be read."""
        ...

    def keep_registry(self, vendor: str, model: str, bios: str, registry: Registry | Unknown) -> None: ...
