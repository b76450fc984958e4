"""`drift accept`: present drift becomes a waiver in the site's documents."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from metalimmu.desired.edit_waivers import add_waivers
from metalimmu.desired.waiver import Waiver
from metalimmu.errors import NotFound, UsageError
from metalimmu.plan.types import DRIFT
from metalimmu.service.runs import who
from metalimmu.service.scans.drift import findings, named

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    waivers: tuple[Waiver, ...]
    hosts: int
    left_out: int  # hosts asked for whose setting does not differ


def accept(site: OpenSite, hosts: Collection[str], setting: str, *, until: str, reason: str) -> Accepted:
    """Waive the drift that `setting` of these hosts has now, one waiver per value. Raises NotFound, UsageError, SiteError."""
    _check(until, reason)
    if not hosts:
        raise UsageError("no host is named", hint="name hosts with --host, or select them with -l")
    by_value: dict[tuple[str, str], list[str]] = {}
    for record in findings(site, hosts, DRIFT):
        f = record.finding
        if f.setting == setting or f.setting.partition(".")[2] == setting:
            by_value.setdefault((f.setting, f.actual), []).append(record.host)
    if not by_value:
        _nothing(site, hosts, setting)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    waivers = tuple(
        Waiver(hosts=sorted(names), setting=full, actual=actual, until=until, reason=reason, by=who(), since=today)
        for (full, actual), names in sorted(by_value.items())
    )
    add_waivers(site.folder, waivers)
    accepted = {h for w in waivers for h in w.hosts}
    for host in sorted(accepted):
        site.store.add_event(host, "waiver", f"{setting} accepted until {until} by {who()}: {reason}")
    return Accepted(waivers=waivers, hosts=len(accepted), left_out=len(hosts) - len(accepted))


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
