"""BIOS settings under names that hold for every make: neutral.yaml as values. Reads its data file once; pure after that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import msgspec
import yaml

from metalimmu import structs
from metalimmu.desired.makes import makes

Wire = str | int | bool


class Place(msgspec.Struct, frozen=True):
    """Where a make keeps a key. `setting` is a name of the snapshot; with `stem` it lacks the question id that ends it."""

    setting: str  # bios.SriovGlobalEnable
    stem: bool
    values: dict[
        str, tuple[Wire, ...]
    ]  # word of the profile -> what the BMC may send for it; the first is what to write

    def word(self, value: object) -> str | None:
        """The profile's word for what a BMC sent. None: it is none of them."""
        for word, wires in self.values.items():
            if any(type(value) is type(wire) and value == wire for wire in wires):
                return word
        return None


class Key(msgspec.Struct, frozen=True):
    name: str
    help: str
    values: tuple[str, ...]
    places: dict[str, tuple[Place, ...]]  # by make; in each the ones for any make come last
    anywhere: tuple[Place, ...]


class Neutral(msgspec.Struct, frozen=True):
    keys: dict[str, Key]

    def places(self, key: str, make: str) -> tuple[Place, ...]:
        """Where to look, in this order; the first that the machine has is meant. Empty: nothing is known of this make."""
        found = self.keys.get(key)
        return () if found is None else found.places.get(make, found.anywhere)


@cache
def neutral() -> Neutral:
    """The keys that ship with metalimmu."""
    data = partial(yaml.load, Loader=yaml.CSafeLoader)(Path(__file__).with_name("neutral.yaml").read_bytes())
    return Neutral({name: _key(name, entry) for name, entry in data.items()})


def _key(name: str, entry: Mapping[str, object]) -> Key:
    anywhere = _places(entry.get("any", {}), "", moving=False)
    known = {
        make: _places(entry[make], "bios.", moving=bool(facts.moving))
        for make, facts in makes().items()
        if make in entry
    }
    return Key(
        name=name,
        help=str(entry["help"]),
        values=structs.convert(entry["values"], tuple[str, ...]),
        places={make: (*places, *anywhere) for make, places in known.items()},
        anywhere=anywhere,
    )


def _places(entry: object, prefix: str, *, moving: bool) -> tuple[Place, ...]:
    attributes = structs.convert(entry, dict[str, dict[str, Wire | list[Wire]]])
    return tuple(
        Place(prefix + name, moving, {word: tuple(v) if isinstance(v, list) else (v,) for word, v in words.items()})
        for name, words in attributes.items()
    )
