"""What controller and agent tell each other while work goes on: progress and log lines up, orders down.

A thread of its own sends at most once a second, so that a slow disk or network never makes the machine look dead.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from metalimmu.agent.client import Backoff, Controller, Refused, Unreachable
from metalimmu.errors import AgentRefused
from metalimmu.wire.messages import Orders, Progress

T = TypeVar("T")

LINE = 500  # characters of a log line
CONSOLE = 5.0  # seconds between lines about progress; on the console only
LINES = 200  # kept while the controller is away
PER_MESSAGE = 50
INTERVAL = 1.0
REFUSALS = 3  # in a row: then the deployment is no longer what it was


class Lost(AgentRefused):
    """The controller no longer knows what this agent is doing: check in again."""


class Stopped(AgentRefused):
    """Orders.stop."""


def patiently(ask: Callable[[], T], link: Link) -> T:
    """The answer, asked for until there is one. Raises Refused, Stopped, Lost, and what `ask` finds wrong."""
    backoff = Backoff()
    while True:
        link.check()
        try:
            return ask()
        except Unreachable:  # said once by the progress thread
            link.stop.wait(backoff.next())


class Log:
    """Lines for the console now and for the controller later."""

    def __init__(self, out: Callable[[str], None] | None = None) -> None:
        self._out = out or _console
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque(maxlen=LINES)

    def __call__(self, line: str) -> None:
        plain = "".join(c if c.isprintable() else " " for c in line)[:LINE]
        self._out(plain)
        with self._lock:
            self._waiting.append(plain)

    def console(self, line: str) -> None:
        """For the console only."""
        self._out(line)

    def take(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._waiting.popleft() for _ in range(min(PER_MESSAGE, len(self._waiting))))

    def give_back(self, lines: tuple[str, ...]) -> None:
        """Those that were not sent; the oldest are lost when there is no room."""
        with self._lock:
            room = LINES - len(self._waiting)
            self._waiting.extendleft(reversed(lines[max(0, len(lines) - room) :]))


def _console(line: str) -> None:
    sys.stdout.write(f"metalimmu: {line}\n")
    sys.stdout.flush()


class Fence:
    """The newest fencing token seen. What carries a lower one comes from a worker that lost its lease."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` keeps it over a restart of the agent's process."""
        self._file = file
        self._lock = threading.Lock()
        self.newest = _read_number(file)

    def accepts(self, fence: int) -> bool:
        with self._lock:
            if fence < self.newest:
                return False
            if fence > self.newest:
                self.newest = fence
                if self._file:
                    self._file.write_text(str(fence), encoding="ascii")
            return True


def _read_number(file: Path | None) -> int:
    try:
        return int(file.read_text(encoding="ascii")) if file else 0
    except (OSError, ValueError):
        return 0


class Link:
    """The running exchange. `stop` is set when nothing more may be written; `check` then raises why."""

    def __init__(self, controller: Controller, fence: Fence, log: Log, boot_id: str) -> None:
        self._controller, self._fence, self.log, self._boot_id = controller, fence, log, boot_id
        self._lock = threading.Lock()
        self._phase, self._done, self._total, self._fetched = "identify", 0, 0, 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._reason: AgentRefused | None = None
        self.stop = threading.Event()
        self.go = threading.Event()

    @property
    def now(self) -> str:
        """The phase."""
        with self._lock:
            return self._phase

    def phase(self, name: str, total: int = 0) -> None:
        with self._lock:
            self._phase, self._done, self._total = name, 0, total

    def advance(self, done: int, fetched: int = 0) -> None:
        """Bytes done of the phase, compressed bytes that came over the network."""
        with self._lock:
            self._done += done
            self._fetched += fetched

    def check(self) -> None:
        """Raises Stopped or Lost when the work must end."""
        with self._lock:
            if self._reason:
                raise self._reason

    def wait_for_go(self) -> None:
        """Raises Stopped or Lost. Returns when the controller said go."""
        while not self.go.wait(0.1):
            self.check()

    def obey(self, orders: Orders) -> None:
        """Orders from any answer."""
        if not self._fence.accepts(orders.fence):
            self.log(f"orders with fence {orders.fence} ignored: {self._fence.newest} was seen")
        elif orders.go:
            self.go.set()
        elif self._phase == "wait":  # nothing is being written
            return
        elif orders.stop:
            self._end(Stopped(f"the controller says stop: {orders.stop}"))
        elif orders.stage == "done":
            self._end(Stopped("the controller says that this deployment is done"))

    def _end(self, reason: AgentRefused) -> None:
        with self._lock:
            self._reason = self._reason or reason
        self.stop.set()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread:
            self._thread.join()
        self._controller.close()

    def _run(self) -> None:
        backoff, refused, away = Backoff(), 0, False
        shown = time.monotonic()
        while not self._closing.is_set():
            began = time.monotonic()
            if began - shown > CONSOLE:
                self._show()
                shown = began
            lines = self.log.take()
            try:
                orders = self._controller.progress(self._message(lines))
            except Unreachable as exc:
                self.log.give_back(lines)
                if not away:
                    self.log(f"the controller is away, going on: {exc.message}")
                away = True
                self._closing.wait(backoff.next())
                continue
            except Refused as exc:
                self.log.give_back(lines)
                refused += 1
                if refused == REFUSALS:
                    self._end(Lost(exc.message, hint=exc.hint))
                    return
            else:
                if away:
                    self.log("the controller is back")
                away, refused = False, 0
                backoff.reset()
                self.obey(orders)
            self._closing.wait(INTERVAL - (time.monotonic() - began))

    def _show(self) -> None:
        with self._lock:
            line = f"{self._phase}: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB"
        if self._total:
            self.log.console(line)

    def _message(self, lines: tuple[str, ...]) -> Progress:
        with self._lock:
            return Progress(
                self._phase, self._done, self._total, self._fetched, lines, self._fence.newest, self._boot_id
            )
