"""Settings that tell one machine from another or change by themselves: never drift, never captured. See volatile.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import yaml

from metalimmu import structs
from metalimmu.desired.makes import make_of

Kind = Literal["identity", "volatile", ""]


class Volatile:
    """Globs on names of settings: by make (`any` for all of them), and in each by kind."""

    def __init__(self, globs: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
        everywhere = globs.get("any", {})
        self._any = _unions([everywhere])
        self._makes = {make: _unions([everywhere, own]) for make, own in globs.items()}
        self._all = _unions(globs.values())
        self.kind = lru_cache(maxsize=20_000)(self._kind)

    def is_noise(self, setting: str, vendor: str | None = "") -> bool:
        """`vendor` is what the machine says (`Dell Inc.`) or a make. None: is it noise for any make?"""
        return bool(self.kind(setting, vendor))

    def _kind(self, setting: str, vendor: str | None = "") -> Kind:
        """identity: like machines differ in it, a change is news. volatile: a change is none. Empty: neither."""
        unions = self._all if vendor is None else self._makes.get(make_of(vendor), self._any)
        return next((kind for kind, union in unions if union.match(setting)), "")


def _unions(globs: Iterable[Mapping[str, Iterable[str]]]) -> list[tuple[Kind, re.Pattern[str]]]:
    entries = list(globs)
    kinds: tuple[Kind, ...] = ("identity", "volatile")
    return [(kind, _union([g for entry in entries for g in entry.get(kind, ())])) for kind in kinds]


def _union(globs: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(translate(g) for g in globs) or r"(?!)")


@cache
def volatile() -> Volatile:
    """The globs that ship with metalimmu."""
    data = yaml.safe_load(Path(__file__).with_name("volatile.yaml").read_bytes())
    return Volatile(structs.convert(data, dict[str, dict[str, list[str]]]))
