"""Of which version the engine's database is: DBOS itself opens one of a newer DBOS without a word."""

from __future__ import annotations

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path

from metalimmu.errors import StoreError


def of_file(path: Path) -> int | None:
    """The version of its tables; None: there are none. Changes nothing. Raises StoreError for what is no database."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as conn:
            there = conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'dbos_migrations'").fetchone()
            row = conn.execute("SELECT max(version) FROM dbos_migrations").fetchone() if there else None
    except sqlite3.Error as exc:
        raise StoreError(f"the engine's database {path} cannot be read: {exc}") from exc
    return int(row[0]) if row and row[0] is not None else None


def known() -> int | None:
    """The version that the installed DBOS makes; None: this DBOS does not say (it is no part of its public face)."""
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        from dbos._migration import sqlite_migrations

        return len(sqlite_migrations)
    return None


def check(path: Path) -> None:
    """Raises StoreError when the file was made by a newer program; nothing was changed then."""
    newest = known()
    if newest is None:
        return
    found = of_file(path)
    if found is not None and found > newest:
        raise StoreError(
            f"{path} is newer than this program: its tables are of version {found}, this one knows {newest}",
            hint="use the metalimmu that made it, or a newer one; this one changed nothing",
        )
