"""Reads thousands of BMCs at once: one asyncio loop, one kept-alive connection and one request in flight for each.

::

    async for result in collect(targets, lambda t: walk(t, want, memory), settings=..., ledger=..., budget=...):
        result.value        # what the reader returned (a Snapshot), or None
        result.failure      # why not, or why not all of it

    for result in collecting(targets, ...):     # the same from ordinary code; the loop runs in a thread of its own
"""

from metalimmu.bmc.collect.fleet import collect
from metalimmu.bmc.collect.gate import Gate
from metalimmu.bmc.collect.threaded import collecting
from metalimmu.bmc.collect.types import Collected, CollectSettings, ScanTarget

__all__ = ["CollectSettings", "Collected", "Gate", "ScanTarget", "collect", "collecting"]
