"""The one thread that answers for all IPMI BMCs of a process.

pyghmi keeps its sockets and sessions in module variables and starts a thread of its own for them. Here that thread is this
one: it waits on all sockets, on the serial ports that are bridged, and for what other threads want done in it, as pyghmi's
sessions are not for several threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable

from pyghmi.ipmi.private import session

LOG = logging.getLogger(__name__)
TICK_SECONDS = 0.2


class Loop:
    """`start` before any BMC is made, `close` after all of them are."""

    def __init__(self) -> None:
        self._posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._readers: dict[int, Callable[[], None]] = {}
        self._ticks: list[Callable[[], None]] = []
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._next = 0.0  # tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ipmi", daemon=True)

    def start(self) -> None:
        session.iothread = self._thread  # there is one: pyghmi starts none
        session.iothreadready = True
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self.call(lambda: None)
        if self._thread.ident is not None:  # it was started
            self._thread.join(10)
        os.close(self._wake_in)
        os.close(self._wake_out)

    # from any thread

    def call(self, do: Callable[[], None]) -> None:
        """Have it done in the loop, soon."""
        self._posted.put(do)
        os.write(self._wake_out, b".")

    # in the loop, or before it has started

    def each_tick(self, do: Callable[[], None]) -> None:
        self._ticks.append(do)

    def no_tick(self, do: Callable[[], None]) -> None:
        self._ticks.remove(do)

    def watch(self, fd: int, do: Callable[[], None]) -> None:
        self._readers[fd] = do

    def unwatch(self, fd: int) -> None:
        self._readers.pop(fd, None)

    @staticmethod
    def forget(sock: socket.socket) -> None:
        """A BMC's own socket: its sessions are in pyghmi's tables too."""
        handlers = session.Session.bmc_handlers
        port = sock.getsockname()[1]
        handlers.pop(sock, None)
        for peer in list(handlers):
            if isinstance(handlers[peer], dict):
                handlers[peer].pop(port, None)
                if not handlers[peer]:
                    del handlers[peer]
        with contextlib.suppress(ValueError):
            session.iosockets.remove(sock)
        sock.close()

    # the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wait()
            self._safely(self._packets)
            while not self._posted.empty():
                self._safely(self._posted.get())
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + TICK_SECONDS
                for tick in list(self._ticks):
                    self._safely(tick)

    def _wait(self) -> None:
        poll = select.poll()  # not select(): a lab may have more than 1023 descriptors
        poll.register(self._wake_in, select.POLLIN)
        for sock in session.iosockets:
            poll.register(sock, select.POLLIN)
        for fd in self._readers:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(TICK_SECONDS * 1000):
            if fd == self._wake_in:
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif reader := self._readers.get(fd):
                self._safely(reader)

    @staticmethod
    def _packets() -> None:
        session._io_graball(session.iosockets, {})  # noqa: SLF001
        while session.sessionqueue:
            session.sessionqueue.popleft().process_pktqueue()

    @staticmethod
    def _safely(do: Callable[[], None]) -> None:
        """Whatever a packet makes pyghmi stumble over costs that packet."""
        try:
            do()
        except Exception:
            LOG.exception("an IPMI BMC stumbled")
