"""Threads that work off one list, and stop together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def each(
    items: Iterable[T], workers: Sequence[Callable[[T], None]], halt: threading.Event, stop: threading.Event
) -> None:
    """Hand every item to one of the workers. Ends early when one raises (its exception is raised here, after all
    have ended) or when `stop` is set; `halt` tells the workers of both.
    """
    iterator = iter(items)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def loop(work: Callable[[T], None]) -> None:
        while not halt.is_set():
            with lock:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            try:
                work(item)
            except BaseException as exc:  # noqa: BLE001 - raised again in the caller's thread
                errors.append(exc)
                halt.set()

    threads = [
        threading.Thread(target=loop, args=(work,), name=f"worker-{i}", daemon=True) for i, work in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)
            if stop.is_set():
                halt.set()
    if errors:
        raise errors[0]
