"""Like machines and those that are not like the others: the answer for somebody who has no profile. Pure.

Machines of one make, model and generation form a group; per setting the value that more than half of them have is the
majority, and whoever has another is an outlier. No value with more than half is said as such (a tie, or a split), and a
group of fewer than three machines has no majority to speak of.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from metalimmu.observed.snapshot import Value
from metalimmu.plan.values import text as shown

SMALL = 3
VARIOUS = 64
"""More different values than this in one group, and the setting is one that tells machines apart."""

ABSENT = "(not there)"


class Group(msgspec.Struct, frozen=True, order=True):
    make: str
    model: str
    generation: str = ""


class Outlier(msgspec.Struct, frozen=True, kw_only=True):
    """These hosts have `value`, `majority_count` of the `known` ones have `majority`. Values as text; ABSENT: no such setting."""

    setting: str
    value: str
    hosts: tuple[str, ...]
    majority: str
    majority_count: int
    known: int  # hosts of the group of which it is known


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """No value has more than half. `tie`: the two most frequent are equally frequent."""

    setting: str
    values: tuple[tuple[str, int], ...]  # the most frequent first
    tie: bool


class GroupReport(msgspec.Struct, frozen=True, kw_only=True):
    group: Group
    hosts: tuple[str, ...]
    outliers: tuple[Outlier, ...] = ()
    splits: tuple[Split, ...] = ()
    distinct: tuple[str, ...] = ()  # settings in which (nearly) every machine differs: they tell machines apart

    @property
    def small(self) -> bool:
        return len(self.hosts) < SMALL


class _Members:
    """One group while it is filled: which hosts (by place) have which value of which setting."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.values: dict[str, dict[str, array[int]]] = {}
        self.unknown: dict[str, set[int]] = {}  # by name of a section or setting

    def add(self, host: str, settings: Mapping[str, Value], unknown: Iterable[str]) -> None:
        place = len(self.hosts)
        self.hosts.append(host)
        for name in unknown:
            self.unknown.setdefault(name, set()).add(place)
        for name, value in settings.items():
            values = self.values.setdefault(name, {})
            text = shown(value)
            if text in values:
                values[text].append(place)
            elif len(values) <= VARIOUS:
                values[text] = array("I", (place,))

    def missing(self, setting: str, have: set[int]) -> list[int]:
        """Places of hosts that were read and do not have it."""
        unread: set[int] = set()
        name = setting
        while name and self.unknown:
            unread |= self.unknown.get(name, set())
            name = name.rpartition(".")[0]
        return [i for i in range(len(self.hosts)) if i not in have and i not in unread]


class Groups:
    """Takes one host after the other; keeps a number per host and setting, not the settings."""

    def __init__(self) -> None:
        self._groups: dict[Group, _Members] = {}

    def add(self, group: Group, host: str, settings: Mapping[str, Value], unknown: Iterable[str] = ()) -> None:
        """`settings` without identity and noise. `unknown`: names of sections or settings that could not be read."""
        self._groups.setdefault(group, _Members()).add(host, settings, unknown)

    def reports(self) -> Iterator[GroupReport]:
        """The largest group first."""
        for group, members in sorted(self._groups.items(), key=lambda item: (-len(item[1].hosts), item[0])):
            yield _report(group, members)


def _report(group: Group, members: _Members) -> GroupReport:
    hosts = tuple(members.hosts)
    if len(hosts) < SMALL:
        return GroupReport(group=group, hosts=hosts)
    outliers: list[Outlier] = []
    splits: list[Split] = []
    distinct: list[str] = []
    for setting in sorted(members.values):
        found = {text: list(places) for text, places in members.values[setting].items()}
        if _tells_apart([len(p) for p in found.values()]):
            distinct.append(setting)
            continue
        if absent := members.missing(setting, {i for places in found.values() for i in places}):
            found[ABSENT] = absent
        ranked = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        known = sum(len(p) for p in found.values())
        top, first = ranked[0]
        if len(first) * 2 <= known:
            tie = len(ranked[1][1]) == len(first)
            splits.append(Split(setting=setting, values=tuple((t, len(p)) for t, p in ranked), tie=tie))
            continue
        outliers += [
            Outlier(
                setting=setting,
                value=text,
                hosts=tuple(hosts[i] for i in places),
                majority=top,
                majority_count=len(first),
                known=known,
            )
            for text, places in ranked[1:]
        ]
    return GroupReport(
        group=group, hosts=hosts, outliers=tuple(outliers), splits=tuple(splits), distinct=tuple(distinct)
    )


def _tells_apart(counts: list[int]) -> bool:
    """Serial numbers and the like, where the list of what is noise does not know them: hardly any two are equal."""
    return len(counts) > VARIOUS or (len(counts) > 2 and len(counts) * 10 > sum(counts) * 8)
