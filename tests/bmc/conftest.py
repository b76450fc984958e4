"""The Redfish server of the conformance suite serves these tests too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "conformance"))

from redfish_server import PASSWORD, USER, RedfishServer, small_tree

from metalimmu.bmc import credentials
from metalimmu.bmc.connect import Address
from metalimmu.bmc.connector import Timing
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.redfish import RedfishBmc
from metalimmu.desired.types import Tls

Open = Callable[..., RedfishBmc]


@pytest.fixture
def server() -> Iterator[RedfishServer]:
    with RedfishServer(small_tree()) as running:
        yield running


class Clock:
    """Sleeping takes no time, and is counted."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def timing(self) -> Timing:
        return Timing(now=self.now, sleep=self.sleep, jitter=lambda: 0.5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect_to(clock: Clock) -> Iterator[Open]:
    """A driver on a server or an address, closed at the end of the test."""
    opened: list[RedfishBmc] = []

    def make(where: RedfishServer | str, *, password: str = PASSWORD, **more: Any) -> RedfishBmc:
        address = where if isinstance(where, str) else where.address
        target = Address(
            bmc=address,
            tls=more.pop("tls", Tls()),
            proxy=more.pop("proxy", None),
            system=more.pop("system", None),
            connect_timeout=more.pop("connect_timeout", 2.0),
            read_timeout=more.pop("read_timeout", 2.0),
        )
        bmc = RedfishBmc.open(
            target,
            credentials=credentials.make(USER, password) if more.pop("login", True) else None,
            mode=more.pop("mode", "read-write"),
            ledger=more.pop("ledger", None) or MemoryLedger(),
            timing=clock.timing(),
            patience=more.pop("patience", 20.0),
            **more,
        )
        opened.append(bmc)
        return bmc

    yield make
    for bmc in opened:
        bmc.close()
