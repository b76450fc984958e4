"""A profile's BIOS settings against an attribute registry: what would be refused, ignored or overwritten, and in which order
they must be written. Pure; never raises, whatever registry and profile hold.

Given the machine's current values too, what a dependency hides or forbids is known; without them only what the profile's
own values decide, and the rest is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from metalimmu.desired.problems import listed, nearest, visible
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.snapshot import Scalar
from metalimmu.plan import lint_rules
from metalimmu.plan.attribute import same, shown, wrong
from metalimmu.plan.lint_state import Remark, State, Wanted, remark
from metalimmu.plan.names import followed
from metalimmu.plan.order import Order, order

__all__ = ["Remark", "Report", "Wanted", "lint"]

Noise = Callable[[str], bool]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`order` holds attributes of the profile."""

    registry: str
    checked: int
    remarks: tuple[Remark, ...] = ()
    order: Order = Order()
    why_not: str = ""  # the registry is not trusted, and why

    @property
    def errors(self) -> int:
        return sum(r.severity == "error" for r in self.remarks)


def lint(
    wanted: Sequence[Wanted],
    registry: Registry,
    *,
    current: Mapping[str, Scalar] | None = None,
    noise: Noise = lambda _name: False,
) -> Report:
    """`noise`: is this attribute an identity, or does it change by itself?"""
    state = State(wanted, registry, current)
    written = order(state.chosen, lint_rules.before(state))
    remarks = [*state.renamed, *_remarks(state, noise), *_cycles(state, written)]
    return Report(
        registry=registry.id,
        checked=len(wanted),
        remarks=tuple(sorted(dict.fromkeys(remarks), key=lambda r: (r.file, r.line))),
        order=written,
        why_not=registry.why_not,
    )


def _remarks(state: State, noise: Noise) -> Iterator[Remark]:
    first: dict[str, Wanted] = {}
    for one in state.wanted:
        yield from _contradicts(first.setdefault(one.attribute, one), one)
        attribute = state.registry.attributes.get(one.attribute)
        if attribute is None:
            yield _unknown(state, one)
            continue
        yield from _values(state, one, attribute)
        yield from _doubtful(state, one, attribute, noise)
        forbidden = lint_rules.read_only(state, one, attribute)
        if forbidden is not None:
            yield forbidden
        else:
            yield from lint_rules.forced(state, one, attribute)
        yield from lint_rules.unseen(state, one, attribute)


def _contradicts(first: Wanted, one: Wanted) -> Iterator[Remark]:
    if any(same(None, v, w) for v in first.values for w in one.values):
        return
    told = f"{first.field} at {first.file}:{first.line}" if first.file else first.field
    expected = f"one value for {one.attribute}: {told} says {' or '.join(shown(v) for v in first.values)}"
    yield remark("error", one, expected, " or ".join(shown(v) for v in one.values), "keep one of the two")


def _unknown(state: State, one: Wanted) -> Remark:
    names = state.registry.attributes
    if one.attribute in state.current:
        got = f"{visible(one.attribute)}, which the machine has though its registry does not list it"
        return remark("warning", one, "an attribute of the registry", got, "check it: its values are not known")
    several = followed(one.attribute, names, state.moving) if state.moving else ()
    write = f"write one of {listed(several)}" if several else nearest(one.attribute, names)
    if write.startswith("write one of") and not several:
        write = f"look for it in the registry, {state.registry.source}"
    return remark("error", one, "an attribute of the registry", visible(one.attribute), write)


def _values(state: State, one: Wanted, attribute: Attribute) -> Iterator[Remark]:
    trusted = state.registry.trusted
    doubt = state.registry.doubted.get(one.attribute, "") if trusted else state.registry.why_not
    has = state.current.get(one.attribute)
    for value in one.values:
        fault = wrong(attribute, value, displays=not trusted)
        if fault is None:
            spoken = next((c.display for c in attribute.choices if c.name == value and c.display != value), "")
            if spoken and not trusted and has != value:
                yield remark("warning", one, shown(spoken), shown(value), f"write {visible(spoken)}: {doubt}")
        elif attribute.type != "Password" and has is not None and value == has:
            yield remark("warning", one, fault.expected, fault.got, "nothing: the machine has this value itself")
        elif doubt or not trusted:
            yield remark("warning", one, fault.expected, fault.got, f"{fault.write}; but {doubt}")
        else:
            yield remark("error", one, fault.expected, fault.got, fault.write)


def _doubtful(state: State, one: Wanted, attribute: Attribute, noise: Noise) -> Iterator[Remark]:
    if noise(one.attribute) or attribute.unique:
        yield remark(
            "warning", one, "settings that machines have in common", "one machine's identity or state", "leave it out"
        )
    if one.attribute in state.registry.duplicates:
        got = "a name that the registry has twice, for two settings"
        yield remark("warning", one, "a name for one setting", got, "leave it out: what it sets, nobody can tell")


def _cycles(state: State, found: Order) -> Iterator[Remark]:
    for cycle in found.cycles:
        text = f"a circle: {', '.join(cycle)} each decide on another"
        write = "they are written at once; the BMC decides"
        yield remark("warning", state.chosen[cycle[0]], "an order of writing", text, write)
