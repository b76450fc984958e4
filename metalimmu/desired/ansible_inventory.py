"""Ansible's inventories as data: INI, YAML, and the JSON of `ansible-inventory --list`. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from metalimmu.desired.documents import CONSTRUCTION
from metalimmu.errors import UsageError

MOST_HOSTS = 200_000
_NAME = re.compile(r"^[A-Za-z0-9_\[][^\s={}()<>|;,\"']*(?<!:)$")
_SECTION = re.compile(r"^\[([^\]:]+)(?::(vars|children|hosts))?\]\s*(?:[#;].*)?$")
_RANGE = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")

Vars = dict[str, Any]


class Inventory(NamedTuple):
    """`hosts`: each host's own variables. `groups`: hosts of each group; `children`: groups of a group; `vars` of a group."""

    hosts: dict[str, Vars]
    groups: dict[str, dict[str, None]]
    children: dict[str, dict[str, None]]
    vars: dict[str, Vars]

    def group(self, name: str) -> dict[str, None]:
        return self.groups.setdefault(name, {})

    def host(self, name: str, variables: Mapping[str, Any]) -> None:
        if len(self.hosts) >= MOST_HOSTS:
            raise UsageError(
                f"more than {MOST_HOSTS:,} hosts", hint="a pattern such as [1:9999999] is a slip of the finger"
            )
        self.hosts.setdefault(name, {}).update(variables)

    def groups_of(self) -> dict[str, list[str]]:
        """The groups of each host, those that hold its groups too."""
        above: dict[str, set[str]] = {}
        for parent, below in self.children.items():
            for child in below:
                above.setdefault(child, set()).add(parent)
        found: dict[str, list[str]] = {}
        for group, members in self.groups.items():
            lineage = _lineage(group, above)
            for host in members:
                mine = found.setdefault(host, [])
                mine += [g for g in lineage if g not in mine]
        return found


def _lineage(group: str, above: Mapping[str, set[str]]) -> list[str]:
    found, todo = [], [group]
    while todo:
        name = todo.pop()
        if name not in found:  # a circle ends here
            found.append(name)
            todo += sorted(above.get(name, ()))
    return found


def parse(text: str) -> Inventory:
    """Raises UsageError for what is none of the three formats."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("{"):
        return _json(stripped)
    if _looks_like_yaml(stripped):
        return _yaml(stripped)
    return _ini(text)


def _looks_like_yaml(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0].strip() if lines else ""
    return first == "---" or bool(re.fullmatch(r"[\w.-]+:(\s+[#&{].*)?", first))


def empty() -> Inventory:
    return Inventory({}, {}, {}, {})


# YAML


class _Loader(yaml.CSafeLoader):
    """Unknown tags (`!vault`, `!unsafe`) are nothing, and no error."""


def _nothing(_loader: Any, _suffix: str, _node: yaml.Node) -> None:
    return None


_Loader.add_multi_constructor("!", _nothing)


def load_yaml(text: str) -> Any:
    """Raises UsageError."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  derived from the safe one
    except CONSTRUCTION as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UsageError(
            f"this is no YAML{where}: {type(exc).__name__}", hint="`ansible-inventory --list` says what is wrong"
        ) from exc


def _yaml(text: str) -> Inventory:
    found = empty()
    top = load_yaml(text)
    if not isinstance(top, dict):
        raise UsageError("this YAML is no inventory", hint="an inventory begins with `all:` or with groups")
    todo: list[tuple[str, Any]] = [(str(k), v) for k, v in top.items()]
    seen = 0
    while todo:
        name, body = todo.pop()
        found.group(name)
        seen += 1
        if not isinstance(body, dict) or seen > MOST_HOSTS:
            continue
        for pattern, variables in _mapping(body, "hosts"):
            for host in expanded(pattern):
                found.host(host, variables if isinstance(variables, dict) else {})
                found.group(name)[host] = None
        for child, below in _mapping(body, "children"):
            found.children.setdefault(name, {})[child] = None
            todo.append((child, below))
        if isinstance(body.get("vars"), dict):
            found.vars.setdefault(name, {}).update(body["vars"])
    return found


def _mapping(body: dict[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    value = body.get(key)
    if isinstance(value, dict):
        yield from ((str(k), v) for k, v in value.items())
    elif isinstance(value, list):
        yield from ((str(k), None) for k in value)


# JSON of `ansible-inventory --list`


def _json(text: str) -> Inventory:
    try:
        top = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"this is no JSON: {exc}", hint="`ansible-inventory --list > inventory.json`") from exc
    found = empty()
    meta = top.get("_meta")
    hostvars = meta.get("hostvars") if isinstance(meta, dict) else None
    for host, variables in (hostvars or {}).items():
        found.host(str(host), variables if isinstance(variables, dict) else {})
    for name, body in top.items():
        if name == "_meta" or not isinstance(body, (dict, list)):
            continue
        group = body if isinstance(body, dict) else {"hosts": body}
        for host, _ in _mapping(group, "hosts"):
            found.host(host, {})
            found.group(name)[host] = None
        for child, _ in _mapping(group, "children"):
            found.children.setdefault(name, {})[child] = None
        if isinstance(group.get("vars"), dict):
            found.vars.setdefault(name, {}).update(group["vars"])
    return found


# INI


def _ini(text: str) -> Inventory:
    found = empty()
    group, kind = "ungrouped", "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        section = _SECTION.match(line)
        if section:
            group, kind = section[1].strip(), section[2] or "hosts"
            found.group(group)
        elif kind == "children":
            found.children.setdefault(group, {})[_words(line, number)[0]] = None
        elif kind == "vars":
            key, _, value = line.partition("=")
            found.vars.setdefault(group, {})[key.strip()] = _bare(value.strip())
        else:
            _ini_host(found, group, line, number)
    return found


def _ini_host(found: Inventory, group: str, line: str, number: int) -> None:
    pattern, *rest = _words(line, number)
    variables = dict(word.split("=", 1) for word in rest if "=" in word)
    for host in expanded(pattern):
        found.host(host, variables)
        found.group(group)[host] = None


def _words(line: str, number: int) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as exc:
        raise UsageError(f"line {number} is no line of an inventory: {exc}", hint="mend its quotes") from exc
    if not words or not _NAME.match(words[0]):
        raise UsageError(
            f"line {number} is no line of an inventory: a host's name comes first", hint="is this an Ansible inventory?"
        )
    return words


def _bare(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def expanded(pattern: str) -> Iterator[str]:
    """`web[01:10].example.com` as ten names; a port after a colon is dropped. Raises UsageError for a range that is none."""
    match = _RANGE.search(pattern)
    if not match:
        yield pattern.rpartition(":")[0] if re.fullmatch(r"[^:]+:[0-9]+", pattern) else pattern
        return
    for text in _between(match[1], match[2], int(match[3] or 1), pattern):
        yield from expanded(pattern[: match.start()] + text + pattern[match.end() :])


def _between(first: str, last: str, step: int, pattern: str) -> Iterator[str]:
    if first.isdecimal() != last.isdecimal() or step < 1:
        raise UsageError(f"{pattern!r} has a range that is none")
    if not first.isdecimal():
        yield from (chr(c) for c in range(ord(first), ord(last) + 1, step))
        return
    if int(last) - int(first) > MOST_HOSTS:
        raise UsageError(f"{pattern!r} is more than {MOST_HOSTS:,} hosts", hint="is this a slip of the finger?")
    yield from (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1, step))
