"""Which of two firmware versions is the newer one, as far as that can be told. Pure.

A version is read as ``FAMILY RELEASE``; dates around it say nothing and go. RELEASE is a row of numbers and letters
(``1.45b`` is 1, 45, b). The order:

* numbers by value, so 2.10 is above 2.9; `0x0B` is a number; missing ones are zero, so 1.8 equals 1.8.0;
* one letter each by the alphabet (Supermicro: 1.0 < 1.0a < 1.0b), whole words only when they are equal
  (``2022.1-rc3`` < ``2022.1-rc4``); a word that one has and the other lacks is no order: ``rc`` is older, ``sp`` newer;
* rows of three or more pairs of hex digits that hold a letter are hex (NVIDIA's VBIOS 96.00.6C.00.03, CPLDs F5.11.CB);
* HPE `U46 v2.34 (03/11/2025)`: U46 is the family, 2.34 the release; Dell `6.00.30.00`: four numbers;
* Lenovo build ids: `TGBT42S 2.83`, `42S-2.83` and `U8E122J` have platform (4 characters), build (3) and perhaps a
  release, which decides if both have one, else the build does; when the two disagree there is no order.

Two families, a number against a letter, or different words have no order: None, never a guess.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_PARENTHESES = re.compile(r"\s*\([^()]*\)")
_DATES = re.compile(
    r"\b(?:BIOS Date:\s*)?(?:\d{1,2}/\d{1,2}/\d{2,4}|\d{4}-\d{2}-\d{2}"
    r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* +\d{1,2},? +\d{4})\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?:^|(?<=\s))(?:v|ver\.?|version|build)\s*(?=\d)", re.IGNORECASE)
_TOKEN = re.compile(r"0x[0-9a-f]+|[0-9]+|[a-z]+", re.IGNORECASE)
_HEX = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){2,}")
_LENOVO = re.compile(
    r"(?P<platform>(?=[0-9A-Z]{0,3}[A-Z])[0-9A-Z]{4})?(?P<build>[0-9A-Z]{2}[A-Z])(?:[- ](?P<release>[0-9]+\.[0-9]+))?"
)
_LONGEST = 100  # characters that are looked at: the text comes from a BMC

Token = int | str


class Version(NamedTuple):
    family: str
    build: str
    release: tuple[Token, ...]
    pairs: tuple[int, ...]  # the release as pairs of hex digits; empty when it is not made of those
    hexadecimal: bool  # it must be read so: it holds a letter
    text: str  # the release as written


def order(one: str, other: str) -> int | None:
    """-1, 0 or 1 as `one` is older than, equal to or newer than `other`; None: nobody can tell."""
    a, b = parse(one), parse(other)
    if a.text == b.text and (a.family, a.build) == (b.family, b.build):
        return 0
    if a.family and b.family and a.family != b.family:
        return None
    builds = (a.build > b.build) - (a.build < b.build) if a.build and b.build else None
    if not (a.release and b.release):
        return builds
    releases = _releases(a, b)
    disagree = releases is not None and builds is not None and releases * builds < 0
    return None if disagree else releases


def same(one: str, other: str) -> bool:
    """What `exact` means: the same release in the same spelling; dates, and a family that only one of them has, say nothing."""
    if one == other:
        return True
    a, b = parse(one), parse(other)
    family = a.family == b.family or not (a.family and b.family)
    build = a.build == b.build or not (a.build and b.build)
    return family and build and bool(a.text) and a.text == b.text


def _releases(a: Version, b: Version) -> int | None:
    if a.hexadecimal or b.hexadecimal:
        if not (a.pairs and b.pairs and len(a.pairs) == len(b.pairs)):
            return None
        return (a.pairs > b.pairs) - (a.pairs < b.pairs)
    for x, y in zip(a.release, b.release, strict=False):
        if x == y:
            continue
        if isinstance(x, int) and isinstance(y, int):
            return 1 if x > y else -1
        if isinstance(x, str) and isinstance(y, str) and len(x) == len(y) == 1:
            return 1 if x > y else -1
        return None
    shorter = min(len(a.release), len(b.release))
    longer = a.release[shorter:] or b.release[shorter:]
    if any(isinstance(t, str) and len(t) > 1 for t in longer):
        return None
    if not any(longer):
        return 0
    return 1 if len(a.release) > len(b.release) else -1


@lru_cache(maxsize=10_000)
def parse(text: str) -> Version:
    """Never raises. Without a digit there is no release, and no order."""
    plain = _DATES.sub(" ", _PARENTHESES.sub(" ", text[:_LONGEST])).strip()
    lenovo = _LENOVO.fullmatch(plain)
    if lenovo and (lenovo["platform"] or lenovo["release"]):
        return _version(lenovo["platform"] or "", lenovo["build"], lenovo["release"] or "")
    words = plain.split()
    if len(words) > 1 and not all(w.lower().startswith("0x") for w in words):
        build = _LENOVO.fullmatch(words[0])
        if build and build["platform"] and len(words) == 2:
            return _version(build["platform"], build["build"], words[1])
        family, release = _split(plain)
        return _version(family, "", release)
    return _version("", "", _WORD.sub("", plain))


def _split(plain: str) -> tuple[str, str]:
    """The release begins at the first `v1`, `Ver 1` or dotted number; what stands before it is the family."""
    marked = _WORD.search(plain)
    start = marked.start() if marked else -1
    dotted = re.search(r"(?:^|(?<=\s))[0-9]+\.", plain)
    if dotted and (start < 0 or dotted.start() < start):
        start = dotted.start()
    if start < 0:
        family, _, release = plain.rpartition(" ")
        return family.strip(), release
    return plain[:start].strip(), _WORD.sub("", plain[start:])


def _version(family: str, build: str, text: str) -> Version:
    tokens = tuple(_token(t) for t in _TOKEN.findall(text))
    pairs = tuple(int(p, 16) for p in text.split(".")) if _HEX.fullmatch(text) else ()
    holds_letter = bool(pairs) and any(c in "ABCDEF" for c in text)
    if not any(isinstance(t, int) for t in tokens):
        tokens = ()
    return Version(family.casefold(), build, tokens, pairs, holds_letter, " ".join(text.split()))


def _token(text: str) -> Token:
    if text[:2].lower() == "0x":
        return int(text, 16)
    return int(text) if text.isdigit() else text.lower()
