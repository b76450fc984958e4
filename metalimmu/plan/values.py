"""What is wanted of one value, against the value: the ops of an Expectation. Pure.

Equal means the same type and the same value, letter case included: a number is not the text of it, and true is not 1.
There is one exception, where the wire is loose and the type is known: if the attribute registry says Integer, the text
"4" is 4, and if it says Boolean, the text "true" is true (either side). Everything else that looks alike differs, and
the reason says in what.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from metalimmu.desired import versions
from metalimmu.desired.profile import Op, Scalar
from metalimmu.observed.snapshot import Value

ABOUT = 0.01  # of each_about


class Verdict(NamedTuple):
    """`fits` None: it cannot be told, and `reason` says why."""

    fits: bool | None
    reason: str = ""


YES = Verdict(True)
NO = Verdict(False)


def judge(op: Op, wanted: Value, value: Value, *, kind: str = "", now: float = 0.0, version: bool = False) -> Verdict:
    """`kind` is the registry's type of the attribute; `version`: both are firmware versions."""
    if version and op in _VERSIONS:
        return _VERSIONS[op](wanted, value)
    if op == "equals":
        return _one_of((wanted,), value, kind)
    if op == "one_of":
        return _one_of(_list(wanted), value, kind)
    if op == "days_left":
        return _days_left(wanted, value, now)
    return _OPS[op](wanted, value)


def equal(wanted: Value, value: Value, kind: str = "") -> bool:
    if isinstance(wanted, tuple) and isinstance(value, tuple):
        return len(wanted) == len(value) and all(_equal(w, v, kind) for w, v in zip(wanted, value, strict=True))
    if isinstance(wanted, tuple) or isinstance(value, tuple):
        return False
    return _equal(wanted, value, kind)


def _equal(wanted: Scalar, value: Scalar, kind: str) -> bool:
    if type(wanted) is type(value):
        return wanted == value
    if isinstance(wanted, bool) or isinstance(value, bool):
        if kind != "Boolean":
            return False
        return str(wanted).lower() == str(value).lower()
    if isinstance(wanted, int | float) and isinstance(value, int | float):
        return wanted == value
    return kind == "Integer" and None not in (wanted, value) and str(wanted).strip() == str(value).strip()


def alike(wanted: Value, value: Value) -> str:
    """In what two values differ that look the same to a person; empty if they do not look the same."""
    if isinstance(wanted, tuple) or isinstance(value, tuple) or wanted is None or value is None:
        return ""
    one, other = str(wanted), str(value)
    if one == other:
        return f"the profile has {_type(wanted)}, the BMC has {_type(value)}" if type(wanted) is not type(value) else ""
    if one.casefold() == other.casefold():
        if isinstance(wanted, str) and isinstance(value, str):
            return "they differ in upper and lower case only"
        return f"the profile has {_type(wanted)}, the BMC has {_type(value)}"
    if one.split() == other.split():
        return "they differ in spaces only"
    return ""


def _type(value: Scalar) -> str:
    return "true or false" if isinstance(value, bool) else "text" if isinstance(value, str) else "a number"


def text(value: Value) -> str:
    """As a finding shows it."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(text(v) for v in value) or "none"
    return "null" if value is None else str(value)


def wanted_text(op: Op, wanted: Value) -> str:
    """What an expectation asks for, in words."""
    if op in {"equals", "same_members"}:
        return text(wanted)
    shown = text(wanted)
    if isinstance(wanted, tuple):
        if op == "one_of":
            return " or ".join(text(w) for w in wanted)
        if op == "range" and len(wanted) == 2:
            return f"{text(wanted[0])} up to, but not including, {text(wanted[1])}"
    return _WORDS[op].format(shown) if op in _WORDS else shown


_WORDS: dict[str, str] = {
    "at_least": "at least {}",
    "pattern": "text that fits {}",
    "glob": "{}",
    "contains": "{} among them",
    "lacks": "no {}",
    "days_left": "at least {} days left",
    "each_equals": "{} each",
    "each_about": "about {} each",
    "each_glob": "{} each",
    "starts_with": "first {}",
}


def _list(value: Value) -> tuple[Scalar, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _verdict(fits: bool) -> Verdict:
    return YES if fits else NO


def _one_of(options: tuple[Value, ...], value: Value, kind: str) -> Verdict:
    if any(equal(w, value, kind) for w in options):
        return YES
    return Verdict(False, next((why for w in options if (why := alike(w, value))), ""))


def _same_members(wanted: Value, value: Value) -> Verdict:
    """As a set: which of several servers is first says nothing; that it differs is said."""
    there = [v for v in _list(value) if v not in (None, "", "0.0.0.0", "::")]  # noqa: S104  # unset slots of BMCs
    asked = list(_list(wanted))
    if {str(v).casefold() for v in there} != {str(w).casefold() for w in asked}:
        return NO
    return YES if [str(v) for v in there] == [str(w) for w in asked] else Verdict(True, "in another order")


def _starts_with(wanted: Value, value: Value) -> Verdict:
    first, there = _list(wanted), _list(value)
    if len(there) < len(first):
        return Verdict(False, f"it has only {len(there)}")
    return _verdict(all(_glob_fits(w, v) for w, v in zip(first, there, strict=False)))


def _glob_fits(wanted: Scalar, value: Scalar) -> bool:
    if value is None:
        return False
    text_, glob = str(value).casefold(), str(wanted).casefold()
    return text_ == glob or fnmatchcase(text_, glob)  # a name may hold brackets of its own


def _glob(wanted: Value, value: Value) -> Verdict:
    return _verdict(not isinstance(wanted, tuple) and not isinstance(value, tuple) and _glob_fits(wanted, value))


def _pattern(wanted: Value, value: Value) -> Verdict:
    try:
        return _verdict(re.fullmatch(str(wanted), text(value) if value != "" else "") is not None)
    except re.error as exc:
        return Verdict(None, f"the pattern {wanted} is no regular expression: {exc}")


def _at_least(wanted: Value, value: Value) -> Verdict:
    if _number(wanted) and _number(value):
        return _verdict(value >= wanted)  # type: ignore[operator]
    return Verdict(None, f"{text(value)} and {text(wanted)} are not both numbers")


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _contains(wanted: Value, value: Value) -> Verdict:
    there = _list(value)
    return _verdict(all(w in there for w in _list(wanted)))


def _lacks(wanted: Value, value: Value) -> Verdict:
    there = _list(value)
    return _verdict(not any(w in there for w in _list(wanted)))


def _each(fits: Callable[[Value, Scalar], bool]) -> Callable[[Value, Value], Verdict]:
    def check(wanted: Value, value: Value) -> Verdict:
        there = _list(value)
        if not there:
            return Verdict(False, "there is none")
        wrong = [v for v in there if not fits(wanted, v)]
        return YES if not wrong else Verdict(False, f"{len(wrong)} of {len(there)} do not fit: {_few(wrong)}")

    return check


def _few(values: list[Scalar]) -> str:
    shown = sorted({text(v) for v in values})
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _about(wanted: Value, value: Scalar) -> bool:
    return _number(wanted) and _number(value) and abs(value - wanted) <= ABOUT * abs(wanted)  # type: ignore[operator, arg-type]


def _glob_each(wanted: Value, value: Scalar) -> bool:
    return not isinstance(wanted, tuple) and _glob_fits(wanted, value)


def _range(wanted: Value, value: Value) -> Verdict:
    bounds = _list(wanted)
    if len(bounds) == 2 and all(_number(b) for b in bounds) and _number(value):
        return _verdict(bounds[0] <= value < bounds[1])  # type: ignore[operator]
    return Verdict(None, f"{text(value)} and {text(wanted)} are not all numbers")


_OPS: dict[Op, Callable[[Value, Value], Verdict]] = {
    "same_members": _same_members,
    "starts_with": _starts_with,
    "at_least": _at_least,
    "range": _range,
    "pattern": _pattern,
    "glob": _glob,
    "contains": _contains,
    "lacks": _lacks,
    "each_equals": _each(equal),
    "each_about": _each(_about),
    "each_glob": _each(_glob_each),
}


def _version_equals(wanted: Value, value: Value) -> Verdict:
    return _verdict(versions.same(str(wanted), str(value)))


def _version_at_least(wanted: Value, value: Value) -> Verdict:
    found = versions.order(str(value), str(wanted))
    return _no_order(value, wanted) if found is None else _verdict(found >= 0)


def _version_range(wanted: Value, value: Value) -> Verdict:
    bounds = _list(wanted)
    if len(bounds) != 2:
        return Verdict(None, f"{text(wanted)} is no range")
    low, high = bounds
    above, below = versions.order(str(value), str(low)), versions.order(str(value), str(high))
    if above is None or below is None:
        return _no_order(value, low if above is None else high)
    return _verdict(above >= 0 and below < 0)


def _no_order(value: Value, wanted: Value) -> Verdict:
    return Verdict(None, f"which of {text(value)} and {text(wanted)} is newer cannot be told: use exact or pattern")


_VERSIONS: dict[Op, Callable[[Value, Value], Verdict]] = {
    "equals": _version_equals,
    "at_least": _version_at_least,
    "range": _version_range,
}


def _days_left(wanted: Value, value: Value, now: float) -> Verdict:
    try:
        end = datetime.fromisoformat(str(value))
    except ValueError:
        return Verdict(None, f"{text(value)} is no date")
    if not _number(wanted):
        return Verdict(None, f"{text(wanted)} is no number of days")
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    left = (end.timestamp() - now) / 86400
    fits = left >= wanted  # type: ignore[operator]
    return Verdict(fits, "" if fits else f"{left:.0f} days left" if left >= 0 else f"it ended {-left:.0f} days ago")
