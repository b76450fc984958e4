"""What `discover` knows of one BMC: by its service root, by a login, by a ping; and the host document that becomes of it. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from metalimmu.bmc import spots
from metalimmu.bmc.discovery import Sighting
from metalimmu.bmc.identify import Identified
from metalimmu.bmc.service_root import RedfishSeen
from metalimmu.desired.imports import vendor as make_word
from metalimmu.desired.known_hosts import host_name
from metalimmu.desired.makes import make_of
from metalimmu.desired.merge import Candidate
from metalimmu.errors import MetalimmuError
from metalimmu.plan.identity import PLACEHOLDERS


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One BMC. `by` is who told: login, root (the service root, to everybody) or ping (IPMI presence)."""

    address: str
    bmc: str
    by: str
    vendor: str = ""
    make: str = ""
    model: str = ""
    serial: str = ""
    uuid: str = ""
    bmc_model: str = ""
    bmc_firmware: str = ""
    bios: str = ""
    hostname: str = ""
    redfish: str = ""
    ipmi: bool = False
    fingerprint: str = ""
    power: str = ""
    note: str = ""


def unauthenticated(sighting: Sighting) -> Found:
    """What is known without a login."""
    seen, host = sighting.redfish, sighting.spot.host
    if seen is None:
        spot = spots.Spot(host, sighting.spot.port)
        note = "no Redfish" + (f" ({sighting.trouble})" if sighting.trouble else "")
        anonymous = (
            "; it says that it takes a login without name and password"
            if sighting.ipmi and sighting.ipmi.anonymous
            else ""
        )
        return Found(address=str(spot), bmc=f"ipmi://{spot}", by="ping", ipmi=True, note=note + anonymous)
    spot = spots.Spot(host, 0 if seen.port == (443 if seen.tls else 80) else seen.port)
    scheme = sighting.spot.scheme if sighting.spot.scheme not in ("any", "ipmi") else "redfish+https"
    return Found(
        address=str(spot),
        bmc=f"{scheme}://{spot}",
        by="root",
        vendor=seen.vendor,
        make=_make(seen.vendor),
        model=seen.product,
        serial=seen.serial,
        uuid=seen.uuid,
        bmc_model=seen.bmc_model,
        bmc_firmware=seen.bmc_firmware,
        redfish=seen.redfish,
        ipmi=sighting.ipmi is not None,
        fingerprint=seen.fingerprint,
        note="; ".join(_remarks(seen)),
    )


def _make(said: str) -> str:
    return "" if said.strip().lower() in PLACEHOLDERS else make_word(said)


def _remarks(seen: RedfishSeen) -> list[str]:
    found = []
    if not seen.tls:
        found.append("in the clear: no TLS")
    if seen.tls_version in ("SSLv3", "TLSv1", "TLSv1.1"):
        found.append(f"speaks {seen.tls_version} only, which no driver will use")
    if seen.closed:
        found.append("its service root wants a login")
    return found


def with_login(plain: Found, who: Identified | None, failure: MetalimmuError | None) -> Found:
    """What the login told, over what everybody is told."""
    notes = [plain.note, who.note if who else "", failure.message if failure else ""]
    note = "; ".join(n for n in notes if n)
    if who is None:
        return msgspec.structs.replace(plain, note=note)
    vendor = who.vendor or plain.vendor
    return msgspec.structs.replace(
        plain,
        by="login",
        vendor=vendor,
        make=make_of(who.vendor, plain.vendor) or _make(vendor),
        model=who.model or plain.model,
        serial=who.serial or plain.serial,
        uuid=who.uuid or plain.uuid,
        bios=who.bios,
        hostname=who.hostname,
        power=who.power,
        bmc_model=who.bmc_model or plain.bmc_model,
        bmc_firmware=who.bmc_firmware or plain.bmc_firmware,
        redfish=who.redfish or plain.redfish,
        note=note,
    )


def duplicates(found: Iterable[Found]) -> tuple[str, ...]:
    """One line for each serial number that several addresses have."""
    by_serial: dict[str, list[str]] = {}
    for one in found:
        if one.serial:
            by_serial.setdefault(one.serial, []).append(one.address)
    return tuple(
        f"serial number {serial} at {', '.join(addresses)}"
        for serial, addresses in by_serial.items()
        if len(addresses) > 1
    )


def shared(found: Iterable[Found]) -> tuple[str, ...]:
    """One line for each certificate that several hosts have: makers ship one key with many BMCs, and whoever has one of them
    can be any other. A pin of it proves little.
    """
    hosts: dict[str, set[str]] = {}
    for one in found:
        if one.fingerprint:
            hosts.setdefault(one.fingerprint, set()).add(spots.host(one.address))
    return tuple(
        f"{len(names)} BMCs have one and the same certificate ({pin[:16]}...): a pin of it does not tell them apart"
        for pin, names in hosts.items()
        if len(names) > 1
    )


def candidate(found: Found, *, credentials: str | None = None, pin: bool = True, day: str = "") -> Candidate:
    """A host document of one BMC. Named after its serial number, or its address until that is known."""
    fields: dict[str, Any] = {
        "name": host_name(found.serial, f"bmc-{found.address}"),
        "bmc": found.bmc,
        "vendor": found.make,
        "model": found.model,
        "serial": found.serial,
        "credentials": credentials,
    }
    fields = {k: v for k, v in fields.items() if v}
    if pin and found.fingerprint:
        fields["tls"] = {"fingerprint": found.fingerprint}
    how = {"login": "logged in", "root": "not logged in", "ping": "IPMI presence only"}[found.by]
    return Candidate(fields, f"found {day or time.strftime('%Y-%m-%d')} at {found.address}, {how}")
