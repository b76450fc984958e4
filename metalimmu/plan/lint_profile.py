"""A whole profile against the registry of one machine: neutral keys under the machine's own names, then `lint`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from metalimmu import structs
from metalimmu.desired.expectations import NEUTRAL
from metalimmu.desired.makes import make_of, moving
from metalimmu.desired.neutral import Neutral, Place
from metalimmu.desired.problems import listed, visible
from metalimmu.desired.profile import Expectation, ResolvedProfile
from metalimmu.observed.registry import Attribute, Registry
from metalimmu.observed.snapshot import Scalar
from metalimmu.plan.attribute import wrong
from metalimmu.plan.lint import Remark, Report, Wanted, lint
from metalimmu.plan.names import followed

BIOS = "bios."


class Written(NamedTuple):
    """Where an expectation stands: file of its profile, and its field as people write it."""

    file: str
    field: str
    line: int


def lint_profile(
    profile: ResolvedProfile,
    registry: Registry,
    *,
    neutral: Neutral,
    noise: Callable[[str, str], bool],
    current: Mapping[str, Scalar] | None = None,
    make: str = "",
    files: Mapping[str, str] | None = None,
) -> Report:
    """`noise(setting, vendor)` as desired.volatile; `files` names the file of each profile in the chain; `make` as the
    machine says it, the registry's owner by default.
    """
    whose = make_of(make, registry.owner)
    names = frozenset(registry.attributes) | frozenset(current or ())
    wanted: list[Wanted] = []
    remarks: list[Remark] = []
    for one in profile.expectations:
        place = written(one, files or {})
        if one.setting.startswith(BIOS):
            wanted.append(_wanted(one.setting[len(BIOS) :], values(one), place))
        elif one.setting.startswith(NEUTRAL):
            found = _neutral(one, neutral, whose, registry, names, place)
            if isinstance(found, Remark):
                remarks.append(found)
            elif found is not None:
                wanted.append(found)
    report = lint(wanted, registry, current=current, noise=lambda name: noise(BIOS + name, whose))
    every = sorted((*remarks, *report.remarks), key=lambda r: (r.file, r.line))
    return msgspec.structs.replace(report, remarks=tuple(every), checked=len(wanted) + len(remarks))


def written(one: Expectation, files: Mapping[str, str]) -> Written:
    return Written(files.get(one.profile, ""), field(one.setting), one.line)


def field(setting: str) -> str:
    """As it stands in a profile: `bios.sriov` for neutral.sriov, `bios_raw.X` for bios.X."""
    if setting.startswith(NEUTRAL):
        return f"bios.{setting[len(NEUTRAL) :]}"
    return f"bios_raw.{setting[len(BIOS) :]}" if setting.startswith(BIOS) else setting


def values(one: Expectation) -> tuple[Scalar, ...]:
    return one.value if isinstance(one.value, tuple) else (one.value,)


def _neutral(
    one: Expectation, neutral: Neutral, make: str, registry: Registry, names: frozenset[str], where: Written
) -> Wanted | Remark | None:
    """None: it is no BIOS attribute of this make (secure boot is a resource of its own)."""
    key = one.setting[len(NEUTRAL) :]
    places = neutral.places(key, make)
    if not places:
        return _remark(
            "warning",
            where,
            "a key that is mapped for this make",
            f"{visible(key)}, which is not mapped for {make or 'this make'}",
            "name the machine's own attribute under bios_raw, or leave it out",
        )
    for place in places:
        if not place.setting.startswith(BIOS):
            return None
        attribute = _there(place, make, names)
        if attribute is not None:
            return _worded(one, place, registry.attributes.get(attribute), attribute, where)
    expected = f"{listed([p.setting[len(BIOS) :] for p in places])} in the registry"
    return _remark("warning", where, expected, "none of them", "leave it out: this machine has no such setting")


def _there(place: Place, make: str, names: frozenset[str]) -> str | None:
    name = place.setting[len(BIOS) :]
    pattern = moving(make)
    if not place.stem or pattern is None:
        return name if name in names else None
    found = followed(name, sorted(names), pattern)
    return found[0] if found else None


def _worded(one: Expectation, place: Place, known: Attribute | None, attribute: str, where: Written) -> Wanted | Remark:
    """Of several values for a word a model has some: those of its registry, or all, which `lint` then refuses."""
    words = [str(v) for v in values(one)]
    wires = tuple(wire for word in words for wire in place.values.get(word, ()))
    if wires:
        fit = tuple(w for w in wires if known is None or wrong(known, w, displays=True) is None)
        return _wanted(attribute, fit or wires, where)
    return _remark(
        "error",
        where,
        f"a word that {attribute} has a value for: {listed(list(place.values))}",
        " or ".join(visible(w) for w in words),
        f"write one of them, or {attribute} with its own value under bios_raw",
    )


def _wanted(attribute: str, allowed: Iterable[Scalar], where: Written) -> Wanted:
    return Wanted(attribute=attribute, values=tuple(allowed), field=where.field, file=where.file, line=where.line)


def _remark(severity: str, where: Written, expected: str, got: str, write: str) -> Remark:
    return structs.convert(
        {"severity": severity, "expected": expected, "got": got, "write": write} | where._asdict(), Remark
    )
