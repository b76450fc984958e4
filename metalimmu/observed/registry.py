"""An attribute registry (DSP0268 AttributeRegistry): what a BMC says of its own BIOS attributes. No I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from metalimmu.observed.snapshot import Scalar


class Choice(msgspec.Struct, frozen=True):
    """One value of an enumeration: ValueName, and what people see."""

    name: str
    display: str = ""


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: Literal["Enumeration", "String", "Integer", "Boolean", "Password"]
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


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """MapFrom: `attribute` `compare` `value`; `joined` is how it follows the one before it."""

    attribute: str
    property: str  # MapFromProperty: CurrentValue | ReadOnly | Hidden | ...
    compare: str  # EQU NEQ GTR GEQ LSS LEQ
    value: Scalar
    joined: Literal["AND", "OR"] = "AND"


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
