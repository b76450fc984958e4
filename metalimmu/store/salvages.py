"""Which files of old systems were saved: one record per archive. The archives themselves lie in the state folder."""

from __future__ import annotations

from typing import Protocol

from metalimmu.store.database import Database
from metalimmu.store.records import Record
from metalimmu.store.rows import Rows


class SalvageRecord(Record, frozen=True, kw_only=True):
    host: str
    run: str
    name: str  # of the file system on the machine: sda2
    image: str = ""  # name@version that was known to be on the disk, if any
    bytes: int = 0  # of the archive, compressed
    sha256: str = ""  # of the archive
    at: float = 0.0


SALVAGES = Rows(SalvageRecord, "salvages", ("run", "name"))


class SalvageStore(Protocol):
    """The part of the store that is about salvaged files."""

    def salvaged(self, record: SalvageRecord) -> None:
        """In place of what came under that name in the same run before."""
        ...

    def salvages(self, *, host: str | None = None, run: str | None = None, limit: int = 1000) -> list[SalvageRecord]:
        """The newest first."""
        ...

    def forget_salvage(self, run: str, name: str) -> None: ...


class SqliteSalvages:
    _db: Database

    def salvaged(self, record: SalvageRecord) -> None:
        with self._db.write() as conn:
            conn.execute("DELETE FROM salvages WHERE run = ? AND name = ?", (record.run, record.name))
            SALVAGES.insert(conn, record)

    def salvages(self, *, host: str | None = None, run: str | None = None, limit: int = 1000) -> list[SalvageRecord]:
        with self._db.read() as conn:
            return SALVAGES.find(conn, {"host": host, "run": run}, order="at DESC, run, name", limit=limit)

    def forget_salvage(self, run: str, name: str) -> None:
        with self._db.write() as conn:
            conn.execute("DELETE FROM salvages WHERE run = ? AND name = ?", (run, name))
