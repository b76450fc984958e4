"""What one receiver is to be told, given what it was told before. Pure: the same input, the same messages.

A cause is told once. It is told again when hosts have joined it, and as fixed when the last host has left it. Hosts that
cannot be read keep what was known of them: silence fixes nothing. Hosts that differ otherwise now, or cannot be read for
another reason, have left it and nothing is fixed: it is told as changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from metalimmu import structs
from metalimmu.desired.alerts import Alert
from metalimmu.service.alerts.causes import Open
from metalimmu.service.alerts.notice import MOST_HOSTS, News, Notice, Told
from metalimmu.store.trigger_records import AlertState

SINGLE = 10  # so many causes in one evaluation have a message each; more than that are one message


class Decision(NamedTuple):
    keep: list[AlertState]
    forget: list[AlertState]
    notices: list[Notice]


class Known(NamedTuple):
    """What the history says of a cause: when the value was first seen to be so, and who or what made it so."""

    since: float | None = None
    by: tuple[str, ...] = ()


Ask = Callable[[Open, Collection[str]], Known]
"""Of a cause, and hosts that have it."""


def decide(
    site: str,
    alert: Alert,
    open_causes: Iterable[Open],
    states: Sequence[AlertState],
    now: float,
    *,
    waived: Collection[str] = (),
    ask: Ask = lambda _cause, _hosts: Known(),
) -> Decision:
    """`states` are this receiver's. `waived`: keys of causes that somebody has accepted meanwhile. `ask` is called for what
    is told, of the hosts that are new to it.
    """
    before = {s.cause: s for s in states}
    keep: list[AlertState] = []
    told: dict[News, list[Told]] = {"drift": [], "unknown": [], "fixed": []}
    still: dict[tuple[str, str], set[str]] = {}
    for found in open_causes:
        still.setdefault((found.cause.kind, found.cause.setting), set()).update(found.hosts)
        state = before.pop(found.cause.key, None)
        new = found.hosts if state is None else found.hosts.difference(state.hosts)
        joined = len(new)
        after = _state(alert.name, found, state, now, joined, ask(found, new) if joined else Known())
        if after != state:
            keep.append(after)
        if joined:
            told[found.cause.kind].append(_told(after, joined=joined))
    for state in before.values():
        others = still.get((state.kind, state.about.get("setting", "")), set())
        told["fixed"].append(_told(state, how=_how(state, waived, others)))
    wanted: Collection[str] = alert.news or told
    notices = [n for kind, causes in told.items() if kind in wanted for n in _notices(site, alert, kind, causes, now)]
    return Decision(keep, list(before.values()), notices)


def _state(name: str, found: Open, state: AlertState | None, now: float, joined: int, known: Known) -> AlertState:
    """`since` of the state is when it was told first: with it each episode has its own notices."""
    hosts = tuple(sorted(found.hosts))
    first = min((t for t in (known.since, found.since) if t is not None), default=now)
    if state is None:
        cause = found.cause
        about = {f: getattr(cause, f) for f in ("severity", "setting", "expected", "actual", "reason", "owner")}
        about |= {"settings": tuple(sorted(found.settings)), "example": found.example, "since": first, "by": known.by}
        return AlertState(
            alert=name, cause=cause.key, kind=cause.kind, since=now, about=about, hosts=hosts, was=len(hosts)
        )
    about = state.about
    if joined:
        by = tuple(dict.fromkeys((*about.get("by", ()), *known.by)))
        names = tuple(sorted(found.settings.union(about.get("settings", ()))))
        about = {**about, "settings": names, "since": min(first, about.get("since", state.since)), "by": by}
    return msgspec.structs.replace(
        state, revision=state.revision + bool(joined), hosts=hosts, was=max(state.was, len(hosts)), about=about
    )


def _how(state: AlertState, waived: Collection[str], others: set[str]) -> str:
    """`others`: hosts on which this setting is wrong for another cause now, or which cannot be read for another reason."""
    if others.issuperset(state.hosts):
        return "changed"
    if state.kind == "unknown":
        return "read-again"
    return "waived" if state.cause in waived else "fixed"


def _told(state: AlertState, *, joined: int = 0, how: str = "") -> Told:
    about = state.about
    return structs.convert(
        {
            **{f: about.get(f, "") for f in ("severity", "setting", "expected", "actual", "reason", "owner")},
            "cause": state.cause,
            "told": state.since,
            "kind": state.kind,
            "detail": about.get("example", ""),
            "since": about.get("since", state.since),
            "by": about.get("by", ()),
            "settings": about.get("settings", ()),
            "revision": state.revision,
            "hosts": state.hosts[:MOST_HOSTS],
            "hosts_total": len(state.hosts),
            "new_hosts_total": joined,
            "how": how,
        },
        Told,
    )


def _notices(site: str, alert: Alert, kind: News, causes: list[Told], now: float) -> Iterator[Notice]:
    """The worst first."""
    causes.sort(key=lambda t: ({"critical": 0, "warning": 1}.get(t.severity, 2), -t.hosts_total, t.setting, t.cause))
    for group in [[c] for c in causes] if len(causes) <= SINGLE else [causes]:
        yield Notice(id=key(site, alert.name, kind, group), site=site, kind=kind, at=now, causes=tuple(group))


def key(site: str, alert: str, kind: str, causes: Iterable[Told]) -> str:
    """The notice's id: the same whenever the same is said again."""
    what = [site, alert, kind, *sorted((c.cause, c.told, c.revision) for c in causes)]
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:40]


def open_now(site: str, alert: str, states: Iterable[AlertState], now: float) -> Notice:
    """All that holds, for a receiver that wants to hear it again and again."""
    causes = [_told(s) for s in states]
    return Notice(id=key(site, alert, "refresh", causes), site=site, kind="drift", at=now, causes=tuple(causes))
