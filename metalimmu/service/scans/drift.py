"""The verbs of drift: what differs now, since when and why; the life of one setting. Reads the store, never a BMC."""

from __future__ import annotations

import difflib
import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from metalimmu import structs
from metalimmu.desired.expectations import NEUTRAL
from metalimmu.desired.makes import make_of, moving
from metalimmu.desired.neutral import neutral
from metalimmu.desired.volatile import volatile
from metalimmu.errors import NotFound
from metalimmu.observed.snapshot import Value
from metalimmu.plan.blame import Blame
from metalimmu.plan.causes import Drift
from metalimmu.plan.look import is_staged
from metalimmu.plan.types import DRIFT, Word
from metalimmu.plan.values import text
from metalimmu.plan.waivers import Waivers, lapsed
from metalimmu.service.scans.result import value_since, waived
from metalimmu.store.scan_records import BlameRecord, ChangeRecord, FindingRecord, HostScan, ValueRecord

if TYPE_CHECKING:
    from metalimmu.desired.waiver import Waiver
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_protocol import ScanStore

_ACCOUNT = "bmc.account."


def hosts_of(site: OpenSite, hosts: Sequence[str] | None = None, selector: str | None = None) -> frozenset[str]:
    """Names of hosts of the site: those named, those that fit, or all. Raises NotFound, UsageError."""
    from metalimmu.desired.resolve import resolve_all
    from metalimmu.service.scans.scan import chosen

    return frozenset(chosen(site, resolve_all(site.docs, root=site.folder), hosts, selector))


def findings(
    site: OpenSite, hosts: Collection[str] | None = None, words: Collection[Word] | None = None
) -> Iterator[FindingRecord]:
    """What holds, with waivers applied; `hosts` None: of all hosts of the site."""
    wanted = frozenset(site.docs.hosts) if hosts is None else hosts
    return waived(site.store, site.store.current_findings(wanted, words), Waivers(site.docs.waivers))


def drifts(site: OpenSite, *, hosts: Collection[str] | None = None, since: float | None = None) -> Iterator[Drift]:
    """Drift that holds. With `since`, a time: what began then or later, and what has ended since (with `fixed_at`)."""
    store = site.store
    wanted = frozenset(site.docs.hosts) if hosts is None else frozenset(hosts)
    makes = {h.host: make_of_host(h) for h in store.known_hosts()}
    for record in findings(site, wanted, DRIFT):
        if since is None or record.first_seen >= since:
            yield drift(store, record, makes.get(record.host, ""))
    if since is not None:
        for record in store.fixed_findings(since, wanted):
            if record.ended != "changed":  # it goes on, as another value
                yield drift(store, record, makes.get(record.host, ""))


def make_of_host(host: HostScan) -> str:
    """As in makes.yaml."""
    return make_of(host.about.manufacturer, host.about.generation)


def drift(store: ScanStore, record: FindingRecord, make: str = "") -> Drift:
    f = record.finding
    change = change_of(store, record)
    blamed = store.blame(record.host, change.setting, change.at) if change else None
    return Drift(
        host=record.host,
        setting=f.setting,
        make=make,
        word=str(f.word),
        expected=f.expected,
        actual=f.actual,
        severity=f.severity,
        owner=f.owner,
        profile=f.profile,
        source=f.source,
        reason=f.reason,
        since=record.first_seen,
        seen=record.last_seen,
        fixed_at=record.fixed_at,
        before=None if change is None else "(not there)" if change.appeared else text(change.before),
        blame=blame_of(blamed).words if blamed else "",
        waived=f.waived,
        stale=record.stale,
    )


def change_of(store: ScanStore, record: FindingRecord) -> ChangeRecord | None:
    """The change with which this finding began: of the value, or of what is staged. None: it was so when it was first
    looked at, or it is the profile that has changed.
    """
    setting = value_name(record.finding.setting)
    last = store.last_change(record.host, setting)
    if last is not None and last.at == record.first_seen:  # both are the time of one reading
        return last
    if is_staged(record.finding) and (staging := _staging(store, record)) is not None:
        return staging
    if last is None:
        return None
    if last.at < record.first_seen and _drifted_at(store, record, last.at):
        return last
    life = store.value_history(record.host, setting) if last.at > record.first_seen else []
    for before, after in itertools.pairwise(life):
        if after.since == record.first_seen and before.seen is not None:
            return ChangeRecord(
                host=record.host,
                setting=setting,
                before=before.value,
                after=after.value,
                at=after.since,
                before_seen=before.seen,
                appeared=not before.present,
                vanished=not after.present,
            )
    return None


def _staging(store: ScanStore, record: FindingRecord) -> ChangeRecord | None:
    """What was found before was the same value, held against the same expectation, and nothing like this was staged."""
    f = record.finding
    for earlier in store.finding_history(record.host, f.setting):
        was = earlier.finding
        if earlier.fixed_at == record.first_seen and was.expected == f.expected and was.word is not Word.unknown:
            return ChangeRecord(
                host=record.host,
                setting=value_name(f.setting),
                before=was.actual,
                after=f.actual,
                at=record.first_seen,
                before_seen=earlier.last_seen,
            )
    return None


def _drifted_at(store: ScanStore, record: FindingRecord, moment: float) -> bool:
    """Did drift begin then that this finding goes on with in another word (it was staged, a job was running)?"""
    life = store.finding_history(record.host, record.finding.setting)
    return any(f.first_seen == moment and f.finding.word in DRIFT and f.ended == "changed" for f in life)


def value_name(setting: str) -> str:
    """The setting that the value of a finding is kept under."""
    return "bmc.accounts" if setting.startswith(_ACCOUNT) else setting


def blame_of(record: BlameRecord) -> Blame:
    fields = {f: getattr(record, f) for f in ("kind", "who", "what", "why", "entries")}
    return structs.convert(fields, Blame)


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one setting of one host; each list with the oldest first."""

    host: HostScan
    setting: str
    values: tuple[ValueRecord, ...]
    findings: tuple[FindingRecord, ...]
    blames: tuple[BlameRecord, ...]
    waivers: tuple[tuple[Waiver, str], ...]  # each with why it does not hold now; empty: it does

    @property
    def value(self) -> Value:
        return self.values[-1].value if self.values else None


def show(site: OpenSite, host: str, setting: str) -> Life:
    """`setting` may be given without its section where that is enough. Raises NotFound, with the nearest names."""
    site.spec(host)
    store = site.store
    known = next(store.known_hosts([host]), None)
    if known is None:
        raise NotFound(f"{host} was never scanned", hint=f"`metalimmu scan {host}`")
    setting = named(store, host, setting)
    values = store.value_history(host, value_name(setting))
    history = store.finding_history(host, setting)
    found = tuple(waived(store, iter(history), Waivers(site.docs.waivers)))
    moments = sorted({v.since for v in values} | {f.first_seen for f in history})
    blames = (store.blame(host, value_name(setting), moment) for moment in moments)
    actual = text(values[-1].value) if values and values[-1].present else ""
    began = values[-1].since if values else 0.0
    holds = next((f for f in reversed(history) if f.fixed_at is None and f.finding.word is not Word.unknown), None)
    if holds is not None:  # as waivers see it: an account's own, what is staged
        actual, began = holds.finding.actual, value_since(history, holds)
    now = time.time()
    return Life(
        host=known,
        setting=setting,
        values=tuple(values),
        findings=found,
        blames=tuple(b for b in blames if b is not None),
        waivers=tuple((w, lapsed(w, actual, now, began)) for w in Waivers(site.docs.waivers).all_of(host, setting)),
    )


def own_name(setting: str, make: str, names: Collection[str]) -> str:
    """What a machine of this make and with these names calls a vendor-neutral setting: `hyperthreading`, or
    `neutral.hyperthreading`, is `bios.LogicalProc`. Empty: it is no neutral key, or has no one name there.
    """
    ending = moving(make)
    for place in neutral().places(setting.removeprefix(NEUTRAL), make):
        stems = (n for n in names if ending is not None and place.stem and ending.sub("", n) == place.setting)
        found = {n for n in (place.setting,) if n in names} | set(stems)
        if len(found) == 1:
            return found.pop()
    return ""


def named(store: ScanStore, host: str, setting: str) -> str:
    """The full name of a setting that this host has or had, or that was asked of it; also of a vendor-neutral one. Raises
    NotFound.
    """
    if store.value_history(host, value_name(setting)) or store.finding_history(host, setting):
        return setting
    names = {*store.values(host), *(f.finding.setting for f in store.current_findings([host]))}
    short = [n for n in names if n.partition(".")[2].casefold() == setting.casefold()]
    if len(short) == 1:
        return short[0]
    known = next(store.known_hosts([host]), None)
    if known is not None and (own := own_name(setting, make_of_host(known), names)):
        return own
    if known is not None and volatile().kind(setting, known.about.manufacturer) == "volatile":
        what = f"{setting} is not kept: it changes by itself"
        raise NotFound(what, hint=f"`metalimmu host inspect {host}` reads it now")
    close = difflib.get_close_matches(setting, names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"`metalimmu drift show {host} bios.ATTRIBUTE`"
    raise NotFound(f"nothing is known of {setting!r} of {host}", hint=hint)
