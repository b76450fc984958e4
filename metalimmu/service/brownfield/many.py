"""One act on many BMCs at once, in threads, with an end to wrong passwords."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from metalimmu.errors import BmcError, BmcLoginNotTried, BmcLoginRefused, MetalimmuError, ScanStopped

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 16
MAX_REFUSED = 3


class Logins:
    """Lets at most `most` refusals happen, also among logins that are on their way at the same time."""

    def __init__(self, most: int = MAX_REFUSED) -> None:
        self.most = most
        self.refused = 0
        self._trying = 0
        self._change = threading.Condition()

    @property
    def stopped(self) -> bool:
        return self.refused >= self.most

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around a login. Raises ScanStopped without a try once there were too many; counts the refusal that is raised inside."""
        with self._change:
            self._change.wait_for(lambda: self.stopped or self.refused + self._trying < self.most)
            if self.stopped:
                raise ScanStopped(f"not logged in: the run stops after {self.refused} refused logins")
            self._trying += 1
        refused = False
        try:
            yield
        except BmcLoginRefused as exc:
            refused = not isinstance(exc, BmcLoginNotTried)
            raise
        finally:
            with self._change:
                self._trying -= 1
                self.refused += refused
                self._change.notify_all()


def each(
    items: Iterable[T], act: Callable[[T], R], *, workers: int = WORKERS
) -> Iterator[tuple[T, R | MetalimmuError]]:
    """What `act` returned, or the error of ours that it raised, as they come. Few items wait in memory, however many there are."""
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="bmc")
    running: dict[Future[R], T] = {}

    def finished(*, leave: int) -> Iterator[tuple[T, R | MetalimmuError]]:
        while len(running) > leave:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                item = running.pop(future)
                outcome = _outcome(future)
                yield item, outcome

    try:
        for item in items:
            running[pool.submit(act, item)] = item
            yield from finished(leave=2 * workers)
        yield from finished(leave=0)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def one_by_one(items: Iterable[T], act: Callable[[T], R]) -> Iterator[tuple[T, R | MetalimmuError]]:
    """The same for what asks nobody: threads would only be in each other's way."""
    for item in items:
        try:
            yield item, act(item)
        except MetalimmuError as exc:
            yield item, exc


def _outcome(future: Future[R]) -> R | MetalimmuError:
    try:
        return future.result()
    except MetalimmuError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001  one odd BMC must not end the run; the log has the rest
        return BmcError(f"{type(exc).__name__}: {exc}", hint="run again with -vv, and report what it says")
