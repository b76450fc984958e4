"""Records to rows and back: plain fields are columns as they are, structured ones are JSON text."""

from __future__ import annotations

import sqlite3
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from metalimmu import structs
from metalimmu.store.records import Record

R = TypeVar("R", bound=Record)

_PLAIN = (str, int, float, bool)


class Rows(Generic[R]):
    """One table whose columns are the fields of one record type. `conn` is a connection inside a transaction."""

    def __init__(self, kind: type[R], table: str, key: Sequence[str]) -> None:
        self.kind = kind
        self.table = table
        self.key = tuple(key)
        self._types: dict[str, Any] = typing.get_type_hints(kind)
        self.columns = tuple(msgspec.structs.fields(kind)[i].name for i in range(len(msgspec.structs.fields(kind))))
        self._plain = {name: _is_plain(self._types[name]) for name in self.columns}
        readers = [(i, self._reader(name)) for i, name in enumerate(self.columns)]
        self._readers = tuple((i, reader) for i, reader in readers if reader is not None)
        self._select = f"SELECT {', '.join(self.columns)} FROM {table}"  # noqa: S608  # names from our own classes

    def read(self, row: Sequence[Any]) -> R:
        values = list(row)
        for i, reader in self._readers:
            if values[i] is not None:
                values[i] = reader(values[i])
        return self.kind(**dict(zip(self.columns, values, strict=True)))

    def values(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Columns of these fields. Raises TypeError for a field that does not exist or has the wrong type."""
        return {name: self._value(name, value) for name, value in fields.items()}

    def get(self, conn: sqlite3.Connection, *key: Any) -> R | None:
        row = conn.execute(f"{self._select} WHERE {self._where}", key).fetchone()
        return None if row is None else self.read(row)

    def find(
        self,
        conn: sqlite3.Connection,
        where: Mapping[str, Any] | None = None,
        *,
        also: str = "",
        params: Sequence[Any] = (),
        order: str = "",
        limit: int | None = None,
    ) -> list[R]:
        """Rows where all of `where` hold (None values are left out); `also` is more SQL with its own `params`."""
        given = {k: v for k, v in (where or {}).items() if v is not None}
        terms = [f"{k} = ?" for k in given] + ([also] if also else [])
        sql = self._select + (f" WHERE {' AND '.join(terms)}" if terms else "")
        sql += (f" ORDER BY {order}" if order else "") + (f" LIMIT {int(limit)}" if limit is not None else "")
        return [self.read(row) for row in conn.execute(sql, (*given.values(), *params))]

    def insert(self, conn: sqlite3.Connection, record: R, *, without: Sequence[str] = ()) -> bool:
        """False when a row with that key (or another unique column) is there already; then nothing changes."""
        row = self.values({name: getattr(record, name) for name in self.columns if name not in without})
        marks = ", ".join("?" * len(row))
        sql = f"INSERT INTO {self.table} ({', '.join(row)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
        return conn.execute(sql, tuple(row.values())).rowcount == 1

    def update(self, conn: sqlite3.Connection, key: Sequence[Any], fields: Mapping[str, Any]) -> None:
        row = self.values(fields)
        if row:
            sets = ", ".join(f"{name} = ?" for name in row)
            conn.execute(f"UPDATE {self.table} SET {sets} WHERE {self._where}", (*row.values(), *key))  # noqa: S608

    @property
    def _where(self) -> str:
        return " AND ".join(f"{name} = ?" for name in self.key)

    def _value(self, name: str, value: Any) -> Any:
        if name not in self._types:
            raise TypeError(f"{self.kind.__name__} has no field {name!r}")
        if value is None and type(None) in typing.get_args(self._types[name]):
            return None
        try:
            if self._plain[name]:
                plain = structs.convert(value, self._types[name])
                return str(plain) if isinstance(plain, StrEnum) else plain
            text = msgspec.json.encode(value)
            structs.decode(text, self._types[name])
        except (msgspec.MsgspecError, TypeError) as exc:
            raise TypeError(f"{self.kind.__name__}.{name}: {exc}") from exc
        return text.decode()

    def _reader(self, name: str) -> Callable[[Any], Any] | None:
        kind = _without_none(self._types[name])
        if not self._plain[name]:
            return structs.decoder(kind).decode
        if issubclass(kind, StrEnum):
            return {str(word): word for word in kind}.__getitem__
        if kind is bool:
            return bool
        return None


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(k for k in typing.get_args(kind) if k is not type(None))
    return kind


def _is_plain(kind: Any) -> bool:
    inner = _without_none(kind)
    return isinstance(inner, type) and (inner in _PLAIN or issubclass(inner, StrEnum))
