"""The collector for ordinary code: its loop runs in a thread of its own, so that what is read is stored meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from metalimmu.bmc.ask import Asking
from metalimmu.bmc.budget import Budget
from metalimmu.bmc.collect.fleet import collect
from metalimmu.bmc.collect.gate import Gate
from metalimmu.bmc.collect.types import Collected, CollectSettings, ScanTarget
from metalimmu.bmc.ledger import LoginLedger

T = TypeVar("T")
AHEAD = 256
"""Results that may wait for the consumer before the collector slows down."""
PAUSE = 0.02
THREADS = 16
"""For host names and vaults, which block."""
END = 30.0
"""Seconds for the log-outs of a scan that is stopped."""


def collecting(
    targets: Iterable[ScanTarget],
    reader: Callable[[ScanTarget], Asking[T]],
    *,
    settings: CollectSettings | None = None,
    ledger: LoginLedger | None = None,
    budget: Budget | None = None,
    folder: Path | None = None,
    gate: Gate | None = None,
) -> Iterator[Collected[T]]:
    """`collect`, blocking. `targets` and `reader` are called in the collector's thread. Close the iterator to stop the scan."""
    found: queue.SimpleQueue[Collected[T] | BaseException | None] = queue.SimpleQueue()
    control: dict[str, object] = {}
    ready = threading.Event()

    async def pump() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="collect"))
        control.update(loop=loop, task=asyncio.current_task())
        ready.set()
        async with contextlib.aclosing(
            collect(  # type: ignore[type-var]
                targets, reader, settings=settings, ledger=ledger, budget=budget, folder=folder, gate=gate
            )
        ) as results:
            async for result in results:
                found.put(result)
                while found.qsize() > AHEAD:  # noqa: ASYNC110  the consumer is in another thread
                    await asyncio.sleep(PAUSE)

    def run() -> None:
        try:
            asyncio.run(pump())
        except BaseException as exc:  # noqa: BLE001  raised where the results are read
            found.put(exc)
        else:
            found.put(None)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="collector", daemon=True)
    thread.start()
    try:
        while (result := found.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        ready.wait(END)
        if thread.is_alive():
            loop, task = control.get("loop"), control.get("task")
            if isinstance(loop, asyncio.AbstractEventLoop) and isinstance(task, asyncio.Task):
                with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                    loop.call_soon_threadsafe(task.cancel)
        thread.join(END)
