"""Steps in words, of servers and of switches."""

from __future__ import annotations

from metalimmu.plan import kinds, method, reimage, switch

_ALL = {**switch.TITLES, **kinds.TITLES, **method.TITLES, **reimage.TITLES}


def title(step: str) -> str:
    """Itself where it is of another version of metalimmu."""
    return _ALL.get(step, step)
