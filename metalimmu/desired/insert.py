"""Fields put into a YAML text without touching what is there: comments, order and quotes stay. Pure.

A new field goes on a line of its own below one that is there, or behind it within braces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from metalimmu.desired.documents import MERGE

BREAKS = "\x0b\x0c\x0d\x1c\x1d\x1e\x85\u2028\u2029\ufeff"
"""Where a line ends for libyaml or for Python but not for both (a carriage return before a line feed apart)."""

FIRST = ("serial", "bmc", "name")
"""Below which field new ones go, the best first: they are in every host, and one line long."""


class Insertion(NamedTuple):
    """`text` before the character at `line` and `column`, both from 0."""

    line: int
    column: int
    text: str


class CannotInsert(Exception):
    """Nowhere to put it: the message says why."""


def insertions(node: MappingNode, fields: Mapping[str, Any], lines: list[str]) -> Iterator[Insertion]:
    """For `fields` of one mapping; a dictionary goes into the mapping that is there. Raises CannotInsert."""
    own = {k.value: (k, v) for k, v in node.value if isinstance(k, ScalarNode) and k.tag != MERGE}
    new: dict[str, Any] = {}
    for name, value in fields.items():
        below = own.get(name, (None, None))[1]
        if below is None:
            new[name] = value
        elif isinstance(below, MappingNode) and isinstance(value, Mapping):
            if not _inside(below, node):
                raise CannotInsert(f"`{name}` is an alias: what is put into it would be in other hosts too")
            yield from insertions(below, value, lines)
        else:
            raise CannotInsert(f"`{name}` is there already")
    if new:
        yield _insertion(node, own, new, lines)


def _insertion(
    node: MappingNode, own: Mapping[str, tuple[Node, Node]], new: Mapping[str, Any], lines: list[str]
) -> Insertion:
    if not own:
        if not node.flow_style:
            raise CannotInsert("there is no field to put it below")
        return Insertion(node.start_mark.line, node.start_mark.column + 1, _braced(new))
    order = [*(n for n in FIRST if n in own), *own]
    found = next((own[n] for n in order if _one_line(own[n][1])), None)
    if found is None:
        raise CannotInsert("there is no field of one line to put it below")
    key, value = found
    if node.flow_style:
        return Insertion(value.end_mark.line, value.end_mark.column, ", " + _braced(new))
    indent = " " * key.start_mark.column
    text = "".join(f"{indent}{name}: {dumped(v)}\n" for name, v in new.items())
    line = value.end_mark.line
    if line + 1 >= len(lines) and not lines[line].endswith("\n"):
        return Insertion(line, len(lines[line]), "\n" + text)
    return Insertion(line + 1, 0, text)


def _one_line(node: Node) -> bool:
    return (
        isinstance(node, ScalarNode)
        and node.style not in ("|", ">")
        and bool(node.value)
        and node.start_mark.line == node.end_mark.line
    )


def _inside(node: Node, outer: Node) -> bool:
    """Is it written within `outer`, and not an alias of something that stands elsewhere?"""
    start = (node.start_mark.line, node.start_mark.column)
    return (outer.start_mark.line, outer.start_mark.column) <= start < (outer.end_mark.line, outer.end_mark.column)


def _braced(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {dumped(value)}" for name, value in fields.items())


class _OneLine(yaml.CSafeDumper):
    """Text with line breaks in double quotes, where they are escaped."""


def _text(dumper: yaml.CSafeDumper, value: str) -> ScalarNode:
    style = '"' if any(not c.isprintable() for c in value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_OneLine.add_representer(str, _text)


def dumped(value: Any) -> str:
    """On one line, quoted where YAML would see something else, fit to stand within braces too."""
    text = yaml.dump([value], Dumper=_OneLine, default_flow_style=True, allow_unicode=True, width=1 << 30)
    return text.strip()[1:-1].strip()


def apply(lines: list[str], found: Iterable[Insertion]) -> str:
    """The text with all of them, the last first, so that places stay what they were."""
    out = list(lines)
    for place in sorted(found, key=lambda i: (i.line, i.column), reverse=True):
        if place.line >= len(out):
            out.append(place.text)
        else:
            line = out[place.line]
            out[place.line] = line[: place.column] + place.text + line[place.column :]
    return "".join(out)
