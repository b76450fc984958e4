"""msgspec's conversions, for several threads.

msgspec builds what it knows of a struct type when the type is first used, and up to 0.22 without a lock: two threads that
are both the first end the process with a segmentation fault (seen in a controller that took up ten runs at once; 0.19 to
0.22 do it in a loop within a second). So whatever turns data into structs comes through here, and each type is built once.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")

_BUILDING = threading.Lock()
_built: set[Any] = set()


@overload
def convert(obj: Any, kind: type[T], *, strict: bool = True) -> T: ...
@overload
def convert(obj: Any, kind: Any, *, strict: bool = True) -> Any: ...
def convert(obj: Any, kind: Any, *, strict: bool = True) -> Any:
    """As msgspec.convert. Raises msgspec.ValidationError."""
    _build(kind)
    return msgspec.convert(obj, kind, strict=strict)


@overload
def decode(data: bytes | str, kind: type[T]) -> T: ...
@overload
def decode(data: bytes | str, kind: Any) -> Any: ...
def decode(data: bytes | str, kind: Any) -> Any:
    """JSON, as msgspec.json.decode. Raises msgspec.DecodeError, or its ValidationError."""
    _build(kind)
    return msgspec.json.decode(data, type=kind)


@overload
def decoder(kind: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def decoder(kind: Any) -> msgspec.json.Decoder[Any]: ...
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """For JSON that is decoded often."""
    with _BUILDING:
        return msgspec.json.Decoder(kind)


def _build(kind: Any) -> None:
    if kind not in _built:
        with _BUILDING:
            msgspec.json.Decoder(kind)
            _built.add(kind)
