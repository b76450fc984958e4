"""One finding in words that hold for every make: `hyperthreading` off on a Dell, an HPE and a Lenovo is one thing. Pure.

By the data of desired/neutral.yaml, whether the profile says `bios.hyperthreading` or names the make's own attribute.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from metalimmu.desired.expectations import NEUTRAL
from metalimmu.desired.makes import moving
from metalimmu.desired.neutral import neutral
from metalimmu.plan.values import text, wanted_text


class Alike(NamedTuple):
    """`setting` is `neutral.KEY` where there is one for it; then values that the key has words for are these words."""

    setting: str
    expected: str
    actual: str
    before: str | None = None


def alike(make: str, setting: str, expected: str, actual: str, before: str | None = None) -> Alike:
    """`make` as in makes.yaml; the rest as findings and drift show it."""
    found = _places().get((make, _stem(make, setting))) or _places().get(("", setting))
    if found is None:
        return Alike(setting, expected, actual, before)
    key, words = found
    said = words.get(actual, actual)
    return Alike(
        NEUTRAL + key, words.get(expected, expected), said, None if before is None else words.get(before, before)
    )


def _stem(make: str, setting: str) -> str:
    """Without the question id that ends it (Supermicro)."""
    ending = moving(make)
    return ending.sub("", setting) if ending else setting


@lru_cache(maxsize=1)
def _places() -> dict[tuple[str, str], tuple[str, dict[str, str]]]:
    """(make, setting): the key, and its word for each value as it is shown. Of two keys the first in the file."""
    found: dict[tuple[str, str], tuple[str, dict[str, str]]] = {}
    for key in neutral().keys.values():
        for make, places in {**key.places, "": key.anywhere}.items():
            for place in places:
                words = {wanted_text("one_of", wires): word for word, wires in place.values.items()}
                words |= {text(wire): word for word, wires in place.values.items() for wire in wires}
                found.setdefault((make, place.setting), (key.name, words))
    return found
