"""The least rights for each make, as data (roles.yaml, where the fields are explained)."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import msgspec

from metalimmu import structs


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    make: str
    scan: str
    probe: str
    reimage: str
    unseen: tuple[str, ...]
    how: str
    sources: tuple[str, ...]


@lru_cache(maxsize=1)
def roles() -> tuple[Role, ...]:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("roles.yaml").read_text(encoding="utf-8")
    return tuple(structs.convert(yaml.safe_load(text), list[Role]))
