"""Which quirks a BMC has: data from quirks.yaml, matched by what the BMC says of itself."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import msgspec

from metalimmu import structs


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The defaults are the standard's."""

    serial_from: Literal["SerialNumber", "SKU"] = "SerialNumber"
    boot_on: Literal["settings", "system"] = "settings"
    """Where the override is written when the system links a settings object that shows it too."""
    cd_targets: tuple[str, ...] = ("Cd", "UsbCd")
    """Words for the virtual drive, the best first; the first that the BMC allows is used."""
    no_override_is: str = ""
    """Where an override cannot be disabled: the target with which the machine boots as without one. Set to clear the
    override, and read back as cleared."""
    eject_path: str = ""
    """Appended to a slot's URI where it lists no EjectMedia action."""


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vendor: str = "*"
    model: str = "*"
    firmware: str = "*"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    match: Match
    what: dict[str, Any]
    because: str
    seen_on: str
    since: str


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    import yaml

    text = resources.files("metalimmu.bmc").joinpath("quirks.yaml").read_text(encoding="utf-8")
    return tuple(structs.convert(yaml.safe_load(text), list[Entry]))


def needs_firmware(vendor: str, model: str) -> bool:
    """Is there an entry for this make that asks for the manager's firmware? Reading that costs two requests."""
    return any(e.match.firmware != "*" and _fits(e.match, vendor, model, None) for e in entries())


def find(vendor: str, model: str, firmware: str = "") -> Quirks:
    what: dict[str, Any] = {}
    for entry in entries():
        if _fits(entry.match, vendor, model, firmware):
            what |= entry.what
    return structs.convert(what, Quirks)


def _fits(match: Match, vendor: str, model: str, firmware: str | None) -> bool:
    pairs = [(vendor, match.vendor), (model, match.model)]
    if firmware is not None:
        pairs.append((firmware, match.firmware))
    return all(fnmatchcase(value.lower(), glob.lower()) for value, glob in pairs)
