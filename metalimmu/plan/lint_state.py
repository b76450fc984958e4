"""What a profile wants, what the machine has, and what it will have: the ground on which `lint` judges. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import msgspec

from metalimmu.desired.makes import make_of, moving
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.snapshot import Scalar
from metalimmu.plan.attribute import same
from metalimmu.plan.dependencies import CURRENT, Rules
from metalimmu.plan.names import followed

Gravity = Literal["error", "warning", "info"]
ROUNDS = 8  # of values that bring other values


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One BIOS attribute that a profile names, under the machine's own name; any of `values` is right."""

    attribute: str
    values: tuple[Scalar, ...]  # at least one
    field: str  # as it stands in the profile: bios.sriov, bios_raw.SriovGlobalEnable
    file: str = ""
    line: int = 0


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    severity: Gravity
    field: str
    expected: str
    got: str
    write: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return f"{place}{self.severity}: {self.field}: expected {self.expected}, got {self.got}: {self.write}"


def remark(severity: Gravity, one: Wanted, expected: str, got: str, write: str) -> Remark:
    return Remark(
        severity=severity, field=one.field, expected=expected, got=got, write=write, file=one.file, line=one.line
    )


class State:
    """`chosen` is by attribute: of several wishes for one, what they have in common, or the first. `current` None: the
    machine's values are not known.
    """

    def __init__(self, wanted: Sequence[Wanted], registry: Registry, current: Mapping[str, Scalar] | None) -> None:
        self.registry = registry
        self.rules = Rules(registry)
        self.known = current is not None
        self.current = current or {}
        self.moving = moving(make_of(registry.owner))
        self.renamed: list[Remark] = []
        self.wanted = [self._named(w) for w in wanted if w.values]
        self.chosen: dict[str, Wanted] = {}
        for one in self.wanted:
            first = self.chosen.setdefault(one.attribute, one)
            common = tuple(v for v in first.values if any(v is w or v == w for w in one.values))
            if common:
                self.chosen[one.attribute] = msgspec.structs.replace(first, values=common)

    def _named(self, one: Wanted) -> Wanted:
        """Under the name that this BIOS has for it, where only the question id at its end is another."""
        if one.attribute in self.registry.attributes or one.attribute in self.current or self.moving is None:
            return one
        names = followed(one.attribute, self.registry.attributes, self.moving)
        if len(names) != 1:
            return one
        if self.moving.search(one.attribute):  # without an id it is meant for all BIOS versions
            got = f"{one.attribute}, which is {names[0]} in this BIOS"
            write = f"{names[0]}, or {self.moving.sub('', one.attribute)} for every BIOS version"
            self.renamed.append(remark("warning", one, "a name of this BIOS", got, f"write {write}"))
        return msgspec.structs.replace(one, attribute=names[0])

    def already(self, one: Wanted) -> bool:
        """The machine has a right value now."""
        attribute = self.registry.attributes.get(one.attribute)
        has = self.current.get(one.attribute)
        return has is not None and any(same(attribute, v, has) for v in one.values)

    @cached_property
    def planned(self) -> dict[str, Scalar]:
        """What the machine will have: its values, the profile's, and those that these bring with them."""
        values = dict(self.current)
        for name, one in self.chosen.items():
            values[name] = self.current[name] if self.already(one) else one.values[0]
        for _ in range(ROUNDS):
            brought = {
                d.attribute: d.value
                for d in self.registry.dependencies
                if d.property == CURRENT
                and d.attribute not in self.chosen
                and self.rules.holds(d, values)
                and not self.rules.holds(d, self.current)
            }
            if brought.items() <= values.items():
                break
            values |= brought
        return values

    def follows(self, one: Wanted, attribute: Attribute) -> bool:
        """Other values of the plan bring the right one with them."""
        brought = self.rules.forced(one.attribute, self.planned)
        return brought is not None and any(same(attribute, v, brought.value) for v in one.values)

    def explained(self, attribute: str, prop: str) -> bool:
        """The registry's own flag tells of the moment at which it was read, and what caused it then is gone in the plan.

        Dell's says ReadOnly of 223 attributes; which ones depends on other settings.
        """
        about = [d for d in self.rules.about(attribute, prop) if d.value is True]
        caused = [d for d in about if self.rules.holds(d, self.current)]
        return bool(self.known and caused and not any(self.rules.holds(d, self.planned) for d in about))
