"""What can be asked of a running switch, and done to it. Everything blocks."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from metalimmu.observed.switch import SwitchFacts
from metalimmu.observed.types import WriteRequest


class Said(NamedTuple):
    """What one command gave."""

    status: int
    out: str
    err: str


class Shell(Protocol):
    """Runs commands on one switch, as the login that the site has for it."""

    def run(self, command: str, *, limit: float = 60.0) -> Said:
        """Raises BmcUnreachable (nobody answers, or the connection broke), BmcLoginRefused, HostKeyChanged, ToolError."""
        ...

    def confirm(self) -> None:
        """What has answered is a NOS: a host key that was seen for the first time is kept. ONIE makes one at each boot."""
        ...


class Nos(Protocol):
    """One switch, whatever NOS it runs. What a NOS has no command for raises BmcUnsupported."""

    def facts(self, *only: str) -> SwitchFacts:
        """All of them; or the named ones, since a SONiC takes seconds for each. What NOS it is, is looked at in any case but
        while the same connection goes on: see `probe`.
        """
        ...

    def probe(self) -> SwitchFacts:
        """Which NOS and version, which boot, which slot: of a switch that may have become another."""
        ...

    def boot_id(self) -> str:
        """Of the running kernel: the cheapest sign of life."""
        ...

    def sent(self) -> list[WriteRequest]:
        """Acts so far, in order."""
        ...

    def into_onie(self) -> str:
        """Ask for ONIE's install mode at the next boot, and read it back. Returns what it says now."""
        ...

    def onie_none(self) -> str:
        """Take that back. Returns what it says now."""
        ...

    def reboot(self) -> None:
        """Returns when the NOS has taken it; the connection may break first."""
        ...

    def drain(self) -> None:
        """Lead traffic away; nothing where the NOS has no such command."""
        ...

    def undrain(self) -> None: ...

    def install(self, url: str, sha256: str, *, limit: float) -> str:
        """Fetch an image, check it, put it into the other slot; the running one stays default. Returns the slot's name."""
        ...

    def next_boot(self, slot: str) -> None:
        """Once."""
        ...

    def default(self, slot: str) -> None: ...
