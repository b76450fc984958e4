"""Names without what differs from one machine to its twin: addresses, serial numbers, device paths."""

from __future__ import annotations

import re

_MAC = re.compile(
    r"(?:MAC:)?(?<![0-9A-Fa-f])(?:(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{12})(?![0-9A-Fa-f])"
)
_SERIAL = re.compile(r"(?<![\w-])(?=(?:[A-Z]*\d){7})[A-Z0-9]{12,}(?![\w-])")
_EMPTY = re.compile(r"\(\s*\)|\[\s*\]")
_SPACES = re.compile(r"\s{2,}")
_ENDS = " -:,"
_ANY = re.compile(r"[\W_]+")


def name(text: str) -> str:
    """Without MAC addresses, and without words that look like serial numbers: twelve capitals and digits or more, seven of
    them digits (``S834RD5C117645``; a model such as MZ1L21T9HCLS-00A07 stays).
    """
    if not any(c.isdigit() for c in text):
        return text.strip(_ENDS)
    found = _SERIAL.sub("", _MAC.sub("", text))
    if found == text:
        return text.strip(_ENDS)
    found = _SPACES.sub(" ", _EMPTY.sub("", found))
    return re.sub(r"(?: -)+(?= \(| -|$)", "", found).strip(_ENDS)


def squeezed(text: str) -> str:
    """Letters and digits alone, for comparison."""
    return _ANY.sub("", text).casefold()
