"""What `load` has read so far: each value beside the place it was read from, and all that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import msgspec

from metalimmu.desired.documents import Source
from metalimmu.desired.explain import explain
from metalimmu.desired.problems import Path, Problem
from metalimmu.desired.types import Hold, Host, Pool, Role, Site

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
        return Placed(msgspec.convert(value, kind), source, path)
    except (msgspec.ValidationError, RecursionError) as exc:
        problems += explain(source, kind, path, error=str(exc))
    if not isinstance(value, dict):
        return None
    good = {
        f.name: value[f.name] for f in msgspec.structs.fields(kind) if f.name in value and _is(value[f.name], f.type)
    }
    return Placed(msgspec.convert(good, kind), source, path, partial=True) if _is(good, kind) else None


def _is(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
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
    profiles: set[str] = field(default_factory=set)
    templates: dict[str, str] = field(default_factory=dict)
    template_names: set[str] = field(default_factory=set)
    lock: Placed[dict[str, str]] | None = None
    holds: list[Placed[Hold]] = field(default_factory=list)
    unread_hosts: bool = False  # some file of hosts could not be read: who is unknown is not known
    problems: list[Problem] = field(default_factory=list)
