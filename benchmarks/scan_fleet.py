"""10,000 BMCs that take 100 ms for each answer, over TLS, with two processors for both sides.

The rival is the hand-written aiohttp script of `scan_cpu`, a thousand BMCs at once: it logs in, fetches the same 28
resources, compares, logs out; no time limits, no retries, no budget, no snapshot. Its wall time is what two processors can
do here (the emulated fleet takes its share of them too). Side by side with it stands the part of metalimmu that does the same
work: collector, walk over BIOS and firmware, comparison; without a store. Cold it may take 1.3 times the rival's time; with
`$expand` and the paths that it remembers of this make it must be faster.

`metalimmu-scan` is all of `metalimmu scan`: a site, everything that a scan reads, judging, SQLite store, and the question
who made a change (see scan_whole). It does more than the rival, so its wall time is told and not judged; but memory below
1 GB, nobody lost and no session left open are claimed of it, of the other two as well, and of the worst round.

A sample is read by sushy as well, one BMC after the other. For comparison the table tells what a client on asyncio's bare
streams takes, which can read this server and no other.
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks import scan_job, scan_server
from benchmarks.options import options
from benchmarks.result import Result, at_most, limited, told
from benchmarks.scan_cpu import side_by_side
from benchmarks.scan_sides import SAMPLE, WHOLE

BMCS, QUICK = 10_000, 60
LATENCY = 0.1
AT_ONCE = 1000
MEMORY = 1000.0  # MB
EVERY = 25
CPUS = 2
OURS = ("metalimmu", "metalimmu-remembered", WHOLE)
SIDES = (*OURS, "aiohttp", "streams")


def run() -> list[Result]:
    count = QUICK if options().quick else BMCS
    everybody = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(everybody)[:CPUS]))
    try:
        rounds = [{side: _once(side, count) for side in SIDES} for _ in range(options().repeat(2))]
    finally:
        os.sched_setaffinity(0, everybody)

    def each(side: str, what: str) -> list[float]:
        return [float(r[side][what]) for r in rounds]

    right = {str(n): scan_job.right(n) for n in range(count) if n % EVERY == 0 or n < SAMPLE}
    by_sushy = _once("sushy", SAMPLE, 1)["answers"]  # one BMC after the other, one request after the other
    equal = by_sushy == {str(n): right[str(n)] for n in range(SAMPLE)} and all(
        r[side]["answers"] == right and r[side]["done"] == count for r in rounds for side in SIDES
    )
    name = f"scan of {count:,} BMCs at 100 ms"
    rival = "a script on aiohttp"
    ours, known, theirs = *OURS[:2], "aiohttp"
    memory = [max(r[side]["memory"] for side in OURS) / 1e6 for r in rounds]
    lost = [float(count - min(r[side]["done"] for side in OURS)) for r in rounds]
    left = [float(max(r[side]["sessions"] for side in OURS)) for r in rounds]
    wall = {side: each(side, "wall") for side in SIDES}
    return [
        at_most(f"{name}: wall, cold", wall[ours], wall[theirs], 1.3, unit="s", rival=rival, equal=equal, rounds=rounds),
        at_most(
            f"{name}: wall, $expand and remembered paths", wall[known], wall[theirs], 1.0, unit="s", rival=rival,
            equal=equal,
        ),
        told(f"{name}: wall of all that `metalimmu scan` does", wall[WHOLE], wall[theirs], unit="s", rival=rival),
        told(f"{name}: wall of a client on bare streams", wall["streams"], unit="s"),
        limited(f"{name}: memory", memory, MEMORY, unit="MB", worst=True, equal=equal),
        limited(f"{name}: lost", lost, 0, unit="BMCs", worst=True, equal=equal),
        limited(f"{name}: sessions left open", left, 0, unit="sessions", worst=True),
    ]  # fmt: skip


def _once(side: str, count: int, at_once: int = AT_ONCE) -> dict[str, Any]:
    with scan_server.fleet(LATENCY) as port:
        measured = side_by_side(side, port, count, min(at_once, count), EVERY)
        seen = scan_server.count(port)
        return {**measured, "sessions": seen["sessions"], "server_cpu": seen["cpu"]}
