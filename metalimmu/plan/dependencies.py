"""What a registry's dependencies say while attributes have certain values. Pure; what is not known stays not known.

Truth has three values: True, False, and None for "depends on a value that nobody told".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from metalimmu.observed.registry import Attribute, Condition, Dependency, Registry
from metalimmu.observed.snapshot import Scalar
from metalimmu.plan.attribute import same, shown

CURRENT = "CurrentValue"
_FLAGS = {"ReadOnly": "read_only", "Hidden": "hidden", "GrayOut": "grayed_out", "Immutable": "immutable"}

Values = Mapping[str, Scalar]


class Rules:
    """A registry's dependencies by the attribute that they are about."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @cached_property
    def by_target(self) -> dict[str, list[Dependency]]:
        found: dict[str, list[Dependency]] = {}
        for dependency in self.registry.dependencies:
            found.setdefault(dependency.attribute, []).append(dependency)
        return found

    def about(self, attribute: str, prop: str) -> list[Dependency]:
        return [d for d in self.by_target.get(attribute, ()) if d.property == prop]

    def holds(self, dependency: Dependency, values: Values) -> bool | None:
        """Conditions are in postfix order, see observed.registry.Condition. Nonsense is not known to hold."""
        stack: list[bool | None] = []
        for condition in dependency.conditions:
            stack.append(self._true(condition, values))
            for term in condition.terms:
                if len(stack) < 2:
                    return None
                right, left = stack.pop(), stack.pop()
                stack.append(_both(left, right) if term == "AND" else _either(left, right))
        return _all(stack)

    def flag(self, attribute: str, prop: str, values: Values) -> tuple[bool | None, Dependency | None]:
        """Is `prop` (ReadOnly, Hidden, GrayOut) set under `values`, and by which dependency? None as the dependency: by itself."""
        unsure = False
        cleared: Dependency | None = None
        for dependency in self.about(attribute, prop):
            truth = self.holds(dependency, values)
            if truth is None:
                unsure = True
            elif truth and dependency.value is True:
                return True, dependency
            elif truth and dependency.value is False:
                cleared = dependency
        if cleared is not None:
            return False, cleared
        return None if unsure else self._static(attribute, prop), None

    def forced(self, attribute: str, values: Values) -> Dependency | None:
        """The dependency that gives `attribute` its value now. The last that holds: firmware applies them in order."""
        held = [d for d in self.about(attribute, CURRENT) if self.holds(d, values)]
        return held[-1] if held else None

    def _static(self, attribute: str, prop: str) -> bool:
        found = self.registry.attributes.get(attribute)
        return bool(found is not None and getattr(found, _FLAGS.get(prop, ""), False))

    def _true(self, condition: Condition, values: Values) -> bool | None:
        attribute = self.registry.attributes.get(condition.attribute)
        if condition.property != CURRENT:
            if attribute is None or condition.property not in _FLAGS:
                return None
            return _compare(None, self._static(attribute.name, condition.property), condition)
        if condition.attribute not in values:
            return None
        return _compare(attribute, values[condition.attribute], condition)


def _compare(attribute: Attribute | None, value: Scalar, condition: Condition) -> bool | None:
    wanted = condition.value
    if condition.compare in ("EQU", "NEQ"):
        return same(attribute, value, wanted) == (condition.compare == "EQU")
    if isinstance(value, str) or isinstance(wanted, str) or value is None or wanted is None:
        return None  # text has no order
    return {
        "GTR": value > wanted,
        "GEQ": value >= wanted,
        "LSS": value < wanted,
        "LEQ": value <= wanted,
    }.get(condition.compare)


def _both(one: bool | None, other: bool | None) -> bool | None:
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _either(one: bool | None, other: bool | None) -> bool | None:
    if one or other:
        return True
    return None if one is None or other is None else False


def _all(truths: Iterable[bool | None]) -> bool | None:
    found: bool | None = True
    for truth in truths:
        found = _both(found, truth)
    return found


def because(dependency: Dependency, values: Values) -> str:
    """The conditions in words, those first that have a value: ``SysProfile is "PerfOptimized"``."""
    words = [
        f"{c.attribute} is {shown(values[c.attribute])}"
        for c in dependency.conditions
        if c.attribute in values and c.property == CURRENT
    ]
    return " and ".join(dict.fromkeys(words)) or "of other attributes"
