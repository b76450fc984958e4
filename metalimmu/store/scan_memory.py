"""What scans have learnt beside the values: who changed what, where a make keeps things, its registries."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import msgspec

from metalimmu import structs
from metalimmu.observed.registry import Registry
from metalimmu.observed.remembered import MakeKey, Remembered
from metalimmu.observed.types import Unknown
from metalimmu.store.rows import Rows
from metalimmu.store.scan_records import BlameRecord
from metalimmu.store.scans import SqliteScans

BLAMES = Rows(BlameRecord, "blames", ("host", "setting", "at"))


class SqliteScanMemory(SqliteScans):
    # blame

    def keep_blame(self, blames: Iterable[BlameRecord]) -> None:
        with self._db.write() as conn:
            for blame in blames:
                conn.execute(
                    "DELETE FROM blames WHERE (host, setting, at) = (?, ?, ?)", (blame.host, blame.setting, blame.at)
                )
                BLAMES.insert(conn, blame)

    def blame(self, host: str, setting: str, at: float) -> BlameRecord | None:
        with self._db.read() as conn:
            return BLAMES.get(conn, host, setting, at)

    # what was learnt of a make

    def remembered(self, key: MakeKey) -> Remembered | None:
        with self._db.read() as conn:
            row = conn.execute(
                "SELECT data FROM bmc_memory WHERE (vendor, model, firmware) = (?, ?, ?)",
                (key.vendor, key.model, key.firmware),
            ).fetchone()
        try:
            return None if row is None else structs.decode(row[0], Remembered)
        except msgspec.MsgspecError:  # of another version of metalimmu: it is learnt again
            return None

    def remember(self, key: MakeKey, remembered: Remembered) -> None:
        data = msgspec.json.encode(remembered).decode()
        with self._db.write(durable=False) as conn:
            conn.execute(
                "INSERT OR REPLACE INTO bmc_memory VALUES (?, ?, ?, ?)", (key.vendor, key.model, key.firmware, data)
            )

    def registry(self, vendor: str, model: str, bios: str) -> Registry | Unknown | None:
        with self._db.read() as conn:
            row = conn.execute(
                "SELECT data FROM registries WHERE (vendor, model, bios) = (?, ?, ?)", (vendor, model, bios)
            ).fetchone()
        return None if row is None else _unpacked(row[0])

    def keep_registry(self, vendor: str, model: str, bios: str, registry: Registry | Unknown) -> None:
        data = zlib.compress(msgspec.json.encode([isinstance(registry, Unknown), registry]))
        with self._db.write() as conn:
            conn.execute(
                "INSERT OR REPLACE INTO registries VALUES (?, ?, ?, ?, ?)", (vendor, model, bios, self._clock(), data)
            )


def _unpacked(data: bytes) -> Registry | Unknown | None:
    try:
        unknown, found = structs.decode(zlib.decompress(data), tuple[bool, msgspec.Raw])
        return structs.decode(found, Unknown) if unknown else structs.decode(found, Registry)
    except (msgspec.MsgspecError, zlib.error):  # of another version of metalimmu: it is fetched again
        return None
