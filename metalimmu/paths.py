"""Where the data that ships with metalimmu lies: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def data(name: str) -> Path:
    """The folder `pxe` or `profiles`."""
    inside = _HERE / "data" / name
    return inside if inside.is_dir() else _HERE.parent / name


def cache() -> Path:
    """Things that can be made again: ramdisks, lab images, downloaded packages. XDG base directory specification."""
    base = (
        os.environ.get("METALIMMU_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metalimmu"
    )
    return Path(base)


def state() -> Path:
    """What must outlive a command and belongs to no site. XDG base directory specification. Raises RuntimeError: no home."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "metalimmu"
