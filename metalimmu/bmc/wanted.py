"""What a walk over a BMC is given: whose BMC, which sections, and a memory of its make."""

from __future__ import annotations

from typing import Protocol

import msgspec

from metalimmu.observed.remembered import MakeKey, Remembered


class Target(Protocol):
    """The part of ports.Target that the walk reads."""

    @property
    def name(self) -> str: ...
    @property
    def system(self) -> str | None: ...


class PathMemory(Protocol):
    """Kept by the store. Neither may raise: a memory that is lost costs requests, not the scan."""

    def get(self, key: MakeKey) -> Remembered | None: ...

    def put(self, key: MakeKey, remembered: Remembered) -> None: ...


class Want(msgspec.Struct, frozen=True):
    """Which sections of a Snapshot are read; what is left out is `unknown` with the reason "not read".

    `pending` is the settings object of the BIOS and the jobs that wait; identity, power and hardware.health cost nothing
    and are always there.
    """

    sections: frozenset[str] = frozenset({"bios", "pending", "firmware", "boot", "secure_boot", "bmc"})
    expand: bool = True  # false: plain reads only


EVERYTHING = Want(frozenset({"bios", "pending", "firmware", "boot", "secure_boot", "bmc", "hardware", "cabling"}))
