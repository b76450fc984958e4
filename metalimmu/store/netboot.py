"""Offers and discovered machines on SQLite; see netboot_records.NetbootStore."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from metalimmu import structs
from metalimmu.store.database import Database
from metalimmu.store.netboot_records import Asked, DiscoveredRecord, OfferRecord, Sighting
from metalimmu.store.rows import Rows
from metalimmu.wire.messages import Assignment

DISCOVERED = Rows(DiscoveredRecord, "discovered", ("mac",))
KEPT = 10_000  # machines: anybody on the segment may make some up

# Only what is needed: many machines of a rack ask within a second, and the offers are looked at again and again.
_OFFERS = """SELECT id, host, fence, asked, offered, assignment FROM deployments
 WHERE ended IS NULL AND offered IS NOT NULL AND failure IS NULL AND stop = '' AND go = 0 AND (stage <> 'done' OR kind <> 'disk')"""

_ASSIGNMENT = structs.decoder(Assignment)


class SqliteNetboot:
    _db: Database

    def offers(self) -> list[OfferRecord]:
        with self._db.read() as conn:
            rows = conn.execute(_OFFERS).fetchall()
        found = []
        for deployment, host, fence, asked, offered, text in rows:
            a = _ASSIGNMENT.decode(text)
            found.append(
                OfferRecord(
                    deployment=deployment, host=host, fence=fence, asked=asked, offered=offered,
                    image=a.image, nics=a.nics, uuid=a.uuid, serial=a.serial,
                )
            )  # fmt: skip
        return found

    def asked(self, questions: Iterable[Asked]) -> None:
        rows = list(questions)
        with self._db.write(durable=False) as conn:
            conn.executemany(
                "UPDATE deployments SET asked = asked + 1, asked_at = ?, last_seen = max(coalesce(last_seen, 0), ?) WHERE id = ?",
                [(q.at, q.at, q.deployment) for q in rows],
            )
            conn.executemany(
                "INSERT INTO events (at, host, run, kind, text, data) VALUES (?, ?, ?, 'netboot', ?, '{}')",
                [(q.at, q.host, q.deployment, q.line) for q in rows],
            )

    def sighted(self, sightings: Iterable[Sighting]) -> None:
        with self._db.write(durable=False) as conn:
            for seen in sightings:
                known = DISCOVERED.get(conn, seen.mac)
                if known is None:
                    DISCOVERED.insert(conn, _record(seen))
                else:
                    DISCOVERED.update(conn, (seen.mac,), _newer(known, seen))
            conn.execute(
                "DELETE FROM discovered WHERE mac IN (SELECT mac FROM discovered ORDER BY last_seen DESC LIMIT -1 OFFSET ?)",
                (KEPT,),
            )

    def discovered(self, *, limit: int = 1000) -> list[DiscoveredRecord]:
        with self._db.read() as conn:
            return DISCOVERED.find(conn, order="last_seen DESC, mac", limit=limit)

    def forget_discovered(self, mac: str) -> None:
        with self._db.write() as conn:
            conn.execute("DELETE FROM discovered WHERE mac = ?", (mac,))


def _record(seen: Sighting) -> DiscoveredRecord:
    fields = {name: getattr(seen, name) for name in DISCOVERED.columns if name != "first_seen"}
    return DiscoveredRecord(first_seen=seen.last_seen, **fields)


def _newer(known: DiscoveredRecord, seen: Sighting) -> dict[str, Any]:
    """GRUB says less than iPXE: what one loader knew stays when the other asks."""
    words = ("uuid", "serial", "vendor", "product", "firmware", "architecture", "via", "address", "why")
    fields = {name: getattr(seen, name) or getattr(known, name) for name in words}
    return {**fields, "last_seen": max(known.last_seen, seen.last_seen), "times": known.times + seen.times}
