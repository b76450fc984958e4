"""Which value to write so that a setting becomes what its profile asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from metalimmu.desired.expectations import NEUTRAL
from metalimmu.desired.makes import make_of, moving
from metalimmu.desired.neutral import Neutral
from metalimmu.desired.profile import Expectation, ResolvedProfile, Scalar
from metalimmu.observed.snapshot import Value
from metalimmu.plan.names import followed


def wanted(
    profile: ResolvedProfile, settings: Mapping[str, Value], vendor: str, *, neutral: Neutral
) -> dict[str, Scalar]:
    """BIOS settings by the names that this machine has, each with the one value that is asked for.

    `settings` are the machine's own, `vendor` is what it says of itself. What can be satisfied by several values in ways
    that nobody can choose between (a pattern, a range) is left out.
    """
    make = make_of(vendor)
    found: dict[str, Scalar] = {}
    for want in profile.expectations:
        found.update(_one(want, settings, make, neutral))
    return found


def _one(want: Expectation, settings: Mapping[str, Value], make: str, neutral: Neutral) -> Iterator[tuple[str, Scalar]]:
    if want.setting.startswith(NEUTRAL):
        yield from _neutral(want, settings, make, neutral)
    elif want.setting.startswith("bios.") and want.op == "equals" and not isinstance(want.value, tuple):
        for name in _here(want.setting, settings, make):
            yield name, want.value


def _neutral(
    want: Expectation, settings: Mapping[str, Value], make: str, neutral: Neutral
) -> Iterator[tuple[str, Scalar]]:
    word = want.value[0] if isinstance(want.value, tuple) and want.value else want.value
    for place in neutral.places(want.setting.removeprefix(NEUTRAL), make):
        names = _here(place.setting, settings, make)
        if names:
            if names[0].startswith("bios.") and (wires := place.values.get(str(word))):
                yield names[0], wires[0]
            return


def _here(setting: str, settings: Mapping[str, Value], make: str) -> tuple[str, ...]:
    """The setting under the name that it has on this machine: one, or none."""
    if setting in settings:
        return (setting,)
    pattern = moving(make)
    names = followed(setting, settings, pattern) if pattern else ()
    return names if len(names) == 1 else ()
