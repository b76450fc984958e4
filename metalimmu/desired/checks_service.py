"""What no single field of `schedules:` and `alerts:` can say."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from metalimmu.desired import selector, times
from metalimmu.desired.alerts import Alert
from metalimmu.desired.collected import Placed
from metalimmu.desired.problems import Path as FieldPath
from metalimmu.desired.problems import Problem, nearest, quoted, visible
from metalimmu.desired.schedules import Schedule
from metalimmu.desired.types import Site
from metalimmu.desired.units import seconds
from metalimmu.errors import UsageError

CHANNELS = ("webhook", "slack", "email", "alertmanager")
Reference = Callable[[str, Placed[Site], FieldPath], Iterator[Problem]]

_SCOPE = "a selector"
_ANY_DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # what follows is the same on every day that one checks
_LOOKED_AT = 50  # times of a schedule: enough to meet its shortest interval
_ADDRESS = re.compile(r"[^@\s<>,;:]+@[^@\s<>,;:]+")


def service_problems(placed: Placed[Site], root: Path, reference: Reference) -> Iterator[Problem]:
    """`root` is the site's folder; `reference` checks a reference to a secret."""
    site = placed.value
    for name, schedule in site.schedules.items():
        yield from _schedule(schedule, placed, ("schedules", name))
    names: set[str] = set()
    for i, alert in enumerate(site.alerts):
        path: FieldPath = ("alerts", i)
        if alert.name in names:
            yield placed.problem((*path, "name"), "one alert of that name", f"{quoted(alert.name)} again", "rename it")
        names.add(alert.name)
        yield from _alert(alert, placed, path, root, reference)


def _schedule(schedule: Schedule, placed: Placed[Site], path: FieldPath) -> Iterator[Problem]:
    zone = times.zone(schedule.timezone)
    if zone is None:
        write = nearest(schedule.timezone, times.zones(), none="install the Debian package tzdata, or write UTC")
        yield placed.problem((*path, "timezone"), "an IANA time zone", quoted(schedule.timezone), write)
    try:
        following = times.following(schedule.cron, zone or dt.UTC, _ANY_DAY.timestamp(), _LOOKED_AT)
    except ValueError as exc:
        expected = "minute, hour, day of month, month, day of week"
        got = f"{quoted(schedule.cron)} ({visible(str(exc))})"
        yield placed.problem((*path, "cron"), expected, got, 'write "0 2 * * *" for 02:00 each day')
    else:
        yield from _splay(schedule, following, placed, (*path, "splay"))
    if schedule.scope is not None:
        yield from _scope(schedule.scope, placed, (*path, "scope"))


def _splay(schedule: Schedule, following: list[float], placed: Placed[Site], path: FieldPath) -> Iterator[Problem]:
    """A splay is before and after: with more than half of an interval, two scans would overlap."""
    shortest = min((b - a for a, b in pairwise(following)), default=0.0)
    if shortest and seconds(schedule.splay) * 2 > shortest:
        expected = "at most half of the time between two scans"
        got = f"{schedule.splay} where {shortest:.0f} s lie between two"
        yield placed.problem(path, expected, got, f"write {shortest / 2:.0f}s, or less")


def _alert(alert: Alert, placed: Placed[Site], path: FieldPath, root: Path, reference: Reference) -> Iterator[Problem]:
    given = [c for c in CHANNELS if getattr(alert, c) is not None]
    if len(given) != 1:
        expected = "one of " + ", ".join(CHANNELS)
        yield placed.problem(path, expected, " and ".join(given) or "none", "write an alert for each receiver")
    if alert.scope is not None:
        yield from _scope(alert.scope, placed, (*path, "scope"))
    for channel in given:
        here = (*path, channel)
        document = getattr(alert, channel)
        for field in ("secret", "credentials"):
            if (ref := getattr(document, field, None)) is not None:
                yield from reference(ref, placed, (*here, field))
        if channel == "slack":
            yield from reference(document.url, placed, (*here, "url"))
        if document.ca and not (root / document.ca).is_file():
            got = f"{quoted(document.ca)}, which is not there"
            yield placed.problem((*here, "ca"), "a PEM file", got, "write its path from the site's folder")
    if alert.email:
        yield from _email(alert, placed, (*path, "email"))
    if (manager := alert.alertmanager) and manager.credentials and _in_the_clear(manager.url):
        expected = "https:// where there is a password"
        here = (*path, "alertmanager", "url")
        yield placed.problem(here, expected, quoted(manager.url), "write https://, or remove the credentials")


def _email(alert: Alert, placed: Placed[Site], path: FieldPath) -> Iterator[Problem]:
    mail = alert.email
    if mail is None:
        return
    if mail.credentials and mail.tls == "none":
        got = "tls: none beside credentials"
        yield placed.problem(
            (*path, "tls"), "a password that does not travel in the clear", got, "remove one of the two"
        )
    for field, address in (("sender", mail.sender), *(("to", a) for a in mail.to)):
        if not _ADDRESS.fullmatch(address):
            yield placed.problem((*path, field), "an e-mail address", quoted(address), "write ops@example.org")


def _scope(scope: str, placed: Placed[Site], path: FieldPath) -> Iterator[Problem]:
    try:
        selector.parse(scope)
    except UsageError as exc:
        yield placed.problem(path, _SCOPE, visible(exc.message), "write pool=web")


def _in_the_clear(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")
