"""Which make a machine is of: the one place that knows how vendors spell themselves. Reads its data file once."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path

import msgspec
import yaml

from metalimmu import structs


class Make(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of makes.yaml, where the fields are explained."""

    vendors: list[str]
    moving: str = ""
    early: bool = False
    needs_job: bool = False
    needs_etag: bool = False


NOBODY = Make(vendors=[])


@cache
def makes() -> dict[str, Make]:
    data = yaml.safe_load(Path(__file__).with_name("makes.yaml").read_bytes())
    return structs.convert(data, dict[str, Make])


@lru_cache(maxsize=1000)
def make_of(*said: str) -> str:
    """The make by the first text that names one: `Dell Inc.` is dell. Empty: none that we know."""
    for text in said:
        plain = text.strip().casefold()
        for name, make in makes().items():
            if plain == name or any(fnmatchcase(plain, glob) for glob in make.vendors):
                return name
    return ""


def facts(make: str) -> Make:
    return makes().get(make, NOBODY)


@cache
def moving(make: str) -> re.Pattern[str] | None:
    """What ends attribute names of this make and is another one after a BIOS update."""
    found = facts(make).moving
    return re.compile(found) if found else None
