"""Names of settings that a machine does not have: renamed by a BIOS update, or the ones most like them. Pure.

Building the index of 400 names costs more than all comparisons of a host, and like machines have the same names: it is
kept by the names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

_LONGEST = 200


def followed(wanted: str, there: Iterable[str], moving: re.Pattern[str]) -> tuple[str, ...]:
    """Names that are `wanted` but for the question id at their end: one is the renamed attribute, several are a question.

    `wanted` may stand without an id. Seen on Supermicro: AES_NI_3C75 is AES_NI_1234 in another BIOS.
    """
    return _stems(tuple(there), moving).get(moving.sub("", wanted), ())


@lru_cache(maxsize=500)
def _stems(there: tuple[str, ...], moving: re.Pattern[str]) -> Mapping[str, tuple[str, ...]]:
    stems: dict[str, tuple[str, ...]] = {}
    for name in there:
        stem = moving.sub("", name)
        if stem != name:
            stems[stem] = (*stems.get(stem, ()), name)
    return stems


def nearest(wanted: str, there: tuple[str, ...]) -> str:
    """The name of `there`, all of one section, that is most like `wanted`, by difflib. Empty: none is like it."""
    return _nearest(wanted[:_LONGEST], there)


@lru_cache(maxsize=5_000)
def _nearest(wanted: str, there: tuple[str, ...]) -> str:
    folded = {name.partition(".")[2].casefold(): name for name in there}
    close = difflib.get_close_matches(wanted.partition(".")[2].casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else ""
