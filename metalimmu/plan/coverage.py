"""How much of a machine a profile decides. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from metalimmu.observed.snapshot import Value

ACCOUNT = "bmc.account."


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """`settings` are those that somebody could decide: without identity, what changes by itself, and what is read-only."""

    host: str
    profile: str = ""
    settings: int = 0
    covered: int = 0
    not_covered: tuple[str, ...] = ()
    sections: dict[str, tuple[int, int]] = {}  # section -> covered, settings

    @property
    def percent(self) -> float:
        return 100.0 * self.covered / self.settings if self.settings else 0.0


def decided(found: Iterable[str]) -> set[str]:
    """The settings that these findings are about, by the names that machines have for them."""
    return {"bmc.accounts" if f.startswith(ACCOUNT) and not f.endswith(".role") else f for f in found}


def coverage(
    host: str,
    settings: Mapping[str, Value],
    found: Collection[str],
    *,
    noise: Callable[[str], bool],
    fixed: Collection[str] = (),
    profile: str = "",
) -> Coverage:
    """`found` are the settings of the findings that compare gave for this host, `fixed` those that nobody can set."""
    named = decided(found)
    counts: dict[str, tuple[int, int]] = {}
    without = []
    for name in settings:
        if name in fixed or noise(name):
            continue
        section = name.partition(".")[0]
        covered, total = counts.get(section, (0, 0))
        counts[section] = covered + (name in named), total + 1
        if name not in named:
            without.append(name)
    return Coverage(
        host=host,
        profile=profile,
        settings=sum(total for _, total in counts.values()),
        covered=sum(covered for covered, _ in counts.values()),
        not_covered=tuple(without),
        sections=counts,
    )
