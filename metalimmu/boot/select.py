"""Which deployment is the machine that asks for a boot? Pure.

A boot loader says MAC, SMBIOS UUID and serial number, as far as it knows them. What it says agrees with an offer, is against
it, or says nothing (the offer does not know it, or the text tells no machine from another: all zeros, `Default string`).

1. An offer whose serial number or UUID is against the machine is out: a copied MAC is not a machine. A MAC is never against
   one, since machines boot from NICs that no document names.
2. At least one of the three must agree.
3. The offer that agrees in most of them wins; then serial number before UUID before MAC.
4. Of one host the newest fence wins.
5. Two hosts that are still equal: neither. It is said, and the machine boots its disk.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from metalimmu.plan.identity import is_serial, is_uuid, same_serial, same_uuid

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


@dataclass(frozen=True)
class Asker:
    """As the boot loader says it; empty: it does not say."""

    mac: str = ""  # of the NIC that it boots from; lower case, colons
    uuid: str = ""
    serial: str = ""


@dataclass(frozen=True)
class Offer:
    """A deployment whose machine may boot from the network now."""

    deployment: str
    host: str
    nics: tuple[str, ...] = ()  # lower case, colons
    uuid: str = ""
    serial: str = ""
    fence: int = 0


@dataclass(frozen=True)
class Choice:
    offer: Offer | None
    why: str  # a sentence
    conflict: bool = False  # somebody should look: two machines say that they are one


def asker(mac: str = "", uuid_: str = "", serial: str = "") -> Asker:
    """From what came over the network: a MAC in any usual form, else none. No control characters: it is logged."""
    uuid_, serial = ("".join(c for c in text if c.isprintable()) for text in (uuid_, serial))
    plain = mac.strip().lower().replace("-", ":")
    if re.fullmatch(r"[0-9a-f]{12}", plain):
        plain = ":".join(plain[i : i + 2] for i in range(0, 12, 2))
    known = plain if _MAC.match(plain) and plain not in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff") else ""
    return Asker(known, uuid_.strip() if is_uuid(uuid_) else "", serial.strip() if is_serial(serial) else "")


def choose(machine: Asker, offers: Iterable[Offer]) -> Choice:
    """See above."""
    if machine == Asker():
        return Choice(None, "it does not say who it is")
    ranked: list[tuple[tuple[int, ...], Offer]] = []
    against: list[str] = []
    for offer in offers:
        agrees, contradicts = _compared(machine, offer)
        if any(agrees) and contradicts:
            against.append(f"{offer.host} has another {contradicts}")
        elif any(agrees):
            ranked.append(((sum(agrees), *agrees), offer))
    if not ranked:
        if against:
            return Choice(
                None, f"another machine shows what belongs to one: {'; '.join(sorted(against))}", conflict=True
            )
        return Choice(None, "no deployment is for it")
    best = max(rank for rank, _ in ranked)
    equal = [offer for rank, offer in ranked if rank == best]
    hosts = sorted({offer.host for offer in equal})
    if len(hosts) > 1:
        return Choice(None, f"it could be {' or '.join(hosts)}: nothing that it says tells them apart", conflict=True)
    chosen = max(equal, key=lambda offer: (offer.fence, offer.deployment))
    said = [name for name, yes in zip(("serial number", "UUID", "MAC"), best[1:], strict=True) if yes]
    return Choice(chosen, f"it is {chosen.host} by {' and '.join(said)}")


def keys(machine: Asker) -> list[str]:
    """Where an index of `offer_keys` has all offers that agree with it in anything."""
    found = [f"mac {machine.mac}"] if machine.mac else []
    if machine.serial:
        found.append(f"serial {machine.serial.strip().casefold()}")
    if machine.uuid:
        found.append(f"uuid {uuid.UUID(machine.uuid).hex}")
    return found


def offer_keys(offer: Offer) -> set[str]:
    found = {f"mac {mac}" for mac in offer.nics}
    if is_serial(offer.serial):
        found.add(f"serial {offer.serial.strip().casefold()}")
    if is_uuid(offer.uuid):
        plain = uuid.UUID(offer.uuid)
        found |= {f"uuid {plain.hex}", f"uuid {plain.bytes_le.hex()}"}
    return found


def _compared(machine: Asker, offer: Offer) -> tuple[tuple[int, int, int], str]:
    """Agreement in (serial number, UUID, MAC), and the name of what is against it."""
    serial = same = 0
    contradicts = ""
    if machine.uuid and is_uuid(offer.uuid):
        same = int(same_uuid(machine.uuid, offer.uuid))
        contradicts = "" if same else f"UUID, {offer.uuid} and not {machine.uuid}"
    if machine.serial and is_serial(offer.serial):
        serial = int(same_serial(machine.serial, offer.serial))
        contradicts = contradicts if serial else f"serial number, {offer.serial} and not {machine.serial}"
    return (serial, same, int(bool(machine.mac) and machine.mac in offer.nics)), contradicts
