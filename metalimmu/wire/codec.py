"""JSON to dataclasses and back, strictly: a booting machine is untrusted input, and the agent has no msgspec.

Shapes allowed in a wire dataclass: str, int, float, bool, None, nested dataclasses, `X | None`,
`tuple[X, ...]` and `dict[str, X]`. Unknown fields are ignored (an older side reads a newer one);
missing fields take their default or are an error.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from functools import cache
from typing import Any, TypeVar, cast

T = TypeVar("T")

MAX_TEXT = 1 << 20


class WireError(ValueError):
    """The bytes are not the message they claim to be; the text names the field."""


def encode(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. The same value always gives the same bytes."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(cls: type[T], data: bytes | str) -> T:
    """Raises WireError."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise WireError(f"not JSON: {exc}") from exc
    return cast("T", _build(cls, raw, cls.__name__))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(kind: Any, raw: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if raw is None and type(None) in options:
            return None
        return _build(next(o for o in options if o is not type(None)), raw, where)
    if origin is tuple:
        if not isinstance(raw, list):
            raise WireError(f"{where}: expected a list")
        item = typing.get_args(kind)[0]
        return tuple(_build(item, v, f"{where}[{i}]") for i, v in enumerate(raw))
    if origin is dict:
        if not isinstance(raw, dict):
            raise WireError(f"{where}: expected an object")
        item = typing.get_args(kind)[1]
        return {str(k): _build(item, v, f"{where}.{k}") for k, v in raw.items()}
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(cast("type", kind), raw, where)
    return _scalar(kind, raw, where)


def _build_dataclass(kind: type, raw: Any, where: str) -> Any:
    if not isinstance(raw, dict):
        raise WireError(f"{where}: expected an object")
    hints = _hints(kind)
    values: dict[str, Any] = {}
    for f in dataclasses.fields(kind):
        if f.name in raw:
            values[f.name] = _build(hints[f.name], raw[f.name], f"{where}.{f.name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise WireError(f"{where}.{f.name}: missing")
    return kind(**values)


def _scalar(kind: Any, raw: Any, where: str) -> Any:
    if kind is Any:
        return raw
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, kind) or (kind is int and isinstance(raw, bool)):
        raise WireError(f"{where}: expected {kind.__name__}, got {type(raw).__name__}")
    if kind is str and len(raw) > MAX_TEXT:
        raise WireError(f"{where}: text longer than {MAX_TEXT}")
    return raw
