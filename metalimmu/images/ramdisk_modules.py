"""Which kernel modules, and which firmware files, a ramdisk carries: pure functions on what depmod and modinfo print."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from metalimmu.errors import ToolError


def normal(name: str) -> str:
    """To modprobe there is no difference between `-` and `_`."""
    return name.replace("-", "_")


def module_name(path: str) -> str:
    """`kernel/drivers/ata/ahci.ko.xz` -> `ahci`."""
    return normal(path.rsplit("/", 1)[-1].split(".ko", 1)[0])


@dataclass(frozen=True)
class Modules:
    """What a kernel has. Names are normal; paths are relative to /lib/modules/VERSION."""

    paths: dict[str, str]
    depends: dict[str, tuple[str, ...]]
    builtin: frozenset[str]
    soft: dict[str, tuple[str, ...]] = field(default_factory=dict)  # names or aliases
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """`modules` with everything that they need; `builtin` and `missing` are names asked for that have no file."""

    modules: frozenset[str]
    builtin: frozenset[str]
    missing: frozenset[str]


def parse(dep: str, builtin: str, softdep: str = "", alias: str = "") -> Modules:
    """From the texts of modules.dep, modules.builtin, modules.softdep and modules.alias."""
    paths: dict[str, str] = {}
    depends: dict[str, tuple[str, ...]] = {}
    for line in dep.splitlines():
        path, _, rest = line.partition(":")
        name = module_name(path)
        paths[name] = path
        depends[name] = tuple(module_name(p) for p in rest.split())
    soft: dict[str, tuple[str, ...]] = {}
    for words in (line.split() for line in softdep.splitlines()):
        if words[:1] == ["softdep"]:
            before = [normal(w) for w in words[2:] if w not in ("pre:", "post:")]
            soft[normal(words[1])] = (*soft.get(normal(words[1]), ()), *before)
    aliases: dict[str, tuple[str, ...]] = {}
    for words in (line.split() for line in alias.splitlines()):
        if words[:1] == ["alias"] and "*" not in words[1]:
            aliases[normal(words[1])] = (*aliases.get(normal(words[1]), ()), normal(words[2]))
    return Modules(paths, depends, frozenset(module_name(p) for p in builtin.split()), soft, aliases)


def select(have: Modules, needed: Iterable[str], wanted: Iterable[str] = ()) -> Selection:
    """The modules named and all that they depend on, by symbols or by softdep (crc32c for libcrc32c).

    Raises ToolError that names every needed module that the kernel has neither as file nor compiled in.
    """
    need, want = {normal(n) for n in needed}, {normal(n) for n in wanted}
    missing = {n for n in need | want if n not in have.paths and n not in have.builtin}
    if lost := missing & need:
        raise ToolError(
            f"the kernel has no module {', '.join(sorted(lost))}",
            hint="it may have been renamed: correct the flavour's module list",
        )
    chosen: set[str] = set()
    queue = [n for n in need | want if n in have.paths]
    while queue:
        name = queue.pop()
        if name in chosen:
            continue
        chosen.add(name)
        queue += [n for n in have.depends.get(name, ()) if n in have.paths]
        for soft in have.soft.get(name, ()):
            queue += [n for n in (soft, *have.aliases.get(soft, ())) if n in have.paths]
    return Selection(frozenset(chosen), frozenset((need | want) & have.builtin), frozenset(missing))


def parse_modinfo(text: str) -> dict[str, tuple[str, ...]]:
    """Module name -> firmware files that it asks for, from `modinfo FILE...`."""
    result: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "filename":
            name = module_name(value.strip())
        elif key == "firmware" and name:
            result[name] = (*result.get(name, ()), value.strip())
    return result


@dataclass(frozen=True)
class Firmware:
    """`files` are paths below /lib/firmware that exist, each with where it is; `missing` are asked for and nowhere."""

    files: dict[str, str]  # path -> package, or "" for the operator's folder
    missing: dict[str, str]  # path -> module that asks


def find_firmware(
    asked: Mapping[str, Iterable[str]], folder: Iterable[str], owners: Mapping[str, Iterable[str]]
) -> Firmware:
    """Where each firmware file comes from: the operator's folder first, then Debian's packages.

    `folder` are paths below the operator's folder; `owners` maps `lib/firmware/...` to packages, as Contents-all does.
    What a module asks for may be a pattern (`rtl_nic/rtl8168*.fw`).
    """
    mine = set(folder)
    theirs = {
        path.split("lib/firmware/", 1)[1]: min(names) for path, names in owners.items() if "lib/firmware/" in path
    }
    files: dict[str, str] = {}
    missing: dict[str, str] = {}
    for module, patterns in sorted(asked.items()):
        for pattern in patterns:
            found = dict.fromkeys(_matching(pattern, mine), "") or {p: theirs[p] for p in _matching(pattern, theirs)}
            files.update(found)
            if not found:
                missing[pattern] = module
    return Firmware(files, missing)


def _matching(pattern: str, paths: Iterable[str]) -> list[str]:
    if "*" not in pattern and "?" not in pattern:
        return [pattern] if pattern in paths else []
    return fnmatch.filter(paths, pattern)
