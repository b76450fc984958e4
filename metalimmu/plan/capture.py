"""A profile out of machines: what they have in common is written, what differs is a comment. Pure; gives YAML text.

Left out: what tells one machine from another or changes by itself, what nobody can set, and what has no value.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from metalimmu.desired.insert import dumped
from metalimmu.desired.makes import make_of
from metalimmu.desired.neutral import Neutral
from metalimmu.desired.problems import visible
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Scalar, Value
from metalimmu.plan.capture_sections import Line, fields
from metalimmu.plan.dependencies import Rules

MOST_NAMED = 5  # hosts in a comment
LONGEST_PLAIN = 100  # characters; a longer key would be written over several lines


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of one machine, by a scan or from a recording."""

    host: str
    at: float
    settings: Mapping[str, Value]
    manufacturer: str = ""
    model: str = ""
    bios_version: str = ""
    bmc_version: str = ""
    registry: Registry | None = None

    @property
    def has_bios(self) -> bool:
        return any(name.startswith("bios.") for name in self.settings)


Noise = Callable[[str, str], bool]


class Common(msgspec.Struct, frozen=True):
    """`same` by setting. `differs`: setting -> value -> hosts; None stands for machines that do not have it."""

    same: dict[str, Value]
    differs: dict[str, dict[Value, list[str]]]
    left_out: dict[str, int]  # why -> how many settings


def common(hosts: Sequence[Captured], noise: Noise) -> Common:
    kept = [_kept(host, noise) for host in hosts]
    left: dict[str, set[str]] = {}
    for _, without in kept:
        for setting, why in without.items():
            left.setdefault(why, set()).add(setting)
    gone = {setting for settings in left.values() for setting in settings}
    names = dict.fromkeys(n for settings, _ in kept for n in settings if n not in gone)
    same: dict[str, Value] = {}
    differs: dict[str, dict[Value, list[str]]] = {}
    for name in names:
        found: dict[Value, list[str]] = {}
        for host, (settings, _) in zip(hosts, kept, strict=True):
            found.setdefault(settings.get(name), []).append(host.host)
        if len(found) == 1:
            same[name] = next(iter(found))
        else:
            differs[name] = found
    return Common(same, differs, {why: len(settings) for why, settings in left.items()})


def _kept(host: Captured, noise: Noise) -> tuple[dict[str, Value], dict[str, str]]:
    kept: dict[str, Value] = {}
    without: dict[str, str] = {}
    fixed = read_only(host.registry, host.settings)
    for name, value in host.settings.items():
        if noise(name, host.manufacturer):
            without[name] = "identity, or changes by itself"
        elif name in fixed:
            without[name] = fixed[name]
        elif value is None or value in ("", ()):
            without[name] = "empty"
        else:
            kept[name] = value
    return kept, without


def read_only(registry: Registry | None, settings: Mapping[str, Value]) -> dict[str, str]:
    """BIOS settings that nobody can set on this machine as it is now, and why."""
    if registry is None:
        return {}
    rules = Rules(registry)
    now: dict[str, Scalar] = {
        n.partition(".")[2]: v for n, v in settings.items() if n.startswith("bios.") and not isinstance(v, tuple)
    }
    found: dict[str, str] = {}
    for name in now:
        attribute = registry.attributes.get(name)
        if attribute is None:
            continue
        if attribute.read_only or attribute.immutable or rules.flag(name, "ReadOnly", now)[0]:
            found[f"bios.{name}"] = "read-only"
        elif attribute.unique or name in registry.duplicates or attribute.type == "Password":
            found[f"bios.{name}"] = "identity, or changes by itself"
    return found


def capture(hosts: Sequence[Captured], *, neutral: Neutral, noise: Noise, now: float) -> str:
    """The profile as text, with comments. `hosts`: at least one."""
    found = common(hosts, noise)
    make = _one(make_of(h.manufacturer) for h in hosts)
    registry = next((h.registry for h in hosts if h.registry is not None), None)
    lines = [*_head(hosts, now), "", *_match(hosts, make)]
    for field in fields(found.same, neutral, make, registry):
        lines += ["", *_written([field], 0)]
    lines += _differences(found)
    lines += [f"# Left out as {why}: {count} settings." for why, count in sorted(found.left_out.items())]
    if any(h.registry is None for h in hosts) and any(n.startswith("bios.") for n in found.same):
        lines.append("# No attribute registry was at hand: read-only attributes may be among those above.")
    return "\n".join(lines) + "\n"


def _head(hosts: Sequence[Captured], now: float) -> list[str]:
    lines = [f"# Captured on {day(now)} by `metalimmu profile capture` from:"]
    for host in hosts:
        machine = " ".join(w for w in (host.manufacturer, host.model) if w) or "an unknown machine"
        versions = f"BIOS {host.bios_version or 'unknown'}, BMC {host.bmc_version or 'unknown'}"
        lines.append(f"#   {comment(host.host)}: {comment(machine)}, {comment(versions)}, read on {day(host.at)}")
    return [*lines, "# Read it, take out what is not meant, and say why the rest is as it is."]


def _match(hosts: Sequence[Captured], make: str) -> list[str]:
    vendor, model = make or _one(h.manufacturer for h in hosts), _one(h.model for h in hosts)
    words = ", ".join(f"{k}: {flow(v)}" for k, v in (("vendor", vendor), ("model", model)) if v)
    return [f"match: {{{words}}}"] if words else ["# match: these machines have neither vendor nor model in common"]


def _one(words: Iterable[str]) -> str:
    found = set(words)
    return found.pop() if len(found) == 1 else ""


def _written(lines: Iterable[Line], depth: int) -> list[str]:
    out: list[str] = []
    for line in lines:
        indent = "  " * depth
        note = f"  # {comment(line.note)}" if line.note else ""
        if line.below:
            out += [f"{indent}{flow(line.key)}:{note}", *_written(line.below, depth + 1)]
        else:
            out.append(f"{indent}{flow(line.key)}: {flow(line.value)}{note}")
    return out


def _differences(found: Common) -> list[str]:
    lines = ["", "# In these the machines differ:"] if found.differs else [""]
    for setting, values in found.differs.items():
        lines.append(f"#   {comment(setting)}")
        for value, hosts in values.items():
            told = "not there" if value is None else flow(value)
            more = f" and {len(hosts) - MOST_NAMED} more" if len(hosts) > MOST_NAMED else ""
            lines.append(f"#     {comment(told, 200)}: {comment(', '.join(hosts[:MOST_NAMED]), 400)}{more}")
    return lines


def flow(value: object) -> str:
    """In one line, as it stands in YAML, whatever a BMC has sent."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(flow(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{flow(k)}: {flow(v)}' for k, v in value.items())}}}"
    if not isinstance(value, str) or (value.isascii() and value.isprintable() and len(value) < LONGEST_PLAIN):
        return dumped(value)
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def comment(text: str, longest: int = 160) -> str:
    """Text of a BMC in a comment: one line, whatever it holds."""
    return visible(text, longest)


def day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
