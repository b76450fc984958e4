"""What `load` has read so far: each value beside the place it was read from, and all that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from metalimmu import structs
from metalimmu.desired.documents import Source
from metalimmu.desired.explain import explain
from metalimmu.desired.problems import Path, Problem
from metalimmu.desired.profile import Profile
from metalimmu.desired.types import Hold, Host, Pool, Role, Site
from metalimmu.desired.waiver import Waiver

D = TypeVar("D", bound=msgspec.Struct)
T_co = TypeVar("T_co", covariant=True)


class Placed(NamedTuple, Generic[T_co]):
    value: T_co
    source: Source
    path: Path = ()
    partial: bool = False  # some fields were wrong, and are not in the value

    def problem(self, path: Path, expected: str, got: str, write: str) -> Problem:
        return self.source.problem((*self.path, *path), expected, got, write)

    @property
    def place(self) -> str:
        """`hosts/r12.yaml:14`"""
        return f"{self.source.file}:{self.source.line(self.path)}"


def place(source: Source, value: object, kind: type[D], path: Path, problems: list[Problem]) -> Placed[D] | None:
    """The struct in its place. When it is wrong: all that is wrong with it, and what can be had without the wrong fields.

    So a host with one bad field is still looked at for the other errors that it may have.
    """
    try:
        return Placed(structs.convert(value, kind), source, path)
    except (msgspec.ValidationError, RecursionError) as exc:
        problems += explain(source, kind, path, error=str(exc))
    if not isinstance(value, dict):
        return None
    good = _good(value, kind)
    return Placed(structs.convert(good, kind), source, path, partial=True) if _is(good, kind) else None


def _good(value: dict[Any, Any], kind: type[msgspec.Struct]) -> dict[str, object]:
    """Without the fields that are wrong; of mappings and documents in it, without what is wrong in them."""
    good = {}
    for f in msgspec.structs.fields(kind):
        if f.name not in value:
            continue
        one = value[f.name]
        if not _is(one, f.type) and isinstance(one, dict):
            one = _good_below(one, f.type)
        if _is(one, f.type):
            good[f.name] = one
    return good


def _good_below(value: dict[Any, Any], kind: object) -> dict[Any, Any]:
    options = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    for option in options:
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return _good(value, option)
        if get_origin(option) is dict:
            values = get_args(option)[1]
            return {k: v for k, v in value.items() if isinstance(k, str) and _is(v, values)}
    return {}


def _is(value: object, kind: object) -> bool:
    try:
        structs.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


@dataclass
class Collected:
    site: Placed[Site] | None = None
    hosts: list[Placed[Host]] = field(default_factory=list)
    roles: dict[str, Placed[Role]] = field(default_factory=dict)
    pools: dict[str, Placed[Pool]] = field(default_factory=dict)
    # Names of all files, also of those that are wrong: a host must not be blamed for its role's error too.
    role_names: set[str] = field(default_factory=set)
    pool_names: set[str] = field(default_factory=set)
    profile_names: set[str] = field(default_factory=set)  # also of those that ship
    profiles: dict[str, Placed[Profile]] = field(default_factory=dict)  # the site's own
    templates: dict[str, str] = field(default_factory=dict)
    template_names: set[str] = field(default_factory=set)
    lock: Placed[dict[str, str]] | None = None
    holds: list[Placed[Hold]] = field(default_factory=list)
    waivers: list[Placed[Waiver]] = field(default_factory=list)
    unread_hosts: bool = False  # some file of hosts could not be read: who is unknown is not known
    problems: list[Problem] = field(default_factory=list)
