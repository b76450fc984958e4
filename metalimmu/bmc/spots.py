"""Where to look for BMCs: networks, ranges, addresses and lists of them, each address once. Pure but for reading lists."""

from __future__ import annotations

import csv
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from metalimmu.errors import UsageError

Scheme = Literal["any", "redfish+https", "redfish+http", "redfish-raw+https", "ipmi"]
Net = ipaddress.IPv4Network | ipaddress.IPv6Network

LARGEST = 1 << 16
"""Addresses that one sweep looks at without being told that this is meant: a /16."""
ABSURD = 1 << 24
"""And at all: a /8, or nothing of IPv6 that is worth a sweep."""

_RANGE = re.compile(r"^([0-9a-fA-F.:]+)-([0-9a-fA-F.:]+)$")
_WITH_PORT = re.compile(r"^([0-9a-fA-F.:]+/[0-9]+|[0-9.]+-[0-9.]+):([1-9][0-9]{0,5})$")
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?$")
_COLUMNS = ("bmc", "bmc_address", "address", "ip", "oob_ip", "host")


class Spot(msgspec.Struct, frozen=True):
    """One address to look at. `port` 0: the usual one of each protocol."""

    host: str
    port: int = 0
    scheme: Scheme = "any"

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name + (f":{self.port}" if self.port else "")


class Spots(msgspec.Struct, frozen=True):
    networks: tuple[tuple[Net, int], ...]  # each with a port as in Spot; of one port none overlaps another
    single: tuple[Spot, ...]  # in none of the networks, unless with a port or a scheme of its own

    def __len__(self) -> int:
        return len(self.single) + sum(_usable(n) for n, _ in self.networks)

    def __iter__(self) -> Iterator[Spot]:
        yield from self.single
        for network, port in self.networks:
            yield from (Spot(str(a), port) for a in network.hosts())


def parse(items: Iterable[str], *, ports: Sequence[int] = (), large: bool = False) -> Spots:
    """From CIDRs, ranges (`10.0.0.5-10.0.0.9`), addresses, each with or without port, host names and BMC addresses with their
    scheme. `ports`: of all that name none, unless they are IPMI's.

    What overlaps is looked at once. Raises UsageError for what is none of these, for nothing at all, and for more than
    65,536 addresses unless `large`.
    """
    networks: dict[int, list[Net]] = {}
    spots: dict[Spot, None] = {}
    for item in items:
        found, port = _networks(item)
        if found:
            for each in (port,) if port else ports or (0,):
                networks.setdefault(each, []).extend(found)
        else:
            spot = _spot(item)
            own = spot.port or not ports or spot.scheme == "ipmi"
            spots |= {spot: None} if own else {Spot(spot.host, p, spot.scheme): None for p in ports}
    merged = tuple((n, port) for port, nets in networks.items() for n in _merged(nets))
    single = tuple(s for s in spots if s.scheme != "any" or not _within(s, merged))
    result = Spots(merged, single)
    # Sizes are summed here: len() of more than 2**63 is an OverflowError.
    count = len(single) + sum(_usable(n) for n, _ in merged)
    if count == 0:
        raise UsageError("no address to look at", hint="name networks, addresses, or a file with one of them per line")
    if count > ABSURD or (count > LARGEST and not large):
        widest = max((n for n, _ in merged), key=_usable, default=None)
        raise UsageError(
            f"{count:,} addresses are to be looked at ({widest} alone has {_usable(widest) if widest else 0:,})",
            hint="name smaller networks" + ("" if count > ABSURD else "; --yes if you mean all of them"),
        )
    return result


def read(text: str) -> list[str]:
    """The items of a list: one per line, `#` begins a comment. Of a table (CSV) the column bmc, address, ip or the like."""
    lines = [line for line in (raw.partition("#")[0].strip() for raw in text.splitlines()) if line]
    if not lines:
        return []
    header = [c.strip().lower() for c in next(csv.reader([lines[0]]))]
    column = next((header.index(c) for c in _COLUMNS if c in header), None)
    if column is None:
        return [re.split(r"[,;\s]", line, maxsplit=1)[0] for line in lines]
    rows = (row for row in csv.reader(lines[1:]) if len(row) > column)
    return [row[column].strip() for row in rows if row[column].strip()]


def _networks(item: str) -> tuple[list[Net], int]:
    """The networks of a CIDR or a range, and the port after it or 0. Raises UsageError for one that is none."""
    text, port = item, 0
    if match := _WITH_PORT.match(item):
        text, port = match[1], int(match[2])
    if port > 65535:
        raise UsageError(f"{item!r}: there is no port {port}", hint="write 10.0.0.0/24:8443")
    try:
        if "/" in text and "://" not in text:
            return [ipaddress.ip_network(text, strict=False)], port
        if match := _RANGE.match(text):
            first = ipaddress.ip_address(match[1])
            last = ipaddress.ip_address(match[2] if "." in match[2] or ":" in match[2] else _last(match[1], match[2]))
            return list(ipaddress.summarize_address_range(first, last)), port
    except (ValueError, TypeError) as exc:
        raise UsageError(
            f"{item!r} is no network or range: {exc}",
            hint="write 10.0.0.0/24 or 10.0.0.5-10.0.0.9, with :8443 after it where BMCs have another port",
        ) from exc
    return [], 0


def _last(first: str, ending: str) -> str:
    """`10.0.0.5-9`"""
    return first.rpartition(".")[0] + "." + ending


def _spot(item: str) -> Spot:
    scheme, found, rest = item.partition("://")
    known = {"https": "redfish+https", "http": "redfish+http"}
    word = known.get(scheme, scheme) if found else "any"
    if word not in ("any", "redfish+https", "redfish+http", "redfish-raw+https", "ipmi"):
        raise UsageError(
            f"{item!r} is no address of a BMC", hint="write ADDRESS, redfish+https://ADDRESS or ipmi://ADDRESS"
        )
    bare = rest if found else item
    if bare.count(":") > 1 and not bare.startswith("["):
        bare = f"[{bare}]"
    try:
        parts = urlsplit(f"//{bare}")
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        host, port = "", 0
    if not _is_host(host) or parts.path.strip("/") or parts.username:
        raise UsageError(
            f"{item!r} is no address, network or file", hint="for example 10.0.0.0/24, 10.0.0.7:8443 or bmcs.txt"
        )
    return Spot(_plain(host), port, word)  # type: ignore[arg-type]


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # 10.0.0.300 is a mistake, not a name
        return bool(_HOST.match(host)) and not re.fullmatch(r"[0-9.]+", host)
    return True


def _plain(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")


def _merged(networks: list[Net]) -> tuple[Net, ...]:
    four = [n for n in networks if isinstance(n, ipaddress.IPv4Network)]
    six = [n for n in networks if isinstance(n, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))


def _within(spot: Spot, networks: tuple[tuple[Net, int], ...]) -> bool:
    try:
        address = ipaddress.ip_address(spot.host)
    except ValueError:
        return False
    # The first and last address of a network are no hosts: named by themselves they are looked at all the same.
    return any(
        address in n and (n.num_addresses <= 2 or address not in (n.network_address, n.broadcast_address))
        for n, port in networks
        if n.version == address.version and port == spot.port
    )


def _usable(network: Net | None) -> int:
    if network is None:
        return 0
    size = network.num_addresses
    if size <= 2:
        return size
    return size - (2 if network.version == 4 else 1)


def host(address: str) -> str:
    """`[fd00::1]:443` and `10.0.0.1:443` without their ports."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def order(address: str) -> tuple[int, int, str]:
    """Sorts addresses as numbers, names after them."""
    try:
        found = ipaddress.ip_address(host(address))
    except ValueError:
        return 9, 0, address
    return found.version, int(found), address
