"""YAML for people and cloud-init, byte for byte as PyYAML writes it in block style, in a fifth of its time.

A fleet's plan renders three small files for each host, of the same few shapes: PyYAML builds a tree of nodes for each. Here
mappings, lists and short scalars are put together as text; how a scalar is quoted is asked of PyYAML, once for each. What
is longer than a line goes to PyYAML whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

_LINE = 76  # PyYAML folds at 80

# What YAML 1.1 takes as text without quotes, of what differs from host to host: names, addresses, MACs (one of digits alone
# is a number to the base of 60).
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+-]*|\d+(\.\d+){3}(/\d+)?|(?=.*[a-f])[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_WORDS = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        """People read these files, and netplan does not promise to know aliases."""
        return True


class _Odd(Exception):
    """Not for the short way."""


def dump(value: object) -> str:
    if not isinstance(value, dict) or not value:
        return _whole(value)
    return "".join(_entry(k, v) for k, v in value.items())


def _entry(key: object, value: object) -> str:
    """An entry of the outermost mapping."""
    try:
        return "".join(f"{line}\n" for line in _mapping({key: value}, ""))
    except _Odd:
        pass
    try:
        text = json.dumps({key: value})
        if json.loads(text) == {key: value}:
            return _again(text)
    except (TypeError, ValueError):
        pass
    return _whole({key: value})


@lru_cache(maxsize=256)
def _again(text: str) -> str:
    """Long values are mostly those of the site: keys of people, certificates."""
    return _whole(json.loads(text))


def _whole(value: object) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True))


def _mapping(value: dict[Any, Any], indent: str) -> Iterator[str]:
    for key, inside in value.items():
        if type(key) is not str:
            raise _Odd
        name = f"{indent}{_scalar(key)}:"
        if type(inside) is dict and inside:
            yield name
            yield from _mapping(inside, indent + "  ")
        elif type(inside) is list and inside:
            yield name
            yield from _list(inside, indent)
        else:
            yield _fitting(f"{name} {_scalar(inside)}")


def _list(value: list[Any], indent: str) -> Iterator[str]:
    for inside in value:
        if type(inside) in (dict, list) and inside:
            lines = (_mapping if type(inside) is dict else _list)(inside, indent + "  ")
            yield f"{indent}- {next(lines)[len(indent) + 2 :]}"
            yield from lines
        else:
            yield _fitting(f"{indent}- {_scalar(inside)}")


def _fitting(line: str) -> str:
    if len(line) > _LINE:
        raise _Odd
    return line


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int:
        return str(value)
    if (
        type(value) is str and len(value) <= _LINE and value.isprintable() and value.isascii()
    ):  # others may become longer
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        return _quoted(value)
    if type(value) in (dict, list) and not value:
        return "{}" if type(value) is dict else "[]"
    raise _Odd


@lru_cache(maxsize=65536)
def _quoted(text: str) -> str:
    return _whole([text])[2:-1]  # as an item of a list: alone it might get a mark of the document's end
