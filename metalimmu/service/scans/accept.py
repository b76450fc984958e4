"""`drift accept`: present drift becomes a waiver in the site's documents."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from metalimmu.desired.edit_waivers import add_waivers
from metalimmu.desired.waiver import Waiver
from metalimmu.errors import NotFound, UsageError
from metalimmu.plan.types import DRIFT
from metalimmu.service.runs import who
from metalimmu.service.scans.drift import findings, make_of_host, named, own_name

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    waivers: tuple[Waiver, ...]
    hosts: int
    left_out: int  # hosts asked for whose setting does not differ


def accept(site: OpenSite, hosts: Collection[str], setting: str, *, until: str, reason: str) -> Accepted:
    """Waive the drift that `setting` of these hosts has now, one waiver per value and name: a vendor-neutral name is each
    host's own. Raises NotFound, UsageError, SiteError.
    """
    _check(until, reason)
    if not hosts:
        raise UsageError("no host is named", hint="name hosts with --host, or select them with -l")
    by_value: dict[tuple[str, str], list[str]] = {}
    meant = _Meant(site, setting)
    for record in findings(site, hosts, DRIFT):
        f = record.finding
        if meant(record.host, f.setting):
            by_value.setdefault((f.setting, f.actual), []).append(record.host)
    if not by_value:
        _nothing(site, hosts, setting)
    now = _now()
    waivers = tuple(
        Waiver(hosts=sorted(names), setting=full, actual=actual, until=until, reason=reason, by=who(), since=now)
        for (full, actual), names in sorted(by_value.items())
    )
    add_waivers(site.folder, waivers)
    accepted = {h for w in waivers for h in w.hosts}
    for host in sorted(accepted):
        site.store.add_event(host, "waiver", f"{setting} accepted until {until} by {who()}: {reason}")
    return Accepted(waivers=waivers, hosts=len(accepted), left_out=len(hosts) - len(accepted))


class _Meant:
    """Is this the setting that was named: in full, without its section, or by its vendor-neutral name?"""

    def __init__(self, site: OpenSite, setting: str) -> None:
        self._store = site.store
        self._setting = setting
        self._makes = {h.host: make_of_host(h) for h in site.store.known_hosts()}

    def __call__(self, host: str, setting: str) -> bool:
        if self._setting == setting or self._setting.casefold() == setting.partition(".")[2].casefold():
            return True
        make = self._makes.get(host, "")
        if not own_name(self._setting, make, (setting,)):
            return False
        return own_name(self._setting, make, {*self._store.values(host), setting}) == setting


def _now() -> str:
    """In UTC to the millisecond, and not before: what was seen until now is what is accepted."""
    moment = datetime.now(UTC) + timedelta(microseconds=999)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _check(until: str, reason: str) -> None:
    try:
        day = date.fromisoformat(until)
    except ValueError as exc:
        raise UsageError(f"--until {until!r} is no day", hint="write YYYY-MM-DD") from exc
    if day.isoformat() != until:
        raise UsageError(f"--until {until!r} is no day as YYYY-MM-DD", hint=f"write {day.isoformat()}")
    if day.isoformat() < time.strftime("%Y-%m-%d", time.gmtime()):
        raise UsageError(f"--until {until} has passed", hint="name a day that is still to come")
    if not reason.strip():
        raise UsageError("a waiver needs a reason", hint="--reason 'ticket 4711: waits for the next maintenance'")


def _nothing(site: OpenSite, hosts: Collection[str], setting: str) -> None:
    """Raises: the setting is unknown on all of them, or it does not differ anywhere."""
    last: NotFound | None = None
    for host in sorted(hosts):
        try:
            full = named(site.store, host, setting)
        except NotFound as exc:
            last = exc
            continue
        raise UsageError(
            f"{full} is no drift on any of these hosts: there is nothing to accept",
            hint="`metalimmu drift` shows what differs",
        )
    raise last or NotFound(f"nothing is known of {setting!r}")
