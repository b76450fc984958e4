"""An attribute registry (DSP0268 AttributeRegistry): what a BMC says of its own BIOS attributes. No I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from metalimmu.observed.snapshot import Scalar


class Choice(msgspec.Struct, frozen=True):
    """One value of an enumeration: ValueName, and what people see."""

    name: str
    display: str = ""


Kind = Literal["Enumeration", "String", "Integer", "Boolean", "Password"]


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: Kind
    display: str = ""
    help: str = ""
    menu: str = ""
    default: Scalar = None
    choices: tuple[Choice, ...] = ()
    lower: int | None = None
    upper: int | None = None
    step: int | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str = ""  # ValueExpression
    read_only: bool = False
    immutable: bool = False
    hidden: bool = False
    grayed_out: bool = False
    reset_required: bool | None = None
    unique: bool = False  # IsSystemUniqueProperty: of this one machine


Term = Literal["AND", "OR"]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """MapFrom: `attribute` `compare` `value`. Conditions are in postfix order: after this one come the operators `terms`
    (``A  B OR  C  D AND,AND`` is (A or B) and (C and D)); what is left over at the end is joined by AND.
    """

    attribute: str
    property: str = "CurrentValue"  # MapFromProperty: CurrentValue | ReadOnly | Hidden | ...
    compare: str = "EQU"  # EQU NEQ GTR GEQ LSS LEQ
    value: Scalar
    terms: tuple[Term, ...] = ()


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """While all conditions hold, `property` of `attribute` is `value`."""

    attribute: str  # MapToAttribute
    property: str  # MapToProperty: ReadOnly | Hidden | GrayOut | CurrentValue | ...
    value: Scalar
    conditions: tuple[Condition, ...]


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """`trusted` false: it does not validate the machine's own current values (332 of 379 on a Supermicro X13: the enum's
    names are ordinals while the values are display names), so a value that it does not list is no error.
    """

    id: str
    source: str  # URI
    attributes: dict[str, Attribute]
    dependencies: tuple[Dependency, ...] = ()
    trusted: bool = True
    why_not: str = ""
    supported: tuple[str, ...] = ()  # "Manufacturer Model Firmware" it says it is for
    owner: str = ""  # OwningEntity: Dell, HPE, Lenovo, Supermicro, NVIDIA
    entries: int = 0  # of the document; more than `attributes` where it has a name several times
    duplicates: tuple[str, ...] = ()  # names that it has several times: which one a value is for, nobody can tell
    doubted: dict[str, str] = {}  # attributes whose own current value it does not allow, and why
