"""Every way in which a document is not what its type says: a walk over the YAML nodes beside msgspec's description of the type.

msgspec itself stops at the first error and does not know lines; this runs only after it has said no.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from msgspec import inspect
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from metalimmu.desired.documents import Source, kind, pairs
from metalimmu.desired.problems import Path, Problem, listed, nearest, quoted, visible

_TRUE_WORDS = {"true", "yes", "on"}
_FALSE_WORDS = {"false", "no", "off"}


@cache
def described(kind_: object) -> inspect.Type:
    return inspect.type_info(kind_)


def explain(source: Source, kind_: object, path: Path = (), *, error: str = "") -> list[Problem]:
    """What is wrong with the value at `path`. At least one problem: `error`, msgspec's own words, when the walk finds none."""
    node = source.node(path) or MappingNode("tag:yaml.org,2002:map", [])  # an empty file says nothing
    found = list(_walk(source, node, described(kind_), path))
    return found or [source.problem(path, "a valid document", visible(error, 200), "compare with `metalimmu schema`")]


def _walk(source: Source, node: Node, type_: inspect.Type, path: Path) -> Iterator[Problem]:
    type_, help_ = _unwrap(type_)
    if isinstance(type_, inspect.UnionType):
        yield from _union(source, node, type_, path)
    elif isinstance(type_, inspect.StructType):
        yield from _struct(source, node, type_, path)
    elif isinstance(type_, inspect.ListType):
        if not isinstance(node, SequenceNode):
            yield source.problem(path, "a list", got(node), "write [a, b], or one item per line after -")
            return
        for i, item in enumerate(node.value):
            yield from _walk(source, item, type_.item_type, (*path, i))
    elif isinstance(type_, inspect.DictType):
        yield from _mapping(source, node, type_, path)
    else:
        yield from _scalar(source, node, type_, path, help_)


def _unwrap(type_: inspect.Type) -> tuple[inspect.Type, dict[str, object]]:
    help_: dict[str, object] = {}
    while isinstance(type_, inspect.Metadata):
        help_ |= type_.extra_json_schema or {}
        type_ = type_.type
    return type_, help_


def _union(source: Source, node: Node, type_: inspect.UnionType, path: Path) -> Iterator[Problem]:
    if kind(node) == "nothing" and any(isinstance(t, inspect.NoneType) for t in type_.types):
        return
    options = _for_node(node, [t for t in type_.types if not isinstance(t, inspect.NoneType)])
    failures = [list(_walk(source, node, t, path)) for t in options]
    if not all(failures):
        return
    if len(failures) == 1 or len(failures[0]) > 1:
        yield from failures[0]
        return
    first = failures[0][0]
    expected = " or ".join(dict.fromkeys(f[0].expected for f in failures))
    yield source.problem(path, expected, first.got, first.write)


def _for_node(node: Node, options: list[inspect.Type]) -> list[inspect.Type]:
    """Of several types the ones that are written so: who writes {...} is told what is wrong in it, not that text would do."""
    shapes: tuple[type[inspect.Type], ...] = (inspect.StructType, inspect.DictType, inspect.ListType)
    if isinstance(node, MappingNode):
        wanted: tuple[type[inspect.Type], ...] = shapes[:2]
    else:
        wanted = shapes[2:] if isinstance(node, SequenceNode) else ()
    alike = [t for t in options if isinstance(_unwrap(t)[0], wanted or shapes) == bool(wanted)]
    return alike or options


def _struct(source: Source, node: Node, type_: inspect.StructType, path: Path) -> Iterator[Problem]:
    fields = {f.encode_name: f for f in type_.fields}
    if not isinstance(node, MappingNode):
        yield source.problem(
            path, "fields and values", got(node), f"write {_first(fields)}: ... and so on; see `metalimmu schema`"
        )
        return
    given = set()
    for key, value in pairs(node):
        name = str(key.value) if isinstance(key, ScalarNode) else ""
        if name not in fields:
            line = key.start_mark.line + 1
            yield source.problem((*path, name), "a known field", quoted(name), nearest(name, fields), line=line)
            continue
        given.add(name)
        yield from _walk(source, value, fields[name].type, (*path, name))
    for name, field in fields.items():
        if field.required and name not in given:
            expected, example = _expected(*_unwrap(field.type))
            write = f"write {name}: {example}" if example else f"write {name}: and its value"
            yield source.problem((*path, name), expected, "no such field", write, line=source.line(path))


def _first(fields: dict[str, inspect.Field]) -> str:
    return next((name for name, field in fields.items() if field.required), next(iter(fields)))


def _mapping(source: Source, node: Node, type_: inspect.DictType, path: Path) -> Iterator[Problem]:
    if not isinstance(node, MappingNode):
        yield source.problem(path, "keys and values", got(node), "write {key: value}, or remove the field")
        return
    for key, value in pairs(node):
        below = (*path, str(key.value) if isinstance(key, ScalarNode) else "?")
        line = key.start_mark.line + 1
        for p in _walk(source, key, type_.key_type, below):
            yield source.problem(below, f"{p.expected} as the key", p.got, p.write, line=line)
        yield from _walk(source, value, type_.value_type, below)


def _expected(type_: inspect.Type, help_: dict[str, object]) -> tuple[str, str]:
    """What a value of this type is, in words, and an example of it."""
    examples = help_.get("examples")
    example = str(examples[0]) if isinstance(examples, list) and examples else ""
    if isinstance(type_, inspect.LiteralType):
        words = [str(v) for v in type_.values]
        return " or ".join(words), words[0]
    if isinstance(type_, inspect.StrType):
        return str(help_.get("description") or "text"), f'"{example}"' if example else ""
    if isinstance(type_, inspect.IntType):
        low, high = type_.ge, type_.le
        return (f"a whole number from {low} to {high}" if low is not None and high is not None else
                f"a whole number of at least {low}" if low is not None else "a whole number"), example  # fmt: skip
    if isinstance(type_, inspect.BoolType):
        return "true or false", "true"
    if isinstance(type_, inspect.FloatType):
        return "a number", ""
    if isinstance(type_, inspect.UnionType):
        return _expected(*_unwrap(type_.types[0]))
    return ("a list" if isinstance(type_, inspect.ListType) else "fields and values"), ""


def _scalar(source: Source, node: Node, type_: inspect.Type, path: Path, help_: dict[str, object]) -> Iterator[Problem]:
    expected, example = _expected(type_, help_)
    text = node.value if isinstance(node, ScalarNode) else ""
    is_a = kind(node)
    write = f"write {example}" if example else f"write {expected}"
    wrong = True
    if isinstance(type_, inspect.StrType):
        fits = type_.pattern is None or re.search(type_.pattern, text) is not None
        if is_a == "text":
            wrong = not fits
        elif text and is_a != "nothing" and fits:
            write = f"write {quoted(text)} in quotes"
    elif isinstance(type_, inspect.LiteralType):
        wrong = is_a != "text" or text not in type_.values
        words = [str(v) for v in type_.values]
        write = nearest(text, words) if is_a == "text" else f"write one of {listed(words)}"
    elif isinstance(type_, inspect.BoolType):
        wrong = is_a != "yes or no"
        if is_a == "text" and text.lower() in _TRUE_WORDS | _FALSE_WORDS:
            write = f"write {'true' if text.lower() in _TRUE_WORDS else 'false'} without quotes"
    elif isinstance(type_, inspect.IntType):
        value = _integer(node)
        wrong = (
            value is None or not (type_.ge is None or value >= type_.ge) or not (type_.le is None or value <= type_.le)
        )
        if is_a == "text" and re.fullmatch(r"[0-9]{1,18}", text):
            write = f"write {text} without quotes"
    elif isinstance(type_, inspect.FloatType):
        wrong = is_a != "a number"
    else:
        wrong = False  # any value, or a type that documents do not use: msgspec's own words then
    if wrong:
        yield source.problem(path, expected, got(node), write)


def _integer(node: Node) -> int | None:
    if not isinstance(node, ScalarNode) or not node.tag.endswith(":int"):
        return None
    try:
        return int(node.value.replace("_", ""), 0)
    except ValueError:
        pass
    parts = node.value.replace("_", "").split(":")  # octal 0755, sexagesimal 1:30: big enough to be compared
    try:
        return int(node.value, 8) if len(parts) == 1 else sum(int(p) * 60**i for i, p in enumerate(reversed(parts)))
    except ValueError:
        return None


def got(node: Node | None) -> str:
    """The value as YAML understood it, in words: 2.10 is a number 2.1, on is true."""
    is_a = kind(node) if node is not None else "nothing"
    if not isinstance(node, ScalarNode) or is_a == "nothing":
        return is_a
    if is_a == "text":
        return quoted(node.value)
    if is_a == "yes or no":
        return "true" if node.value.lower() in _TRUE_WORDS else "false"
    if is_a == "a number":
        return f"a number {_number(node)}"
    return f"{is_a} {visible(node.value)}"


def _number(node: ScalarNode) -> str:
    if node.tag.endswith(":int"):
        return str(_integer(node))
    try:
        return repr(float(node.value.replace("_", "")))
    except ValueError:
        return visible(node.value)
