"""Regular expressions that a BMC gives us: used only where matching them surely ends soon.

Python's matcher tries all ways; Dell's registry has words that repeat inside of a group that repeats, for which a value of
40 letters that does not fit takes years. So the ways are counted first, as a power of two, and an expression with too many
is not used.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

LONGEST_MATCHED = 256  # characters of a value
MOST_BITS = 24.0  # two to this power ways take about a second
DEEPEST = 20

_QUANTIFIER = re.compile(r"([*+?])|\{([0-9]{0,6})(,?)([0-9]{0,6})\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\\\]])*\]")


class _Odd(Exception):
    """Something that is not understood here: a look-around, a back reference, a bracket that does not end."""


def search(pattern: str, value: str) -> bool | None:
    """Does `pattern` fit somewhere in `value`? None: it is not checked."""
    compiled = _compiled(pattern)
    if compiled is None or len(value) > LONGEST_MATCHED:
        return None
    return compiled.search(value) is not None


@lru_cache(maxsize=2000)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    if not pattern or not tame(pattern):
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError, ValueError, FutureWarning):  # a nested set is a FutureWarning
        return None


def tame(pattern: str) -> bool:
    try:
        bits, end = _branches(pattern, 0, 0)
    except _Odd:
        return False
    if not pattern.startswith("^"):
        bits += math.log2(LONGEST_MATCHED)  # it may begin anywhere
    return end == len(pattern) and bits <= MOST_BITS


def _branches(text: str, at: int, depth: int) -> tuple[float, int]:
    """Bits of an expression up to its closing bracket, and where that is."""
    if depth > DEEPEST:
        raise _Odd
    branches = [0.0]
    while at < len(text) and text[at] != ")":
        if text[at] == "|":
            branches.append(0.0)
            at += 1
            continue
        inner, at = _item(text, at, depth)
        quantifier = _QUANTIFIER.match(text, at)
        if quantifier is not None:
            at = quantifier.end()
            at += text.startswith("?", at)  # lazy: as many ways
            inner = _repeated(inner, quantifier)
        branches[-1] += inner
    return max(branches) + math.log2(len(branches)), at


def _item(text: str, at: int, depth: int) -> tuple[float, int]:
    char = text[at]
    if char == "\\":
        if text[at + 1 : at + 2].isdigit():
            raise _Odd
        return 0.0, at + 2
    if char == "[":
        found = _CLASS.match(text, at)
        if found is None:
            raise _Odd
        return 0.0, found.end()
    if char != "(":
        return 0.0, at + 1
    if text.startswith("(?", at) and not text.startswith("(?:", at):
        raise _Odd
    bits, end = _branches(text, at + (3 if text.startswith("(?:", at) else 1), depth + 1)
    if not text.startswith(")", end):
        raise _Odd
    return bits, end + 1


def _repeated(inner: float, quantifier: re.Match[str]) -> float:
    sign, least, comma, most = quantifier.groups()
    if sign:
        low, high = 0, 1 if sign == "?" else LONGEST_MATCHED
    else:
        low = int(least or 0)
        high = low if not comma else int(most) if most else max(low, LONGEST_MATCHED)
    return high * inner + math.log2(max(high - low, 0) + 1)
