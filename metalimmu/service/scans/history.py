"""What happened to a host: what was done to it, and what scans saw change on it, in one line of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from metalimmu.plan.values import text
from metalimmu.service.scans.drift import blame_of

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite
    from metalimmu.store.scan_records import ChangeRecord

VALUE = "value"


def history(site: OpenSite, host: str, limit: int = 200) -> list[dict[str, Any]]:
    """The newest `limit`, the newest last; `at` in seconds. Raises NotFound."""
    site.spec(host)
    rows = [msgspec.to_builtins(e) for e in site.store.history(host, limit=limit)]
    rows += [_change(site, c) for c in list(site.store.changes(0.0, (host,)))[-limit:]]
    rows.sort(key=lambda r: float(r["at"]))
    return rows[-limit:]


def _change(site: OpenSite, change: ChangeRecord) -> dict[str, Any]:
    blamed = site.store.blame(change.host, change.setting, change.at)
    by = f" by {blame_of(blamed).words}" if blamed else ""
    before = "(not there)" if change.appeared else text(change.before)
    after = "(not there)" if change.vanished else text(change.after)
    return {
        "at": change.at,
        "host": change.host,
        "kind": VALUE,
        "text": f"{change.setting}: {before} -> {after}{by}",
        "data": {"setting": change.setting, "before_seen": change.before_seen},
    }
