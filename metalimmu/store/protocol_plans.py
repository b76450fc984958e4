"""Saved plans that are carried out, and what planning reads of the store: `store.plans`. The rules of protocol.Store hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from metalimmu.store.records import Record


class PlanRecord(Record, frozen=True, kw_only=True):
    """A saved plan that was applied: what its hosts are to become, and who said so."""

    digest: str
    head: dict[str, Any] = {}  # its content without hosts and shared parts
    approvals: str = ""  # the signatures that counted, as in FILE.approvals
    by: str = ""  # who applied it
    applied: float = 0.0
    work: str = ""  # the rollout or run that carries it out


class Memories:
    """What the store knows of all hosts, read at one moment."""

    __slots__ = ("hosts", "looks", "seconds")

    def __init__(
        self,
        hosts: dict[str, tuple[str, str, str | None, str | None, str | None]],
        looks: dict[str, tuple[str, float]],
        seconds: dict[str, str],
    ) -> None:
        self.hosts = hosts
        """(state, proof, image, digest, quarantine as JSON) by host."""
        self.looks = looks
        """(newest look as JSON, when it was last seen so) by host."""
        self.seconds = seconds
        """Seconds of each step of the newest good run, as JSON, by host."""


class PlanStore(Protocol):
    def keep(self, record: PlanRecord, hosts: Iterable[tuple[str, bytes]]) -> PlanRecord:
        """`hosts`: name and plan, as JSON. A second one of the same digest returns what is there.
        Plans of hosts are dropped when the rollout that carries them out has ended: runs have their own.
        """
        ...

    def get(self, digest: str) -> PlanRecord | None: ...

    def of_host(self, digest: str, host: str) -> bytes | None: ...

    def memories(self, look: str) -> Memories:
        """`look`: the kind of observation that has what BMCs said for a plan."""
        ...
