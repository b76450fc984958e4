"""A fleet of small Redfish servers, and a scan of it, for the collector's tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redfish_server as rs
from redfish_server import PASSWORD, USER, RedfishServer, certificate, small_tree

from metalimmu.bmc import credentials
from metalimmu.bmc.ask import Ask, Asking, Reply, drive
from metalimmu.bmc.collect import Collected, CollectSettings, ScanTarget, collect
from metalimmu.bmc.connect import Address
from metalimmu.bmc.connector import Connector
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.redfish_service import fetch
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcError

SYSTEM = f"{rs.ROOT}/Systems/1"
PATHS = (f"{rs.ROOT}/", f"{rs.ROOT}/Systems", SYSTEM, f"{SYSTEM}/Bios")


class Host(Address, frozen=True, kw_only=True):
    labels: dict[str, str] = {}


class Fleet:
    """TLS servers with one certificate; each is a BMC."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.context, self.ca, self.pin = stack.enter_context(certificate(folder))

    def bmc(self, **more: Any) -> RedfishServer:
        return self._stack.enter_context(RedfishServer(small_tree(), tls=self.context, **more))

    def host(self, server: RedfishServer | str, name: str = "", **more: Any) -> Host:
        address = server if isinstance(server, str) else server.address
        more = {"connect_timeout": 3.0, "read_timeout": 3.0, "tls": Tls(ca=str(self.ca))} | more
        return Host(name=name or address.rpartition(":")[2], bmc=address, **more)


@contextlib.contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(folder, stack)


def read(paths: tuple[str, ...] = PATHS) -> Asking[dict[str, Reply]]:
    """A reader that reads these, whatever happens."""
    found = {}
    for path in paths:
        found[path] = yield Ask(path)
    return found


def drive_over(connector: Connector, reader: Asking[Any]) -> Any:
    """The same readers over the connector that blocks."""
    return drive(reader, lambda ask: fetch(connector, ask))


def statuses(result: Collected[dict[str, Reply]]) -> list[int | type[BmcError]]:
    assert result.value is not None, result.failure
    return [type(r.error) if r.error else r.status for r in result.value.values()]


def login(password: str = PASSWORD) -> Credentials:
    return credentials.make(USER, password)


def scan(
    *hosts: ScanTarget,
    paths: tuple[str, ...] = PATHS,
    password: str | None = PASSWORD,
    reader: Callable[[ScanTarget], Asking[Any]] | None = None,
    limit: float = 30.0,
    budget: Any = None,
    ledger: Any = None,
    **settings: Any,
) -> dict[str, Collected[Any]]:
    """All results by host name; each host has exactly one."""

    async def secret(_: ScanTarget) -> Credentials | None:
        return login(password) if password is not None else None

    async def run() -> list[Collected[Any]]:
        async with asyncio.timeout(limit):
            return [
                result
                async for result in collect(
                    hosts,
                    reader or (lambda _: read(paths)),
                    settings=CollectSettings(**({"patience": 3.0, "silence": 0.5} | settings)),
                    ledger=ledger or MemoryLedger(),
                    budget=budget,
                    credentials=secret,
                )
            ]

    results = asyncio.run(run())
    assert sorted(r.target.name for r in results) == sorted(h.name for h in hosts)
    return {r.target.name: r for r in results}


def one(host: ScanTarget, **more: Any) -> Collected[Any]:
    return scan(host, **more)[host.name]
