"""waivers.yaml: what is wrong in it, and what has run out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import date

from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.problems import Problem, nearest, quoted
from metalimmu.desired.waiver import Waiver, accepted_at


def waivers(docs: Collected) -> Iterator[Problem]:
    names = {h.value.name for h in docs.hosts}
    for placed in docs.waivers:
        waiver = placed.value
        for i, host in enumerate(waiver.hosts):
            if host not in names and not docs.unread_hosts:
                write = nearest(host, names, none="remove the waiver")
                yield placed.problem(("hosts", i), "the name of a host", quoted(host), write)
        yield from _empty(placed)
        if not _is_day(waiver.until):
            yield placed.problem(("until",), "a day that exists", quoted(waiver.until), 'write "2027-03-31"')
        if accepted_at(waiver) is None:
            yield placed.problem(("since",), "a time that exists", quoted(waiver.since), 'write "2027-01-31T12:00:00Z"')


def _empty(placed: Placed[Waiver]) -> Iterator[Problem]:
    if not placed.value.hosts:
        yield placed.problem(("hosts",), "at least one host", "an empty list", "name the hosts, or remove the waiver")
    if not placed.value.reason.strip():
        yield placed.problem(("reason",), "a reason", "empty text", "say why this is accepted")


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def run_out(waivers_: Iterable[Waiver], now: float | None = None) -> list[str]:
    """Those whose day has passed, in words."""
    today = time.strftime("%Y-%m-%d", time.gmtime(now))
    return [f"{w.setting} of {_few(w.hosts)} (until {w.until})" for w in waivers_ if w.until < today]


def _few(hosts: list[str]) -> str:
    return hosts[0] if len(hosts) == 1 else f"{hosts[0]} and {len(hosts) - 1} more"
