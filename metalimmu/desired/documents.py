"""YAML text to values, safely, and to lines when something is wrong.

The C loader does the work. A file is composed a second time, for its nodes with their lines, only to explain a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from metalimmu.desired.problems import Path, Problem, dotted, quoted, visible

MAX_BYTES = 64 << 20  # of one file: 10,000 hosts take about 5 MB
MAX_DEPTH = 100  # libyaml's composer recurses in C: 200,000 brackets end the process with a segmentation fault
MAX_EXPANDED = 1_000_000  # values after aliases and merges

# What PyYAML's constructors raise for text that only looks like a date, a number or a set: ValueError for the
# date 2026-13-45 and for numbers of 5,000 digits, AttributeError for `!!timestamp x`, TypeError for odd keys.
CONSTRUCTION = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)

MERGE = "tag:yaml.org,2002:merge"
_HINTS = {
    "mapping values are not allowed": 'quote text that has ": " in it, and check the indentation',
    "cannot start any token": "indent with spaces, not tabs, and quote text that starts with @, ` or %",
    "could not find expected ':'": 'write "field: value", with a space after the colon',
    "expected a single document": "remove the line ---: a file is one document",
    "unknown escape character": "use single quotes, or double the backslash",
    "tab character": "indent with spaces, not tabs",
    "determine a constructor": "remove the tag (the word after !)",
    "undefined alias": "define it before with &NAME",
}


class TooMuch(yaml.YAMLError):
    """Deeper, or larger after its aliases, than any document of a site."""

    def __init__(self, got: str, line: int) -> None:
        super().__init__(got)
        self.got = got
        self.line = line


class _Loader(yaml.CSafeLoader):
    """Counts depth where the C composer calls back anyway, and sees when a mapping lost a key."""

    depth = 0
    lost_keys = False

    def descend_resolver(self, parent: Node | None, _index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooMuch(f"more than {MAX_DEPTH} levels", parent.start_mark.line + 1 if parent else 1)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            self.lost_keys = True  # a key twice, or a merged key that is overridden: the nodes tell which
        return mapping


class Source:
    """One file of the site; knows the lines of its fields once somebody asks."""

    def __init__(self, file: str, compose: Callable[[], Node | None], *, hosts: bool = False) -> None:
        self.file = file
        self._compose = compose
        self._hosts = hosts

    @cached_property
    def root(self) -> Node | None:
        try:
            return self._compose()
        except CONSTRUCTION:
            return None

    def node(self, path: Path) -> Node | None:
        """The node at `path`, or its nearest ancestor that is written down."""
        node = self.root
        for part in path:
            below = child(node, part)
            if below is None:
                return node
            node = below
        return node

    def line(self, path: Path) -> int:
        node = self.node(path)
        return node.start_mark.line + 1 if node is not None else 1

    def key_line(self, path: Path) -> int:
        """Where the field's name stands: for values that are not there, or fields that should not be."""
        parent = self.node(path[:-1])
        if isinstance(parent, MappingNode):
            for key, _ in pairs(parent):
                if key.value == path[-1]:
                    return int(key.start_mark.line) + 1
        return self.line(path)

    def field(self, path: Path) -> str:
        """Dotted; in files of hosts the first part is the host's name instead of its index."""
        if not self._hosts:
            return dotted(path)
        index, rest = (path[0], path[1:]) if path and isinstance(path[0], int) else (None, path)
        name = child(self.node(() if index is None else (index,)), "name")
        if isinstance(name, ScalarNode) and name.value:
            return dotted((name.value, *rest))
        return dotted((f"host {(index or 0) + 1}" if path else "", *rest)) if path else ""

    def problem(self, path: Path, expected: str, got: str, write: str, *, line: int | None = None) -> Problem:
        return Problem(self.file, line or self.line(path), self.field(path), expected, got, write)


def child(node: Node | None, part: str | int) -> Node | None:
    if isinstance(node, SequenceNode) and isinstance(part, int):
        return node.value[part] if 0 <= part < len(node.value) else None
    if isinstance(node, MappingNode):
        return next((value for key, value in pairs(node) if key.value == part), None)
    return None


def pairs(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    """Keys and values, each key once: its own (the last one wins, as in PyYAML) before merged ones (`<<`)."""
    own: dict[str, tuple[Node, Node]] = {}
    merged: list[MappingNode] = []
    for key, value in node.value:
        if key.tag == MERGE:
            candidates = value.value if isinstance(value, SequenceNode) else [value]
            merged += [c for c in candidates if isinstance(c, MappingNode)]
        else:
            own[str(key.value)] = (key, value)
    for other in merged:
        for key, value in pairs(other):
            own.setdefault(str(key.value), (key, value))
    yield from own.values()


def compose(data: bytes) -> Node | None:
    """Raises yaml.YAMLError, TooMuch among them."""
    loader = _Loader(data)
    try:
        return _compose(loader, data)
    finally:
        loader.dispose()


def _compose(loader: _Loader, data: bytes) -> Node | None:
    node = loader.get_single_node()
    if node is not None and b"&" in data and b"*" in data:
        _bound(node)
    return node


def _bound(root: Node) -> None:
    """Refuse aliases that hold themselves, that multiply, or that nest too deep. Visits each node once, without recursion."""
    sizes: dict[int, tuple[int, int]] = {}  # values and levels, aliases followed
    within: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, seen_below = stack.pop()
        line = node.start_mark.line + 1
        below: list[Node] = []
        if not isinstance(node, ScalarNode):
            below = [n for pair in node.value for n in pair] if isinstance(node, MappingNode) else node.value
        if seen_below or not below:
            within.discard(id(node))
            count = 1 + sum(sizes[id(n)][0] for n in below)
            depth = 1 + max((sizes[id(n)][1] for n in below), default=0)
            sizes[id(node)] = count, depth
            if count > MAX_EXPANDED:
                raise TooMuch(f"aliases that make more than {MAX_EXPANDED:,} values", line)
            if depth > MAX_DEPTH:
                raise TooMuch(f"aliases that make more than {MAX_DEPTH} levels", line)
        elif id(node) in within:
            raise TooMuch("an alias inside of what it names", line)
        elif id(node) not in sizes:
            within.add(id(node))
            stack.append((node, True))
            stack += [(n, False) for n in below if id(n) not in sizes]


def parse(file: str, data: bytes, problems: list[Problem], *, hosts: bool = False) -> tuple[Source, Any]:
    """The file's value: None when it is empty or when it cannot be read, which `problems` then says."""
    source = Source(file, lambda: compose(data), hosts=hosts)
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        bad = f"the byte 0x{data[exc.start]:02x}"
        problems.append(Problem(file, line, "", "UTF-8 text", bad, "save the file as UTF-8"))
        return source, None
    try:
        loader = _Loader(data)
        try:
            node = _compose(loader, data)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except CONSTRUCTION as exc:
        problems.append(_syntax(file, data, source, exc))
        return source, None
    if loader.lost_keys:
        problems += _duplicates(source)
    return source, value


def _syntax(file: str, data: bytes, source: Source, exc: Exception) -> Problem:
    expected = "valid YAML"
    if isinstance(exc, TooMuch):
        return Problem(file, exc.line, "", "a document of a sane size", exc.got, "write it out, or split the file")
    if isinstance(exc, yaml.MarkedYAMLError):
        mark = exc.problem_mark or exc.context_mark
        got = visible(str(exc.problem or exc.context), 200)
        hint = next((h for text, h in _HINTS.items() if text in got), "mend the YAML at this line or the one above")
        return Problem(file, mark.line + 1 if mark else 1, "", expected, got, hint)
    if isinstance(exc, yaml.reader.ReaderError):
        line = data.count(b"\n", 0, exc.position) + 1
        return Problem(
            file, line, "", expected, f"the character {_shown(exc.character)}", "remove it, or quote and escape it"
        )
    for path, node in walk(source.root):
        if isinstance(node, ScalarNode) and not _constructs(node):
            return source.problem(
                path,
                "a value",
                f"{visible(node.value)}, which cannot be read as {kind(node)}",
                f"write {quoted(node.value)} in quotes",
            )
    return Problem(file, 1, "", expected, visible(f"{type(exc).__name__}: {exc}", 200), "write it more simply")


def _shown(character: str | int) -> str:
    """The C loader gives a number, the Python one a character."""
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _constructs(node: ScalarNode) -> bool:
    loader = _Loader(b"")
    try:
        loader.construct_document(node)
    except CONSTRUCTION:
        return False
    finally:
        loader.dispose()
    return True


def walk(root: Node | None) -> Iterator[tuple[Path, Node]]:
    """All nodes with their paths, each node once."""
    stack: list[tuple[Path, Node]] = [((), root)] if root is not None else []
    seen: set[int] = set()
    while stack:
        path, node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield path, node
        if isinstance(node, SequenceNode):
            stack += [((*path, i), n) for i, n in reversed(list(enumerate(node.value)))]
        elif isinstance(node, MappingNode):
            stack += [((*path, str(k.value)), v) for k, v in reversed(node.value)]


def _duplicates(source: Source) -> Iterator[Problem]:
    for path, node in walk(source.root):
        if not isinstance(node, MappingNode):
            continue
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == MERGE:
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in first:
                got = f"{visible(key.value)} again (first on line {first[key.tag, key.value]})"
                yield source.problem((*path, key.value), "each field once", got, "keep one of them", line=line)
            else:
                first[key.tag, key.value] = line


def kind(node: Node) -> str:
    """The YAML type in words."""
    tag = node.tag.rpartition(":")[2]
    names = {"int": "a number", "float": "a number", "bool": "yes or no", "null": "nothing", "timestamp": "a date"}
    names |= {"str": "text", "map": "a mapping", "seq": "a list", "binary": "base64"}
    return names.get(tag, f"a {tag}")
