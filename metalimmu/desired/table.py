"""Hosts as CSV: a header of dotted columns, one host per row.

`name,bmc,serial,nics,network.address,location.rack,location.u,labels.tier`. Lists are separated by spaces, empty
cells are fields that are not there. What a cell cannot say (routes, nested vars) is said in YAML.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import cache
from typing import Any

from msgspec import inspect
from yaml import Mark
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from metalimmu.desired.documents import Source
from metalimmu.desired.explain import described
from metalimmu.desired.problems import Problem, nearest, quoted, visible
from metalimmu.desired.types import Host

_BOOL = {"true": True, "yes": True, "false": False, "no": False}
_TAG = "tag:yaml.org,2002:"

Convert = Callable[[str], Any]
Row = dict[str, Any]


def parse(file: str, data: bytes, problems: list[Problem]) -> tuple[Source, list[Row]]:
    """The rows as nested dictionaries, typed as far as the columns say; a wrong cell stays text, for the types to refuse."""
    lines: list[int] = []
    rows: list[Row] = []
    source = Source(file, lambda: _nodes(rows, lines), hosts=True)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        bad = f"the byte 0x{data[exc.start]:02x}"
        line = data.count(b"\n", 0, exc.start) + 1
        problems.append(Problem(file, line, "", "UTF-8 text", bad, "save the file as UTF-8"))
        return source, []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return source, []
        columns = _columns(file, [c.strip() for c in header], problems)
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(header):
                got, write = f"{len(cells)}", "quote cells that contain a comma"
                problems.append(Problem(file, reader.line_num, "", f"{len(header)} cells", got, write))
                continue
            lines.append(reader.line_num)
            rows.append(_row(columns, cells))
    except csv.Error as exc:
        problems.append(
            Problem(file, reader.line_num or 1, "", "valid CSV", visible(str(exc)), "mend the quotes of this line")
        )
    return source, rows


def _row(columns: list[tuple[tuple[str, ...], Convert] | None], cells: list[str]) -> Row:
    row: Row = {}
    for column, cell in zip(columns, cells, strict=True):
        if column is None or not cell or not (text := cell.strip()):
            continue
        path, convert = column
        place = row
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = convert(text)
    return row


def _columns(file: str, header: list[str], problems: list[Problem]) -> list[tuple[tuple[str, ...], Convert] | None]:
    known = columns()
    out: list[tuple[tuple[str, ...], Convert] | None] = []
    for i, name in enumerate(header):
        first, _, rest = name.partition(".")
        if name in header[:i]:
            problems.append(
                Problem(file, 1, visible(name), "each column once", f"{quoted(name)} again", "keep one of them")
            )
        elif first in {"labels", "vars"} and rest:
            out.append(((first, rest), str))
            continue
        elif name in known:
            out.append((tuple(name.split(".")), known[name]))
            continue
        else:
            words = [*known, "labels.KEY", "vars.KEY"]
            problems.append(Problem(file, 1, visible(name), "a known column", quoted(name), nearest(name, words)))
        out.append(None)
    return out


@cache
def columns() -> dict[str, Convert]:
    """All columns but labels.KEY and vars.KEY, with what makes a cell a value."""
    return dict(_leaves(described(Host), ""))


def _leaves(type_: inspect.Type, name: str) -> list[tuple[str, Convert]]:
    while isinstance(type_, (inspect.Metadata, inspect.UnionType)):
        type_ = type_.type if isinstance(type_, inspect.Metadata) else type_.types[0]
    if isinstance(type_, inspect.StructType):
        return [
            leaf for f in type_.fields for leaf in _leaves(f.type, f"{name}.{f.encode_name}" if name else f.encode_name)
        ]
    if isinstance(type_, inspect.ListType):
        return [] if name.endswith("routes") else [(name, str.split)]
    if isinstance(type_, inspect.BoolType):
        return [(name, lambda text: _BOOL.get(text.lower(), text))]
    if isinstance(type_, inspect.IntType):
        return [(name, lambda text: int(text) if text.isdecimal() and len(text) < 19 else text)]
    return [] if isinstance(type_, inspect.DictType) else [(name, str)]


def _nodes(rows: list[Row], lines: list[int]) -> Node:
    """The rows as YAML nodes, so that one explanation serves both formats."""
    first = Mark("", 0, 0, 0, None, 0)
    return SequenceNode(_TAG + "seq", [_node(r, n - 1) for r, n in zip(rows, lines, strict=True)], first, first)


def _node(value: object, line: int) -> Node:
    mark = Mark("", 0, line, 0, None, 0)
    if isinstance(value, dict):
        return MappingNode(_TAG + "map", [(_node(k, line), _node(v, line)) for k, v in value.items()], mark, mark)
    if isinstance(value, list):
        return SequenceNode(_TAG + "seq", [_node(v, line) for v in value], mark, mark)
    if isinstance(value, bool):
        return ScalarNode(_TAG + "bool", str(value).lower(), mark, mark)
    tag = "int" if isinstance(value, int) else "str"
    return ScalarNode(_TAG + tag, str(value), mark, mark)
