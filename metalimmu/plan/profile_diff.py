"""Two profiles, setting by setting. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from metalimmu.desired.profile import Expectation, ResolvedProfile
from metalimmu.plan.lint_profile import field
from metalimmu.plan.values import wanted_text

Change = Literal["only in A", "only in B", "differs", "same value"]
_ASIDE = ("severity", "owner", "component")
"""What may differ though the value is the same."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    setting: str  # as it stands in a profile: bios.sriov, bios_raw.SriovGlobalEnable, firmware.bios
    change: Change
    a: str = ""
    b: str = ""


def differences(a: ResolvedProfile, b: ResolvedProfile) -> list[Difference]:
    """What is not the same, in the order of A, then what only B has. `same value`: severity, owner or component differ."""
    ours, theirs = _keyed(a), _keyed(b)
    found = []
    for key, one in ours.items():
        other = theirs.get(key)
        if other is None:
            found.append(Difference(setting=field(one.setting), change="only in A", a=_text(one)))
        elif (one.op, one.value) != (other.op, other.value):
            found.append(Difference(setting=field(one.setting), change="differs", a=_text(one), b=_text(other)))
        elif any(getattr(one, f) != getattr(other, f) for f in _ASIDE):
            found.append(
                Difference(setting=field(one.setting), change="same value", a=_aside(one, other), b=_aside(other, one))
            )
    only = [e for key, e in theirs.items() if key not in ours]
    return [*found, *(Difference(setting=field(e.setting), change="only in B", b=_text(e)) for e in only)]


def _keyed(profile: ResolvedProfile) -> dict[tuple[object, ...], Expectation]:
    """Accounts share one setting, each with an expectation of its own."""
    return {(e.setting, e.value if e.op in ("contains", "lacks") else None): e for e in profile.expectations}


def _text(one: Expectation) -> str:
    return wanted_text(one.op, one.value)


def _aside(one: Expectation, other: Expectation) -> str:
    """Only what the other has otherwise."""
    words = [f"{f} {_named(getattr(one, f))}" for f in _ASIDE if getattr(one, f) != getattr(other, f)]
    return f"{_text(one)}, {', '.join(words)}"


def _named(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        given = {k: v for k, v in msgspec.structs.asdict(value).items() if v is not None}
        return " ".join(f"{k} {v}" for k, v in given.items())
    return str(value) if value else "none"
