"""Profiles: which one a host gets, and all that it says as a flat list of expectations. Pure, but for `shipped`.

A setting's severity and owner: its own; else those of the profile in which it stands; else those of the profile that was
asked for; else `warning` and nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Protocol

import msgspec
import yaml

from metalimmu import paths, structs
from metalimmu.desired.expectations import Said, said
from metalimmu.desired.makes import make_of
from metalimmu.desired.problems import Path, listed, nearest
from metalimmu.desired.profile import Expectation, Profile, ResolvedProfile
from metalimmu.desired.types import HostSpec, Match
from metalimmu.errors import SiteError

Line = Callable[[Path], int]  # documents.Source.key_line


def resolve(profiles: Mapping[str, Profile], name: str, *, lines: Mapping[str, Line] | None = None) -> ResolvedProfile:
    """The profile with all that it extends. `lines` gives the places of fields, by profile. Raises SiteError."""
    order = chain(profiles, name)
    flat: dict[tuple[str, ...], Expectation] = {}
    for link in order:
        line = (lines or {}).get(link)
        for one in said(profiles[link]):
            flat.pop(one.key, None)  # so that what is said last stands last
            if one.expectation is not None:
                flat[one.key] = _placed(one, profiles[link], profiles[name], link, line)
    return ResolvedProfile(name=name, chain=order, expectations=tuple(flat.values()))


def _placed(one: Said, own: Profile, leaf: Profile, link: str, line: Line | None) -> Expectation:
    assert one.expectation is not None  # noqa: S101
    return msgspec.structs.replace(
        one.expectation,
        severity=one.severity or own.severity or leaf.severity or "warning",
        owner=one.owner or own.owner or leaf.owner or "",
        profile=link,
        line=line(one.path) if line else 0,
    )


def parents(profile: Profile) -> list[str]:
    extends = profile.extends
    return [] if extends is None else [extends] if isinstance(extends, str) else list(extends)


def chain(profiles: Mapping[str, Profile], name: str) -> tuple[str, ...]:
    """The profile and all that it extends, bases first, each once. Raises SiteError: unknown names, a cycle."""
    order: list[str] = []
    _visit(profiles, name, (), order)
    return tuple(order)


def _visit(profiles: Mapping[str, Profile], name: str, way: tuple[str, ...], order: list[str]) -> None:
    if name in way:
        raise SiteError(f"profiles extend each other in a circle: {circle(way, name)}", hint="take one `extends` out")
    if name in order:
        return
    if name not in profiles:
        by = f", which {way[-1]} extends" if way else ""
        raise SiteError(f"no profile {name!r}{by}", hint=nearest(name, profiles, none=f"write profiles/{name}.yaml"))
    for parent in parents(profiles[name]):
        _visit(profiles, parent, (*way, name), order)
    order.append(name)


def circle(way: tuple[str, ...], name: str) -> str:
    """`a -> b -> a`"""
    return " -> ".join((*way[way.index(name) :], name))


class Subject(Protocol):
    """What a `match` looks at besides make and model: a HostSpec has it."""

    @property
    def name(self) -> str: ...
    @property
    def pool(self) -> str | None: ...
    @property
    def role(self) -> str | None: ...
    @property
    def labels(self) -> dict[str, str]: ...


class Made(Protocol):
    """What observed.types.SystemIdentity says of a machine; `desired` does not see `observed`."""

    @property
    def manufacturer(self) -> str: ...
    @property
    def model(self) -> str: ...


def select(profiles: Mapping[str, Profile], spec: HostSpec, identity: Made | object | None) -> str | None:
    """The role's profile; else the one with the most specific `match` that fits. None: no profile is for this host.

    Make and model are what the machine says; where it could not be asked (`identity` is None or Unknown), what the host
    document says. Raises SiteError when two are equally specific.
    """
    if spec.profile is not None:
        return spec.profile
    vendor = getattr(identity, "manufacturer", "") or spec.vendor or ""
    model = getattr(identity, "model", "") or spec.labels.get("model", "")
    best = fitting(profiles, spec, vendor, model)
    if len(best) > 1:
        raise SiteError(
            f"{spec.name}: profiles {listed(best)} fit equally well",
            hint="name one in the host's role, or make one `match` more specific (vendor, model, labels, pool, role, name)",
        )
    return best[0] if best else None


def fitting(profiles: Mapping[str, Profile], spec: Subject, vendor: str, model: str) -> list[str]:
    """Names of the profiles that fit best: none, one, or those in conflict."""
    ranks = {n: specificity(p.match) for n, p in profiles.items() if p.match and fits(p.match, spec, vendor, model)}
    top = max(ranks.values(), default=None)
    return sorted(n for n, rank in ranks.items() if rank == top)


def fits(match: Match, spec: Subject, vendor: str, model: str) -> bool:
    """`vendor` is a make (`dell`) or a glob on what the machine says; `model` and `name` are globs; without case."""
    return (
        (match.vendor is None or _alike(vendor, match.vendor) or make_of(vendor) == match.vendor.casefold())
        and (match.model is None or _alike(model, match.model))
        and (match.name is None or _alike(spec.name, match.name))
        and (match.pool is None or match.pool == spec.pool)
        and (match.role is None or match.role == spec.role)
        and all(spec.labels.get(k) == v for k, v in match.labels.items())
    )


def specificity(match: Match) -> tuple[int, int]:
    """How much a match says: the number of its conditions, then how many of them are no globs."""
    texts = [t for t in (match.vendor, match.model, match.name, match.pool, match.role) if t is not None]
    texts += match.labels.values()
    return len(texts), sum(not any(c in t for c in "*?[") for t in texts)


def _alike(text: str, glob: str) -> bool:
    return fnmatchcase(text.strip().casefold(), glob.casefold())


@cache
def shipped() -> dict[str, Profile]:
    """The starting points that ship with metalimmu, by name."""
    files = sorted(paths.data("profiles").glob("*.yaml"))
    read = partial(yaml.load, Loader=yaml.CSafeLoader)
    return {f.stem: structs.convert(read(f.read_bytes()) or {}, Profile) for f in files}


def by_name_only(profile: Profile) -> Profile:
    """Without `match`: what ships is chosen by a role or an `extends`, never by itself."""
    return msgspec.structs.replace(profile, match=None)
