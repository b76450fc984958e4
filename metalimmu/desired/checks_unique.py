"""What only one host may have: name, serial, BMC, MACs, address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit

from metalimmu.desired.collected import Placed
from metalimmu.desired.problems import Path as FieldPath
from metalimmu.desired.problems import Problem, quoted
from metalimmu.desired.resolve import mac
from metalimmu.desired.types import Host


def unique(hosts: list[Placed[Host]]) -> Iterator[Problem]:
    """One dictionary per kind of thing: 10,000 hosts cost a few hundredths of a second."""
    names: dict[str, Placed[Host]] = {}
    serials: dict[str, Placed[Host]] = {}
    bmcs: dict[str, Placed[Host]] = {}
    macs: dict[str, Placed[Host]] = {}
    addresses: dict[str, Placed[Host]] = {}
    for placed in hosts:
        host = placed.value
        if (first := names.setdefault(host.name, placed)) is not placed:
            yield _twice(placed, first, ("name",), "a name", host.name)
        if host.serial and (first := serials.setdefault(host.serial.strip().lower(), placed)) is not placed:
            yield _twice(placed, first, ("serial",), "a serial number", host.serial)
        bmc = bmc_key(host.bmc)
        if bmc and (first := bmcs.setdefault(bmc, placed)) is not placed:
            # One BMC may serve several systems (a chassis, an emulator): then each host names its own.
            if not host.system or not first.value.system:
                write = "write each host's own address, or the system of each"
                yield _twice(placed, first, ("bmc",), "a BMC address without a system", host.bmc, write=write)
            elif (first := bmcs.setdefault(f"{bmc} {host.system}", placed)) is not placed:
                yield _twice(placed, first, ("system",), "a system of this BMC", host.system)
        elif bmc and host.system:
            bmcs.setdefault(f"{bmc} {host.system}", placed)
        network = host.network
        listed = [*host.nics, *(network.nics if network and not host.nics else ())]
        for i, nic in enumerate(listed):
            if (first := macs.setdefault(mac(nic), placed)) is not placed or mac(nic) in map(mac, listed[:i]):
                where: FieldPath = ("nics", i) if host.nics else ("network", "nics", i)
                yield _twice(placed, first, where, "a MAC address", nic)
        if network and network.address:
            address = network.address.partition("/")[0].lower()
            if (first := addresses.setdefault(address, placed)) is not placed:
                yield _twice(placed, first, ("network", "address"), "an address", address)


def _twice(
    placed: Placed[Host], first: Placed[Host], field: FieldPath, what: str, value: str, *, write: str = ""
) -> Problem:
    owner = "in this host" if first is placed else f"as of {first.value.name} ({first.place})"
    write = write or "write the right one at the host that has it wrong"
    return placed.problem(field, f"{what} that no other host has", f"{quoted(value)} {owner}", write)


@lru_cache(maxsize=100_000)
def bmc_key(url: str) -> str:
    """What makes two BMC addresses the same: host, port and path. Empty when the address makes no sense."""
    if url.startswith("fake://"):
        return url  # a name of this process, or a file: no host and port
    try:
        parts = urlsplit(url)
        port = parts.port or {"redfish+http": 80, "ipmi": 623, "ssh": 22}.get(parts.scheme, 443)
    except ValueError:
        return ""
    if not parts.hostname or "@" in parts.netloc or re.search(r"\s", url):
        return ""
    return f"{parts.hostname}:{port}{parts.path.rstrip('/')}"
