"""What scans leave in the store. Times are seconds since 1970 (UTC).

A value is kept as its changes: when it was first seen, when the one before it was seen last. "Seen" means that the part
of the BMC where it stands was read well; a host that could not be read makes nothing newer.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from metalimmu.observed.log_entry import LogEntry
from metalimmu.observed.snapshot import Snapshot, Value
from metalimmu.plan.host_state import HostState
from metalimmu.plan.types import Finding
from metalimmu.store.records import ErrorText, Record

Ended = Literal["fixed", "changed", "dropped"]


class ScanRecord(Record, frozen=True, kw_only=True):
    id: str  # see ids.scan_id: sorts by time
    trigger: str  # cli | schedule:NAME | ...
    scope: dict[str, Any] = {}  # what was asked for: hosts, selector
    hosts: int = 0  # how many it is about
    hosts_digest: str = ""  # of the list of their names, kept once for all scans of the same hosts
    created: float = 0.0
    finished: float | None = None
    counts: dict[str, Any] = {}  # a ScanCounts: what its hosts were found to be, grows with each batch
    summary: dict[str, Any] = {}  # what the scan itself says at its end

    @property
    def unfinished(self) -> bool:
        return self.finished is None


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a host said it is at its last good read, and the profile that it was compared with."""

    manufacturer: str = ""
    model: str = ""
    generation: str = ""  # of the hardware, as far as the BMC tells: the BMC's own model
    serial: str = ""
    bios_version: str = ""
    bmc_version: str = ""
    system: str = ""  # URI
    settings: str = ""  # URI of the BIOS settings object, where pending values are written to
    profile: str = ""


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """One host's result of one scan. Without a snapshot, or with one that has no settings, it could not be read: `failure`
    says why. With both, the BMC went away in the middle. Of the snapshot the store keeps `settings` and which names are `unknown`: leave out what is volatile.
    """

    host: str
    at: float = 0.0
    snapshot: Snapshot | None = None
    findings: tuple[Finding, ...] = ()
    failure: ErrorText | None = None
    about: About = About()
    requests: int = 0
    seconds: float = 0.0
    settings: int = 0  # that somebody could decide: see plan.coverage
    covered: int = 0  # of these, by the profile

    @property
    def read(self) -> bool:
        return self.snapshot is not None and bool(self.snapshot.settings)


class HostScan(msgspec.Struct, frozen=True, kw_only=True):
    """What scans know of one host. `stale`: names (a section, or a setting) that the last good read could not read, with
    the time when each was read last; None: never.
    """

    host: str
    read_at: float | None = None  # the last good read
    tried_at: float | None = None
    streak: int = 0  # scans in a row that could not read it
    gaps: int = 0  # settings of its profile that the last good read could not read
    dark: int = 0  # scans in a row that could not read it, or not all that its profile asks for
    failure: ErrorText | None = None  # while the streak lasts
    found: HostState = "unknown"  # at the last good read; waivers are applied when it is shown
    about: About = About()
    stale: dict[str, float | None] = {}

    @property
    def state(self) -> HostState:
        return "unknown" if self.streak else self.found

    def seen(self, setting: str) -> float | None:
        """When this setting, or the part of the BMC where it would stand, was read last."""
        name = setting
        while name and self.stale:
            if name in self.stale:
                return self.stale[name]
            name = name.rpartition(".")[0]
        return self.read_at


class ValueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One value in the life of a setting. `present` false: the setting was not there."""

    value: Value
    since: float  # first seen
    seen: float | None  # last seen
    until: float | None = None  # when another was first seen; None: it is the current one
    present: bool = True


class ChangeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The change happened after `before_seen` and not later than `at`. None stands for a setting that was not there too:
    `appeared` and `vanished` tell.
    """

    host: str
    setting: str
    before: Value
    after: Value
    at: float
    before_seen: float
    appeared: bool = False
    vanished: bool = False


class FindingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finding and how long it has been so. `stale`: the last scan could not look again, so this is the last known."""

    host: str
    finding: Finding
    first_seen: float
    last_seen: float
    fixed_at: float | None = None  # when it was first seen not to be so any more; None: it still is
    ended: Ended | None = None  # fixed: it matched then; changed: it differs otherwise; dropped: nobody asks any more
    stale: bool = False


class BlameRecord(Record, frozen=True, kw_only=True):
    """Who or what made a change, by the BMC's own logs; `entries` are those quoted."""

    host: str
    setting: str
    at: float  # of the change
    kind: str  # account | event | unknown
    who: str = ""  # the account
    what: str = ""  # firmware-update | reset-to-default | cmos-clear | bios-change | ...
    why: str = ""  # one sentence
    entries: tuple[LogEntry, ...] = ()


class ScanCounts(msgspec.Struct, kw_only=True):
    """Of one scan. Sums: they are the same whatever the batches were."""

    states: dict[str, int] = {}  # hosts by HostState
    words: dict[str, int] = {}  # findings by Word
    severities: dict[str, int] = {}  # findings that are drift, by severity
    reasons: dict[str, int] = {}  # hosts that could not be read, by the failure's code
    new: int = 0  # drift that was not there at the read before
    fixed: int = 0
    changes: int = 0  # of values
    requests: int = 0
    seconds: float = 0.0  # of conversation, over all BMCs
    settings: int = 0  # that somebody could decide, over all hosts that were read
    covered: int = 0  # of these, by a profile
