"""Texts kept once, by number: a fleet of 10,000 hosts says the same few words 2.8 million times."""

from __future__ import annotations

import sqlite3

_REMEMBERED = 100_000


class Interned:
    """One table of numbered texts. Numbers never change, so both directions are remembered in memory, within a bound.

    `number` belongs in a write transaction; when that is rolled back, call `forget`: its numbers are given again.
    """

    def __init__(self, table: str, column: str) -> None:
        self._find = f"SELECT id FROM {table} WHERE {column} = ?"  # noqa: S608  # our own names
        self._add = f"INSERT INTO {table} ({column}) VALUES (?)"  # noqa: S608
        self._read = f"SELECT {column} FROM {table} WHERE id = ?"  # noqa: S608
        self._numbers: dict[str, int] = {}
        self._texts: dict[int, str] = {}

    def number(self, conn: sqlite3.Connection, text: str) -> int:
        known = self._numbers.get(text)
        if known is not None:
            return known
        row = conn.execute(self._find, (text,)).fetchone()
        number = int(row[0]) if row else int(conn.execute(self._add, (text,)).lastrowid or 0)
        if len(self._numbers) >= _REMEMBERED:
            self.forget()
        self._numbers[text] = number
        return number

    def find(self, conn: sqlite3.Connection, text: str) -> int | None:
        """None: nothing was ever called so."""
        row = conn.execute(self._find, (text,)).fetchone()
        return int(row[0]) if row else None

    def text(self, conn: sqlite3.Connection, number: int) -> str:
        known = self._texts.get(number)
        if known is None:
            known = str(conn.execute(self._read, (number,)).fetchone()[0])
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            self._texts[number] = known
        return known

    def forget(self) -> None:
        self._numbers.clear()
        self._texts.clear()


class Words:
    """The two tables of texts of one store: names of settings, and everything else."""

    def __init__(self) -> None:
        self.settings = Interned("settings", "name")
        self.texts = Interned("texts", "text")

    def forget(self) -> None:
        self.settings.forget()
        self.texts.forget()
