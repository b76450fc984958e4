"""Who has the conversations of a scan: Redfish in one asyncio loop in a thread of its own, IPMI in a few threads.

Nothing in here can write to a BMC: the collector sends GET and HEAD and logs in, IPMI an allow-list of reads.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metalimmu.bmc.ask import Asking
from metalimmu.bmc.collect.types import Collected
from metalimmu.bmc.ports import rack
from metalimmu.errors import BmcLoginNotTried, BmcLoginRefused, BmcUnsupported, MetalimmuError
from metalimmu.observed.snapshot import Snapshot
from metalimmu.service.brownfield.many import MAX_REFUSED
from metalimmu.service.scans.reading import Host, ReadMany

if TYPE_CHECKING:
    from metalimmu.bmc.budget import Budget
    from metalimmu.bmc.collect.gate import Gate
    from metalimmu.bmc.credentials import Credentials
    from metalimmu.bmc.ledger import LoginLedger
    from metalimmu.service.site import OpenSite

AT_ONCE_BY_IPMI = 16
PATIENCE = 60.0  # seconds that an IPMI host waits for its turn in the budget


def of_site(site: OpenSite, max_refused: int | None = None) -> ReadMany:
    """Through the site's budget and its ledger of refused logins. After `max_refused` refusals (None: what the site says)
    nobody is logged in any more.
    """
    most = max_refused or site.docs.site.bmc.max_refused
    return reading(site.folder, ledger=site.ledger, budget=site.budget, max_refused=most)


def reading(
    folder: Path, *, ledger: LoginLedger | None, budget: Budget | None, max_refused: int = MAX_REFUSED
) -> ReadMany:
    """`folder` is where relative references of credentials begin. All that it reads, by whichever protocol and in however
    many calls, logs in through one gate.
    """
    from metalimmu.bmc.collect.gate import Gate

    gate = Gate(max_refused)

    def read(hosts: Collection[Host], reader: Callable[[Host], Asking[Any]]) -> Generator[Collected[Any], None, None]:
        from metalimmu.bmc.collect import collecting

        redfish = [h for h in hosts if h.bmc.startswith(("redfish+", "redfish-raw+"))]
        others = [h for h in hosts if not h.bmc.startswith(("redfish+", "redfish-raw+"))]
        with closing(_Ipmi(others, folder, ledger, budget, gate)) as ipmi:
            if redfish:
                found = collecting(redfish, reader, ledger=ledger, budget=budget, folder=folder, gate=gate)
                with closing(cast("Generator[Collected[Any]]", found)):  # so the conversations end with the scan
                    for one in found:
                        yield one
                        yield from ipmi.ready()
            yield from ipmi.rest()

    return read


class _Ipmi:
    """Hosts that are read by blocking drivers, while Redfish is read elsewhere."""

    def __init__(
        self,
        hosts: Collection[Host],
        folder: Path,
        ledger: LoginLedger | None,
        budget: Budget | None,
        gate: Gate,
    ) -> None:
        self._left = len(hosts)
        self._done: queue.SimpleQueue[Collected[Snapshot]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._gate = gate
        self._pool = ThreadPoolExecutor(AT_ONCE_BY_IPMI, thread_name_prefix="ipmi") if hosts else None
        for host in hosts:
            if self._pool is not None:
                self._pool.submit(self._read, host, folder, ledger, budget)

    def _read(self, host: Host, folder: Path, ledger: LoginLedger | None, budget: Budget | None) -> None:
        if self._stop.is_set():
            return
        at, began = time.time(), time.monotonic()
        value, failure = None, None
        try:
            login = _login(host, folder)
            with self._logged_in(host, login):
                value = _by_ipmi(host, login, ledger, budget)
        except MetalimmuError as exc:
            failure = exc
        except Exception as exc:  # noqa: BLE001  one odd BMC must not cost the others their results
            failure = BmcUnsupported(f"{host.bmc}: {type(exc).__name__}: {exc}")
        self._done.put(
            Collected(
                target=host,
                at=at,
                value=value,
                failure=failure,
                requests=value.requests if value else 0,
                seconds=time.monotonic() - began,
            )
        )

    @contextmanager
    def _logged_in(self, host: Host, login: Credentials | None) -> Iterator[None]:
        """Raises ScanStopped."""
        under_way = self._gate.enter_in_thread(login.version if login else "", self._stop.is_set)
        try:
            yield
        except BmcLoginRefused as exc:
            if not isinstance(exc, BmcLoginNotTried):
                under_way.refused(host.name)
            raise
        else:
            under_way.good()
        finally:
            under_way.unknown()

    def ready(self) -> Generator[Collected[Snapshot], None, None]:
        while self._left and not self._done.empty():
            yield self._take()

    def rest(self) -> Generator[Collected[Snapshot], None, None]:
        """Each host's reading has time limits of its own."""
        while self._left:
            yield self._take()

    def _take(self) -> Collected[Snapshot]:
        found = self._done.get()
        self._left -= 1
        return found

    def close(self) -> None:
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _login(host: Host, folder: Path) -> Credentials | None:
    from metalimmu.bmc import credentials

    if not host.bmc.startswith("ipmi://"):
        raise BmcUnsupported(
            f"{host.name}: {host.bmc.partition('://')[0]}:// has no settings to scan",
            hint="scans read redfish+https://, redfish+http:// and ipmi://",
        )
    return credentials.read(host.credentials, folder=folder) if host.credentials else None


def _by_ipmi(host: Host, login: Credentials | None, ledger: LoginLedger | None, budget: Budget | None) -> Snapshot:
    from metalimmu.bmc.ipmi import IpmiBmc
    from metalimmu.bmc.ipmi_snapshot import ipmi_snapshot

    with IpmiBmc.open(host, credentials=login, ledger=ledger) as driver:
        if budget is None:
            return ipmi_snapshot(driver, host.name)
        with budget.account(host.bmc, rack(host), bulk=True).turn(PATIENCE):
            return ipmi_snapshot(driver, host.name)
