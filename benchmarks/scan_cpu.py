"""CPU of the client per BMC, for the job of 28 requests (250 BIOS attributes, 22 firmware items) and its comparison.

All sides read the same fleet (`scan_server`, TLS, in a process of its own) in the same round, each in a process of its
own, with 64 BMCs at once (Ansible: 50 forks). What metalimmu does is what `metalimmu scan` does: the collector with its
budget, the walk to a Snapshot, and findings from a profile of 272 expectations. The rivals compare dictionaries.
The answers, all values read and the names of those that differ, must be the same on all sides.

Of slow sides fewer BMCs are read: it is CPU per BMC that counts. Start-up and imports count for nobody.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks import scan_ansible, scan_job, scan_server
from benchmarks.options import options
from benchmarks.processes import run as run_process
from benchmarks.result import Result, as_fast, at_most, told

AT_ONCE = 64
# side: BMCs in a full run, in a quick one
COUNTS = {
    "metalimmu": (400, 8),
    "aiohttp": (400, 8),
    "streams": (400, 8),
    "metalimmu-remembered": (400, 8),
    "sushy-without-ca": (64, 4),
    "sushy": (24, 2),
    "ansible": (8, 1),
}
RIVALS = {"sushy-without-ca": (10.0, "sushy, 64 threads, no CA loading"), "sushy": (100.0, "stock sushy, 64 threads"),
          "ansible": (200.0, "Ansible redfish_info, 50 forks")}  # fmt: skip


def run() -> list[Result]:
    rounds = options().repeat(3)
    sides = [side for side in COUNTS if side != "ansible" or not options().quick]
    costs: dict[str, list[float]] = {side: [] for side in sides}
    right = True
    for _ in range(rounds):
        for side in sides:
            count = COUNTS[side][1 if options().quick else 0]
            with scan_server.fleet() as port:
                measured = side_by_side(side, port, count)
            costs[side].append(measured["cpu"] / count * 1e3)
            right &= measured["answers"] == {str(n): scan_job.right(n) for n in range(count)}
    ours = costs["metalimmu"]
    name = "scan: CPU per BMC, 28 requests"
    return [
        at_most(name, ours, costs["aiohttp"], 1.0, unit="ms", rival="a script on aiohttp", equal=right),
        *(
            as_fast(name, ours, costs[side], least, unit="ms", rival=rival, equal=right)
            for side, (least, rival) in RIVALS.items()
            if side in costs
        ),
        told(f"{name}: a script on asyncio's streams, for this server alone", costs["streams"], unit="ms"),
        told(
            "scan: CPU per BMC, with $expand and remembered paths",
            costs["metalimmu-remembered"],
            unit="ms",
            equal=right,
        ),
    ]


def side_by_side(side: str, port: int, count: int, at_once: int = AT_ONCE, every: int = 1) -> dict[str, Any]:
    if side == "ansible":
        return scan_ansible.measure(port, count)
    argv = [sys.executable, "-m", "benchmarks.scan_sides", side, str(port), str(count), str(at_once), str(every)]
    return json.loads(run_process(argv).output)  # type: ignore[no-any-return]
