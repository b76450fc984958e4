"""What no single field of a profile can say: names and values of neutral keys, versions, chains, and who gets which."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from yaml.nodes import ScalarNode

from metalimmu.desired import profiles, units, versions
from metalimmu.desired.collected import Collected, Placed
from metalimmu.desired.expectations import PARTS
from metalimmu.desired.neutral import neutral
from metalimmu.desired.problems import Path, Problem, listed, nearest, quoted, visible
from metalimmu.desired.profile import Account, ComponentMatch, Parts, Profile, Scalar, Setting, Version
from metalimmu.desired.resolve import labels_of
from metalimmu.desired.types import Match
from metalimmu.desired.volatile import volatile

_WAYS = ("exact", "at_least", "range", "pattern")
_YAML_BOOLEANS = {"yes", "no", "on", "off", "y", "n"}


def profile_problems(docs: Collected) -> Iterator[Problem]:
    """Of the site's own profiles; what ships is tested before it ships."""
    for name, placed in docs.profiles.items():
        yield from document_problems(placed)
        yield from _extends(name, placed, docs)
        yield from _match(placed, docs)
    yield from _rivals(docs)
    yield from _undecided(docs)


def document_problems(placed: Placed[Profile]) -> Iterator[Problem]:
    """What can be said of one profile by itself."""
    profile = placed.value
    yield from _bios(placed)
    for key, version in profile.firmware.items():
        if version is not None:
            yield from _version(placed, ("firmware", key), version)
    order = profile.boot_order.value if isinstance(profile.boot_order, Setting) else profile.boot_order
    if order == [] or (isinstance(profile.boot_order, Setting) and not isinstance(order, list)):
        yield placed.problem(("boot_order",), "a list of what is tried first", "none", 'write ["*PXE*"]')
    yield from _switches(placed)
    yield from _accounts(placed)
    yield from _hardware(placed)


def _bios(placed: Placed[Profile]) -> Iterator[Problem]:
    keys = neutral().keys
    for key, wanted in placed.value.bios.items():
        path: Path = ("bios", key)
        if key not in keys:
            write = f"{nearest(key, keys)}, or name the machine's attribute under bios_raw"
            yield placed.problem(path, "a setting that all makes have", quoted(key), write)
            continue
        for value, below in _values(wanted, path):
            if value is not None and value not in keys[key].values:
                write = _word(value, keys[key].values)
                yield placed.problem(below, listed(keys[key].values), _got(value), write)
    # Of the make that the profile is for: HPE's TpmFipsModeSwitch is a setting though Dell's TpmF* are not.
    vendor = (placed.value.match and placed.value.match.vendor) or ""
    for name, wanted in placed.value.bios_raw.items():
        path = ("bios_raw", name)
        if volatile().is_noise(f"bios.{name}", vendor):
            got = f"{quoted(name)}, which tells one machine from another or changes by itself"
            yield placed.problem(path, "an attribute that a profile can decide", got, "take it out")
        for value, below in _values(wanted, path):
            yield from _as_written(placed, below, value)
    for field in ("bios", "bios_raw"):
        for key, wanted in getattr(placed.value, field).items():
            if isinstance(wanted, Setting) and wanted.value in ([], None):
                yield placed.problem((field, key, "value"), "a value", "nothing", f"write {key}: null to take it out")


def _values(wanted: Scalar | Setting, path: Path) -> Iterator[tuple[Scalar, Path]]:
    if not isinstance(wanted, Setting):
        yield wanted, path
    elif isinstance(wanted.value, list):
        yield from ((v, (*path, "value", i)) for i, v in enumerate(wanted.value))
    else:
        yield wanted.value, (*path, "value")


def _word(value: Scalar, words: tuple[str, ...]) -> str:
    if isinstance(value, bool) and {"enabled", "disabled"} <= set(words):
        return "write enabled" if value else "write disabled"
    return nearest(str(value), words)


def _got(value: Scalar) -> str:
    return (
        quoted(value)
        if isinstance(value, str)
        else "true"
        if value is True
        else "false"
        if value is False
        else str(value)
    )


def _as_written(placed: Placed[Profile], path: Path, value: Scalar) -> Iterator[Problem]:
    """YAML makes a number of 2.10 and of 0x10, and true of On: an attribute's value must be what stands in the file."""
    if value is None or isinstance(value, str):
        return
    node = placed.source.node((*placed.path, *path))
    text = node.value if isinstance(node, ScalarNode) else str(value)
    write = f"write {quoted(text)} in quotes"
    if isinstance(value, float):
        yield placed.problem(path, "text, a whole number, true or false", f"a number {value}", write)
    elif isinstance(value, bool):
        if text.lower() in _YAML_BOOLEANS:
            yield placed.problem(
                path, "text, a whole number, true or false", f"{_got(value)} (of {visible(text)})", write
            )
    elif text != str(value):
        yield placed.problem(
            path, "a number as YAML reads it", f"{value} (of {visible(text)})", f"{write}, or write {value}"
        )


def _version(placed: Placed[Profile], path: Path, version: Version) -> Iterator[Problem]:
    given = [way for way in _WAYS if getattr(version, way) is not None]
    if len(given) != 1:
        got = " and ".join(given) if given else "none of them"
        write = 'write {at_least: "2.10"}' if not given else f"keep {given[0]}, or make it a range"
        yield placed.problem(path, f"one of {', '.join(_WAYS)}", got, write)
    if version.pattern is not None:
        try:
            re.compile(version.pattern)
        except (re.error, OverflowError, RecursionError) as exc:
            below = (*path, "pattern")
            yield placed.problem(
                below, "a regular expression", f"{quoted(version.pattern)}: {exc}", "mend it, or use exact"
            )
    if version.range is not None:
        low, high = version.range.at_least, version.range.below
        found = versions.order(low, high)
        if found is None:
            got = f"{quoted(low)} and {quoted(high)}, which have no order"
            yield placed.problem((*path, "range"), "two versions of one kind", got, "use pattern, or exact")
        elif found >= 0:
            got = f"at_least {quoted(low)}, below {quoted(high)}"
            yield placed.problem((*path, "range"), "a range that a version can be in", got, "exchange them")
    if version.component is not None and version.component == ComponentMatch():
        yield placed.problem(
            (*path, "component"), "name, model, manufacturer, device or software_id", "none", "write one"
        )


def _switches(placed: Placed[Profile]) -> Iterator[Problem]:
    """Settings whose value is true or false, also when severity and owner stand beside it."""
    profile = placed.value
    switches: dict[Path, object] = {("secure_boot",): profile.secure_boot}
    if profile.bmc is not None:
        switches[("bmc", "lockdown")] = profile.bmc.lockdown
        switches |= {("bmc", "protocols", name): wanted for name, wanted in profile.bmc.protocols.items()}
    for path, wanted in switches.items():
        if isinstance(wanted, Setting) and not isinstance(wanted.value, bool):
            got = "a list" if isinstance(wanted.value, list) else _got(wanted.value)
            yield placed.problem((*path, "value"), "true or false", got, "write true")
    for port, wired in (profile.hardware.cabling if profile.hardware else {}).items():
        if isinstance(wired, Setting) and not isinstance(wired.value, str):
            path = ("hardware", "cabling", port, "value")
            yield placed.problem(path, "a switch and its port", "no text", 'write "leaf-12a Ethernet7"')


def _accounts(placed: Placed[Profile]) -> Iterator[Problem]:
    accounts = placed.value.bmc.accounts if placed.value.bmc else None
    if accounts is None:
        return
    present = [a.name if isinstance(a, Account) else a for a in accounts.present]
    for i, name in enumerate(accounts.absent):
        if name in present:
            path = ("bmc", "accounts", "absent", i)
            yield placed.problem(
                path, "an account that is not also present", quoted(name), "take it out of one of them"
            )


def _hardware(placed: Placed[Profile]) -> Iterator[Problem]:
    hardware = placed.value.hardware
    for kind, fields in PARTS.items() if hardware else ():
        parts: Parts | None = getattr(hardware, kind)
        if parts is None:
            continue
        path: Path = ("hardware", kind)
        for field in ("count", "at_least", "size", "total", "model"):
            if getattr(parts, field) is not None and field not in fields:
                write = f"take it out; {kind} have {listed(list(fields))}"
                yield placed.problem((*path, field), f"a field that {kind} have", quoted(field), write)
        if parts.count is not None and parts.at_least is not None:
            got = f"count {parts.count} and at_least {parts.at_least}"
            yield placed.problem(path, "count or at_least", got, "keep one of them")
        if kind == "memory":
            yield from _memory(placed, path, parts)


def _memory(placed: Placed[Profile], path: Path, parts: Parts) -> Iterator[Problem]:
    """A DIMM that is sold as 32GB has 32 GiB, and is compared to the byte."""
    for field in ("size", "total"):
        size = getattr(parts, field)
        if size is not None and units.size_bytes(size) % (1 << 20):
            number = re.match(r"[0-9.]+", size)
            write = (
                f"write {number[0]}{size.strip()[-2]}iB"
                if number and size[-2:] != "iB" and size[-2].isalpha()
                else "write 32GiB"
            )
            yield placed.problem((*path, field), "memory in powers of two", quoted(size), write)


def _extends(name: str, placed: Placed[Profile], docs: Collected) -> Iterator[Problem]:
    known = docs.profile_names
    for i, parent in enumerate(profiles.parents(placed.value)):
        path: Path = ("extends", i) if isinstance(placed.value.extends, list) else ("extends",)
        if parent not in known:
            yield placed.problem(path, "the name of a profile", quoted(parent), name_like(parent, known - {name}))
    way = _circle(name, docs)
    if way and min(way[:-1]) == name:  # said once, at the first of them
        yield placed.problem(("extends",), "profiles without a circle", " -> ".join(way), "take one `extends` out")


def name_like(word: str, known: Iterable[str]) -> str:
    """What to write instead of the name of a profile that is not there. All of them are too many to list: several ship."""
    close = difflib.get_close_matches(word[:80], sorted(known), n=1, cutoff=0.6)
    return f"write {close[0]}" if close else f"write profiles/{visible(word)}.yaml, or remove this line"


def _circle(name: str, docs: Collected) -> list[str]:
    """`[a, b, a]` when `name` extends itself by way of others."""
    stack: list[list[str]] = [[name]]
    seen: set[str] = set()
    while stack:
        way = stack.pop()
        placed = docs.profiles.get(way[-1])
        for parent in profiles.parents(placed.value) if placed else ():
            if parent == name:
                return [*way, name]
            if parent not in seen:
                seen.add(parent)
                stack.append([*way, parent])
    return []


def _match(placed: Placed[Profile], docs: Collected) -> Iterator[Problem]:
    match = placed.value.match
    for field, known in (("role", docs.role_names), ("pool", docs.pool_names)) if match else ():
        value = getattr(match, field)
        if value is not None and value not in known:
            write = nearest(value, known, none=f"write {field}s/{value}.yaml")
            yield placed.problem(("match", field), f"the name of a file in {field}s/", quoted(value), write)


def _rivals(docs: Collected) -> Iterator[Problem]:
    """Two profiles with one `match` are in conflict for every host that fits."""
    first: dict[tuple[object, ...], str] = {}
    for name, placed in docs.profiles.items():
        match = placed.value.match
        if match is None:
            continue
        key = _same(match)
        if key in first:
            got = f"the same as in {first[key]}: neither is more specific"
            yield placed.problem(("match",), "a match of its own", got, "add vendor, model, labels, pool, role or name")
        first.setdefault(key, name)


def _same(match: Match) -> tuple[object, ...]:
    texts = [t.casefold() if t else t for t in (match.vendor, match.model, match.name)]
    return (*texts, match.pool, match.role, *sorted(match.labels.items()))


class _Host(NamedTuple):
    """profiles.Subject"""

    name: str
    pool: str | None
    role: str | None
    labels: dict[str, str]


def _undecided(docs: Collected) -> Iterator[Problem]:
    """Hosts of which two profiles say that they are for them; as far as the documents know make and model."""
    candidates = {n: p.value for n, p in docs.profiles.items() if p.value.match is not None}
    for placed in docs.hosts if len(candidates) > 1 else ():
        host = placed.value
        role, pool = docs.roles.get(host.role or ""), docs.pools.get(host.pool or "")
        if not (host.vendor and host.model) or (host.role and (role is None or role.value.profile)):
            continue
        labels = labels_of(host, role.value.labels if role else {}, pool.value.labels if pool else {})
        best = profiles.fitting(candidates, _Host(host.name, host.pool, host.role, labels), host.vendor, host.model)
        if len(best) > 1:
            write = "name one in the host's role, or make one match more specific"
            yield placed.problem((), "one profile that fits best", listed(best), write)
