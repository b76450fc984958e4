"""Settings of a snapshot as the fields of a profile: the way back of desired.expectations. Pure.

What a profile has no field for (the certificate's issuer, the mode of secure boot) is not captured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import msgspec

from metalimmu.desired.expectations import PARTS
from metalimmu.desired.neutral import Neutral
from metalimmu.observed.registry import Registry
from metalimmu.observed.snapshot import Value

BIOS = "bios."
_SIZES = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("GB", 10**9), ("MB", 10**6), ("B", 1))


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """`key: value  # note`, or `key:` with lines below it."""

    key: str
    value: object = None
    note: str = ""
    below: tuple[Line, ...] = ()


def fields(same: Mapping[str, Value], neutral: Neutral, make: str, registry: Registry | None) -> Iterator[Line]:
    """The top fields of a profile that says all of `same` that a profile can say."""
    spoken = _neutral(same, neutral, make)
    yield from _field("bios", [Line(key=k, value=w, note=f"{n[5:]}: {same[n]}") for n, (k, w) in spoken.items()])
    yield from _field("bios_raw", _raw(same, spoken, registry))
    yield from _field("firmware", _firmware(same))
    yield from _boot(same, {key for key, _ in spoken.values()})
    yield from _field("bmc", _bmc(same))
    yield from _field("hardware", _hardware(same))


def _field(key: str, below: list[Line]) -> Iterator[Line]:
    if below:
        yield Line(key=key, below=tuple(below))


def _neutral(same: Mapping[str, Value], neutral: Neutral, make: str) -> dict[str, tuple[str, str]]:
    """BIOS settings that a neutral key says exactly: setting -> key, word. A word for several values would lose which."""
    found: dict[str, tuple[str, str]] = {}
    for key in neutral.keys:
        for place in neutral.places(key, make):
            name = _there(place.setting, place.stem, same)
            if name is None:
                continue
            word = place.word(same[name])
            if name.startswith(BIOS) and word is not None and len(place.values[word]) == 1:
                found.setdefault(name, (key, word))
            break
    return found


def _there(setting: str, stem: bool, same: Mapping[str, Value]) -> str | None:
    if not stem:
        return setting if setting in same else None
    found = [n for n in same if n.rpartition("_")[0] == setting]
    return found[0] if len(found) == 1 else None


def _raw(same: Mapping[str, Value], spoken: Mapping[str, object], registry: Registry | None) -> list[Line]:
    lines: list[Line] = []
    for name, value in same.items():
        if not name.startswith(BIOS) or name in spoken or isinstance(value, float):
            continue
        attribute = registry.attributes.get(name[len(BIOS) :]) if registry else None
        lines.append(Line(key=name[len(BIOS) :], value=value, note=attribute.display if attribute else ""))
    return lines


def _firmware(same: Mapping[str, Value]) -> list[Line]:
    return [
        Line(key=name.partition(".")[2], below=(Line(key="exact", value=value),))
        for name, value in same.items()
        if name.startswith("firmware.") and isinstance(value, str)
    ]


def _boot(same: Mapping[str, Value], spoken: set[str]) -> Iterator[Line]:
    order = same.get("boot.order")
    if isinstance(order, tuple) and order:
        yield Line(key="boot_order", value=tuple(_literal(str(o)) for o in order))
    if same.get("boot.mode") in ("UEFI", "Legacy") and "boot_mode" not in spoken:
        yield Line(key="boot_mode", value=same["boot.mode"])
    if isinstance(same.get("secure_boot.enabled"), bool):
        yield Line(key="secure_boot", value=same["secure_boot.enabled"])


def _literal(text: str) -> str:
    """Boot order is given as globs."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def _bmc(same: Mapping[str, Value]) -> list[Line]:
    lines: list[Line] = []
    for kind in ("ntp", "dns", "syslog"):
        given = [Line(key=f, value=same[n]) for f in ("enabled", "servers") if (n := f"bmc.{kind}.{f}") in same]
        given = [g for g in given if g.key != "enabled" or kind != "dns"]
        lines += _field(kind, given)
    accounts = same.get("bmc.accounts")
    if isinstance(accounts, tuple) and accounts:
        present = tuple(_account(str(a), same) for a in accounts)
        lines.append(Line(key="accounts", below=(Line(key="present", value=present),)))
    if same.get("bmc.lockdown") in ("Enabled", "Disabled"):
        lines.append(Line(key="lockdown", value=same["bmc.lockdown"] == "Enabled"))
    start = "bmc.protocol."
    listening = [Line(key=n[len(start) :], value=v) for n, v in same.items() if n.startswith(start)]
    return [*lines, *_field("protocols", listening)]


def _account(name: str, same: Mapping[str, Value]) -> object:
    role = same.get(f"bmc.account.{name}.role")
    return {"name": name, "role": role} if isinstance(role, str) and role else name


def _hardware(same: Mapping[str, Value]) -> list[Line]:
    lines: list[Line] = []
    for kind, parts in PARTS.items():
        given = []
        for field, (end, op) in parts.items():
            value = same.get(f"hardware.{kind}.{end}")
            if op.startswith("each_"):
                value = value[0] if isinstance(value, tuple) and len(set(value)) == 1 else None
            if op == "at_least" or value is None:
                continue
            if field in ("size", "total"):
                value = size(value) if isinstance(value, int) else None
            elif field == "model":
                value = _literal(str(value))
            given.append(Line(key=field, value=value))
        lines += _field(kind, [g for g in given if g.value is not None])
    return lines


def size(count: int) -> str:
    """Bytes in the largest unit that says them exactly."""
    unit, factor = next((u, f) for u, f in _SIZES if (count % f == 0 and count >= f) or f == 1)
    return f"{count // factor}{unit}"
