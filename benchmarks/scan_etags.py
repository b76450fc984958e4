"""Would `If-None-Match` make a scan cheaper? `python -m benchmarks.scan_etags [ROUNDS]`: the real walk over the emulated fleet.

Not part of the table: it is why the collector does not do it (see bmc/collect/exchange.py). For each make that sends ETags
the same BMCs are scanned again and again, in turn with and without conditional requests; nothing changes meanwhile, which
is the best case. What a client must keep for it, the bodies of all hosts, is kept in memory here, as zlib packs them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path

from metalimmu.bmc.collect import collecting, exchange
from metalimmu.bmc.collect.line import Response, Times
from metalimmu.bmc.connect import Address
from metalimmu.bmc.ledger import MemoryLedger
from metalimmu.bmc.login import Request
from metalimmu.bmc.walk import Want, walk
from metalimmu.desired.types import Tls
from metalimmu_emulator.fleet import Fleet

MAKES = ("dell", "hpe", "lenovo", "supermicro", "openbmc")
BMCS = 20
CHEAP = Want(frozenset({"bios", "firmware", "boot", "secure_boot", "bmc", "pending"}))  # what every scan reads


class Host(Address, frozen=True, kw_only=True):
    labels: dict[str, str] = {}


class Conditional:
    """In place of Exchange.__call__."""

    def __init__(self) -> None:
        self.plain = exchange.Exchange.__call__
        self.kept: dict[tuple[str, str], tuple[dict[str, str], Response]] = {}
        self.on = False
        self.bytes = self.requests = self.spared = 0

    async def call(self, line: exchange.Exchange, request: Request, times: Times) -> tuple[Response, str]:
        kept = self.kept.get((line.base, request.path)) if self.on and request.method == "GET" else None
        if kept is not None:
            request = request._replace(headers={**request.headers, **kept[0]})
        response, path = await self.plain(line, request, times)
        self.requests += 1
        self.bytes += len(response.body)
        if response.status == 304 and kept is not None:
            self.spared += 1
            return kept[1]._replace(body=zlib.decompress(kept[1].body)), path
        etag = response.headers.get("ETag")
        if self.on and kept is None and etag and request.method == "GET" and response.status == 200:
            packed = response._replace(body=zlib.compress(response.body, 1))
            self.kept[line.base, request.path] = {"If-None-Match": etag}, packed
        return response, path


def main(rounds: int) -> None:
    way = Conditional()

    async def asked(self: exchange.Exchange, request: Request, times: Times) -> tuple[Response, str]:
        return await way.call(self, request, times)

    exchange.Exchange.__call__ = asked  # type: ignore[method-assign]
    print(
        f"{'make':<12}{'CPU plain':>11}{'conditional':>13}{'body bytes':>12}{'conditional':>13}{'304':>10}{'kept':>10}"
    )
    for make in MAKES:
        with (
            tempfile.TemporaryDirectory() as folder,
            Fleet([make] * BMCS, folder=Path(folder) / "f", processes=1) as fleet,
        ):
            _one(make, [b.address for b in fleet], fleet.credentials, Tls(ca=str(fleet.ca)), way, rounds)


def _one(make: str, addresses: list[str], credentials: str, tls: Tls, way: Conditional, rounds: int) -> None:
    hosts = [Host(name=f"{make}-{i}", bmc=a, credentials=credentials, tls=tls) for i, a in enumerate(addresses)]
    cpu: dict[bool, list[float]] = {False: [], True: []}
    seen: dict[bool, tuple[int, int, int]] = {}
    for number in range(rounds + 1):  # the first fills what is kept
        for on in (False, True):
            way.on, way.bytes, way.requests, way.spared = on, 0, 0, 0
            began = time.process_time()
            found = [r.value for r in collecting(hosts, lambda t: walk(t, CHEAP), ledger=MemoryLedger())]
            cost = time.process_time() - began
            assert all(s is not None and s.settings for s in found)
            if number:
                cpu[on].append(cost / BMCS * 1e3)
            seen[on] = way.bytes // BMCS, way.requests // BMCS, way.spared // BMCS
    size = sum(len(r.body) for _, r in way.kept.values()) / BMCS / 1024
    way.kept.clear()
    plain, conditional = (statistics.median(cpu[on]) for on in (False, True))
    print(
        f"{make:<12}{plain:>8.1f} ms{conditional:>10.1f} ms{seen[False][0]:>12,}{seen[True][0]:>13,}"
        f"{f'{seen[True][2]} of {seen[True][1]}':>10}{size:>7.0f} KiB"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
