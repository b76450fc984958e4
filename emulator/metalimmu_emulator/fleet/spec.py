"""What a fleet is made of, and what it counts. `--mix` and `--faults` as the command line writes them."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.errors import UsageError
from metalimmu_emulator.fleet.faults import Fault

MAKES = ("clean", "dell", "hpe", "lenovo", "supermicro", "openbmc")
NETWORK = "127.80.0.0"
PER_OCTET = 254  # .0 and .255 look like network and broadcast addresses to tools that guess
MOST = 200_000


class Member(msgspec.Struct, frozen=True):
    """One BMC, or `count` alike. `make` is one of MAKES, or the path of a recording (DMTF mockup folder or zip)."""

    make: str
    name: str = ""  # MAKE-000001, and so on
    count: int = 1
    faults: dict[str, dict[str, Any]] = {}

    @property
    def recorded(self) -> bool:
        return self.make not in MAKES


class Counters(msgspec.Struct):
    """Since the start, or since they were cleared. Sums and maxima over a fleet."""

    requests: int = 0
    reads: int = 0
    writes: int = 0  # neither GET nor HEAD, and not a session's own POST and DELETE
    logins: int = 0  # sessions made; a Basic login counts once per connection
    refused_logins: int = 0
    sessions: int = 0  # open now
    most_sessions: int = 0
    connections: int = 0
    open_connections: int = 0
    most_in_flight: int = 0
    errors: int = 0  # answers of 400 and above
    bytes_sent: int = 0  # of bodies
    first: float = 0.0
    last: float = 0.0

    def add(self, other: Counters) -> None:
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name.startswith("most_") or name == "last":
                setattr(self, name, max(mine, theirs))
            elif name == "first":
                self.first = min(mine, theirs) if mine and theirs else mine or theirs
            else:
                setattr(self, name, mine + theirs)


class FleetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that a worker process needs."""

    members: tuple[Member, ...]  # one each, named
    username: str = "operator"
    password: str = "correct horse"  # noqa: S105  # of machines that do not exist
    network: str = NETWORK
    port: int = 0
    tls: bool = True
    latency: float = 0.0
    seed: int = 1
    task_seconds: float = 0.2  # what a firmware update takes before the reset


def address(network: str, index: int) -> str:
    """127.A.B.C of the index-th BMC. Raises UsageError outside of 127.0.0.0/8."""
    start = ipaddress.IPv4Address(network)
    found = start + (index // PER_OCTET) * 256 + index % PER_OCTET + 1
    if not (start.is_loopback and found.is_loopback):
        raise UsageError(f"{network} with {index + 1} BMCs leaves 127.0.0.0/8", hint="begin at 127.80.0.0")
    return str(found)


def expanded(members: list[Member | str]) -> tuple[Member, ...]:
    """One member per BMC, each with a name of its own. Raises UsageError."""
    found: list[Member] = []
    for entry in members:
        member = Member(entry) if isinstance(entry, str) else entry
        if member.recorded and not Path(member.make).exists():
            raise UsageError(
                f"{member.make!r} is neither a make nor a recording",
                hint=f"makes are {', '.join(MAKES)}; a recording is a folder or a zip in DMTF's mockup format",
            )
        for _ in range(member.count):
            number = len(found) + 1
            name = member.name if member.name and member.count == 1 else f"{_stem(member)}-{number:06d}"
            found.append(Member(member.make, name, 1, member.faults))
    names = {m.name for m in found}
    if len(names) != len(found) or not 0 < len(found) <= MOST:
        raise UsageError(f"{len(found)} BMCs with {len(names)} names", hint=f"1 to {MOST}, each with its own name")
    return tuple(found)


def _stem(member: Member) -> str:
    if member.name or not member.recorded:
        return member.name or member.make
    path = Path(member.make)
    return path.stem if path.suffix == ".zip" else path.name


def mixed(bmcs: int, mix: str, faults: str, recordings: list[str], *, seed: int = 1) -> list[Member | str]:
    """`dell=40,hpe=30` (parts, or percent) and `silent=1%,slow=5%:delay=2` over `bmcs`; each recording once more.

    The makes follow each other round and round, so that any range of addresses has all of them. Raises UsageError.
    """
    shares = _shares(mix) if mix else dict.fromkeys(MAKES[1:], 1.0)
    for make in shares:
        if make not in MAKES:
            raise UsageError(f"--mix: there is no persona {make!r}", hint=f"personas are {', '.join(MAKES)}")
    whole, given = sum(shares.values()), dict.fromkeys(shares, 0)
    makes: list[str] = []
    for number in range(1, bmcs + 1):  # the one that is furthest behind its share
        make = max(shares, key=lambda m: shares[m] / whole * number - given[m])
        given[make] += 1
        makes.append(make)
    afflicted: list[dict[str, dict[str, Any]]] = [{} for _ in makes]
    chance = random.Random(seed)  # noqa: S311  # the same fleet each time
    for name, share, parameters in _faults(faults):
        for i in chance.sample(range(bmcs), min(bmcs, round(share * bmcs))):
            afflicted[i][name] = parameters
    members: list[Member | str] = [Member(m, faults=f) for m, f in zip(makes, afflicted, strict=True)]
    return members + list(recordings)


def _shares(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            found[name] = float(share.rstrip("%"))
        except ValueError:
            raise UsageError(f"{part.strip()!r} is not NAME=NUMBER", hint="dell=40,hpe=30 or silent=1%") from None
        if not found[name] >= 0:
            raise UsageError(f"{part.strip()!r}: a share is 0 or more")
    if not sum(found.values()) > 0:
        raise UsageError(f"{text!r}: all shares are 0")
    return found


def _faults(text: str) -> list[tuple[str, float, dict[str, Any]]]:
    """(name, share of the fleet, parameters) of each."""
    found = []
    for part in text.split(",") if text else []:
        head, *given = part.strip().split(":")
        [(name, percent)] = _shares(head).items()
        parameters = {k: _value(v) for k, _, v in (g.partition("=") for g in given)}
        Fault.of(name, parameters)  # a wrong one is refused now, not in a worker
        found.append((name, percent / 100, parameters))
    return found


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
