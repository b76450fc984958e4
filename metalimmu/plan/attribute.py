"""One value against what a registry says of its attribute. Pure; used on profiles, and on a machine's own values."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from metalimmu.desired.problems import listed, nearest, quoted, visible
from metalimmu.observed.registry import Attribute, Choice
from metalimmu.observed.snapshot import Scalar
from metalimmu.plan import expression


class Wrong(msgspec.Struct, frozen=True):
    """`write`: what to write instead, as a sentence."""

    expected: str
    got: str
    write: str


def wrong(attribute: Attribute, value: Scalar, *, displays: bool = False) -> Wrong | None:
    """None: it fits. `displays`: the names that people see are as good as the values' own (see Registry.trusted).

    Empty text fits every string: it is how BMCs say "not set", also where MinLength is 12 (Dell's CHAP secrets) or the
    pattern wants 16 digits (HPE's SgxLePublicKeyHash0).
    """
    if attribute.type == "Enumeration":
        return _choice(attribute, value, displays)
    if attribute.type == "Boolean":
        if isinstance(value, bool):
            return None
        return Wrong("true or false", shown(value), _unquoted(value))
    if attribute.type == "Integer":
        return _integer(attribute, value)
    if attribute.type == "Password":
        return Wrong("no password in a profile", "one", "leave it out: a BMC never shows it, so it cannot be compared")
    return _string(attribute, value)


def same(attribute: Attribute | None, one: Scalar, other: Scalar) -> bool:
    """Equal, or a value's name and what people see of it."""
    if one == other and isinstance(one, bool) == isinstance(other, bool):
        return True
    if attribute is None:
        return False
    return any({one, other} == {c.name, c.display} for c in attribute.choices)


def shown(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else "nothing" if value is None else visible(str(value))


def _choice(attribute: Attribute, value: Scalar, displays: bool) -> Wrong | None:
    if not attribute.choices:
        return None  # nothing is listed, so nothing can be said
    names = [c.name for c in attribute.choices]
    allowed = [c.display or c.name for c in attribute.choices] if displays else names
    if value in names or (displays and value in allowed):
        return None
    words = [visible(a, 60) for a in allowed]
    return Wrong(f"one of {listed(words)}", shown(value), _instead(value, attribute, words))


def _instead(value: Scalar, attribute: Attribute, allowed: list[str]) -> str:
    if isinstance(value, bool):  # unquoted On, Off, Yes and No are true and false in YAML
        words = ("on", "yes", "enabled", "enable", "true") if value else ("off", "no", "disabled", "disable", "false")
        word = next((a for a in allowed if a.casefold() in words), None)
        return f"write {quoted(word)} in quotes" if word else f"write one of {listed(allowed)}"
    text = str(value)
    by_display = _by_display(attribute.choices, text)
    if by_display and by_display in allowed:
        return f"write {visible(by_display)}"
    alike = next((a for a in allowed if a.casefold() == text.casefold()), None)
    return f"write {visible(alike)}" if alike else nearest(text, allowed)


def _by_display(choices: Iterable[Choice], text: str) -> str | None:
    return next((c.name for c in choices if c.display.casefold() == text.casefold()), None)


def _integer(attribute: Attribute, value: Scalar) -> Wrong | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return Wrong("a whole number", shown(value), _unquoted(value))
    lower, upper, step = attribute.lower, attribute.upper, attribute.step
    if lower is not None and value < lower:
        return Wrong(_range(lower, upper), str(value), f"write {lower} or more")
    if upper is not None and value > upper:
        return Wrong(_range(lower, upper), str(value), f"write {upper} or less")
    if step and step > 1 and (value - (lower or 0)) % step:
        down = value - (value - (lower or 0)) % step
        near = [str(n) for n in (down, down + step) if upper is None or n <= upper]
        return Wrong(f"{lower or 0} and steps of {step}", str(value), f"write {' or '.join(near)}")
    return None


def _range(lower: int | None, upper: int | None) -> str:
    if lower is None:
        return f"at most {upper}"
    return f"at least {lower}" if upper is None else f"{lower} to {upper}"


def _string(attribute: Attribute, value: Scalar) -> Wrong | None:
    if not isinstance(value, str):
        return Wrong("text", shown(value), f"write {quoted(shown(value))} in quotes")
    if not value:
        return None
    length, least, most = len(value), attribute.min_length, attribute.max_length
    if most is not None and length > most:
        return Wrong(f"at most {most} characters", f"{length}", "shorten it")
    if least is not None and length < least:
        return Wrong(f"at least {least} characters", f"{length}", "lengthen it")
    if expression.search(attribute.pattern, value) is False:
        return Wrong(f"text that fits {visible(attribute.pattern)}", quoted(value), "write it in that form")
    return None


def _unquoted(value: Scalar) -> str:
    text = str(value).strip()
    if text.casefold() in ("true", "false") or text.lstrip("-").isdecimal():
        return f"write {text.casefold()} without quotes"
    return "write such a value"
