"""A profile fitted to the names of settings that a machine has: neutral keys mapped, renamed attributes followed. Pure.

Nothing here looks at values, so like machines share the result: it is kept by profile, make, and which of the names that
the profile can mean are there. Where names move with BIOS versions it is kept by all names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from metalimmu.desired.expectations import NEUTRAL
from metalimmu.desired.makes import moving
from metalimmu.desired.neutral import Neutral, Place
from metalimmu.desired.profile import Expectation, Op, ResolvedProfile, Scalar
from metalimmu.observed.snapshot import Value
from metalimmu.plan.names import followed
from metalimmu.plan.values import text, wanted_text

ACCOUNTS = "bmc.accounts"
FIRMWARE = "firmware."
_FEW = 6


class Asked(NamedTuple):
    """An expectation under the name that this machine has for it."""

    want: Expectation
    setting: str
    op: Op
    value: Value
    expected: str  # op and value in words
    note: str = ""  # what led from the expectation to the setting: a neutral key, a renamed attribute


class Ready(NamedTuple):
    """`how`: the setting is there (`value`), or is not (`absent`); a firmware or account; or what to say is known
    without looking at the machine (`missing`, `unknown`), and `reason` says it.
    """

    asked: Asked
    how: Literal["value", "absent", "firmware", "account", "missing", "unknown"]
    section: str
    reason: str = ""


class _Same:
    """A dictionary key that is the very object: comparing a hundred expectations costs more than comparing a host."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.it is self.it


def ready(profile: ResolvedProfile, neutral: Neutral, make: str, settings: Mapping[str, Value]) -> tuple[Ready, ...]:
    """One for each expectation, in their order."""
    pattern = moving(make)
    if pattern is not None:  # any name may be the new one of another
        return _by_names(_Same(profile), _Same(neutral), make, tuple(settings))
    names = _names(_Same(profile), _Same(neutral), make)
    return _by_presence(_Same(profile), _Same(neutral), make, bytes(map(settings.__contains__, names)))


@lru_cache(maxsize=256)
def _names(profile: _Same, neutral: _Same, make: str) -> tuple[str, ...]:
    """All settings that the profile can mean on this make."""
    known: dict[str, None] = {}
    for want in profile.it.expectations:
        if want.setting.startswith(NEUTRAL):
            known |= dict.fromkeys(p.setting for p in neutral.it.places(want.setting[len(NEUTRAL) :], make))
        known[want.setting] = None
    return tuple(known)


@lru_cache(maxsize=512)
def _by_presence(profile: _Same, neutral: _Same, make: str, there: bytes) -> tuple[Ready, ...]:
    names = _names(profile, neutral, make)
    return _fitted(profile.it, neutral.it, make, tuple(n for n, is_there in zip(names, there, strict=True) if is_there))


@lru_cache(maxsize=128)
def _by_names(profile: _Same, neutral: _Same, make: str, names: tuple[str, ...]) -> tuple[Ready, ...]:
    return _fitted(profile.it, neutral.it, make, names)


def _fitted(profile: ResolvedProfile, neutral: Neutral, make: str, names: tuple[str, ...]) -> tuple[Ready, ...]:
    there = _There(neutral, make, names)
    return tuple(there.fitted(want) for want in profile.expectations)


def asked(want: Expectation, setting: str, op: Op, value: Value, note: str = "") -> Asked:
    return Asked(want, setting, op, value, wanted_text(op, value), note)


class _There:
    """The names that a machine has."""

    def __init__(self, neutral: Neutral, make: str, names: tuple[str, ...]) -> None:
        self._neutral = neutral
        self._make = make
        self._set = frozenset(names)
        self._names = names
        self._moving: re.Pattern[str] | None = moving(make)

    def fitted(self, want: Expectation) -> Ready:
        setting = want.setting
        if setting.startswith(NEUTRAL):
            return self._mapped(want, setting[len(NEUTRAL) :])
        plain = asked(want, setting, want.op, want.value)
        if setting.startswith(FIRMWARE):
            return Ready(plain, "firmware", "firmware")
        if setting == ACCOUNTS:
            return Ready(plain, "account", "bmc")
        return self._found(plain)

    def _found(self, plain: Asked) -> Ready:
        section = plain.setting.partition(".")[0]
        if plain.setting in self._set:
            return Ready(plain, "value", section)
        if section != "bios" or self._moving is None:
            return Ready(plain, "absent", section)
        names = followed(plain.setting, self._names, self._moving)
        if len(names) > 1:
            return Ready(plain, "missing", section, _candidates(names))
        if not names:
            return Ready(plain, "absent", section)
        renamed = f"renamed: {plain.setting} is {names[0]} on this machine"
        note = f"{plain.note}; {renamed}" if plain.note else renamed
        return Ready(plain._replace(setting=names[0], note=note), "value", section)

    def _mapped(self, want: Expectation, key: str) -> Ready:
        words = want.value if isinstance(want.value, tuple) else (want.value,)
        note = f"{key}: {' or '.join(text(w) for w in words)}"
        places = self._neutral.places(key, self._make)
        if not places:
            whose = self._make or "this make"
            reason = f"not modelled: {key} is not mapped for {whose}; name the machine's own attribute under bios_raw"
            return Ready(asked(want, want.setting, want.op, want.value), "unknown", "bios", reason)
        for place in places:
            names = self._meant(place)
            if len(names) > 1:
                return Ready(_wired(want, place, place.setting, words, note), "missing", "bios", _candidates(names))
            if names:
                return _placed(want, place, names[0], words, note)
        gone = _wired(want, places[0], places[0].setting, words, f"{note} is there on this make")
        return Ready(gone, "absent", gone.setting.partition(".")[0])

    def _meant(self, place: Place) -> tuple[str, ...]:
        if not place.stem:
            return (place.setting,) if place.setting in self._set else ()
        return followed(place.setting, self._names, self._moving) if self._moving else ()


def _placed(want: Expectation, place: Place, setting: str, words: tuple[Scalar, ...], note: str) -> Ready:
    section = setting.partition(".")[0]
    found = _wired(want, place, setting, words, note)
    if found.value == ():
        reason = f"not modelled: {setting} has no such word, only {', '.join(place.values)}; use bios_raw"
        return Ready(asked(want, setting, want.op, want.value, note), "unknown", section, reason)
    return Ready(found, "value", section)


def _wired(want: Expectation, place: Place, setting: str, words: tuple[Scalar, ...], note: str) -> Asked:
    """What the machine may say for these words."""
    wires: tuple[Scalar, ...] = tuple(wire for word in words for wire in place.values.get(str(word), ()))
    return (
        asked(want, setting, "equals", wires[0], note)
        if len(wires) == 1
        else asked(want, setting, "one_of", wires, note)
    )


def _candidates(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return f"several may be it: {', '.join(names[:_FEW])}{more}; name one"
