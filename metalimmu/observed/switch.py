"""What a switch says of itself, over SSH: facts of its NOS, its pair, its ports and neighbours."""

from __future__ import annotations

from typing import Any

import msgspec


class Bond(msgspec.Struct, frozen=True, kw_only=True):
    """A port channel that is part of a pair."""

    name: str
    up: bool
    dual: bool  # both switches carry it


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A switch's own view of its MLAG pair."""

    alive: bool  # the session with its peer
    backup: bool | None  # the second way to the peer; None: it does not say
    link: bool | None  # the link between the two; None: it does not say
    has_backup: bool = True  # does this NOS know a second way at all?
    role: str = ""
    bonds: tuple[Bond, ...] = ()


class Neighbour(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """By LLDP (IEEE 802.1AB)."""

    port: str
    system: str
    remote_port: str = ""

    def __str__(self) -> str:
        return f"{self.port} to {self.system} {self.remote_port}".rstrip()


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """Images installed beside each other."""

    current: str
    next: str
    available: tuple[str, ...] = ()


class SwitchFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. Sizes in bytes. What could not be read is empty or None, and `unknown` says why, by name."""

    nos: str  # the adapter: sonic | cumulus | lab
    version: str
    build_id: str = ""
    serial: str = ""
    platform: str = ""
    base_mac: str = ""  # lower case, colons
    mgmt_mac: str = ""
    boot_id: str = ""
    memory: int = 0  # MemTotal
    space: int = 0  # free, where images are kept
    links: dict[str, str] = {}  # port -> up | down | ...
    controller_port: str = ""  # through which it reaches us
    mgmt_port: str = "eth0"
    neighbours: tuple[Neighbour, ...] = ()
    pair: Pair | None = None
    onie_mode: str = ""  # what the next boot into ONIE would do; `unknown`: not set
    nos_mode: str = ""  # yes: ONIE knows that a NOS is installed
    slots: Slots | None = None
    traffic: str = ""  # normal | maintenance; empty: this NOS has no such thing
    ztp: str = ""
    config: str = ""  # the running NOS's saved configuration, as text; empty and not in `unknown`: there is none
    unknown: dict[str, str] = {}

    def brief(self) -> dict[str, Any]:
        """For evidence: without the config, which may have secrets."""
        found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, config=""))
        return {k: v for k, v in found.items() if v not in ("", None, {}, [])}
