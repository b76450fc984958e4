"""Turns run in processes of their own: a scan of ten thousand BMCs takes no time from the machines that boot here, and a
crash of one takes nothing with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from metalimmu import log
from metalimmu.store.trigger_records import TurnRecord

logger = log.get("schedules")

_FIRST_WAIT, _LONGEST_WAIT = 5.0, 300.0  # seconds before a turn is tried again whose process failed
_GRACE = 10.0  # seconds to log out of BMCs, and to write down what was read


class Children:
    """The running turns of this process, by schedule."""

    def __init__(self, folder: Path, *, verbose: int = 0) -> None:
        self._folder = folder
        self._verbose = verbose
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._failures: dict[str, tuple[int, float]] = {}  # times in a row, not before

    @property
    def running(self) -> list[str]:
        return list(self._running)

    def start(self, turn: TurnRecord) -> bool:
        """False: it runs already, or has failed a moment ago."""
        name = turn.schedule
        if name in self._running or time.monotonic() < self._failures.get(name, (0, 0.0))[1]:
            return False
        args = [sys.executable, "-m", "metalimmu", *["-v"] * self._verbose, "--site", str(self._folder)]
        args += ["schedule", "turn", name, repr(turn.due)]
        self._running[name] = subprocess.Popen(args, stdin=subprocess.DEVNULL, start_new_session=True)
        logger.info("schedule %s: turn begins in process %d", name, self._running[name].pid)
        return True

    def reap(self) -> None:
        """Notice those that have ended."""
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            if code == 0:
                self._failures.pop(name, None)
                logger.info("schedule %s: turn has ended", name)
                continue
            times = self._failures.get(name, (0, 0.0))[0]
            wait = min(_FIRST_WAIT * 2**times, _LONGEST_WAIT)
            self._failures[name] = times + 1, time.monotonic() + wait
            logger.warning(
                "schedule %s: its process ended with status %d; what is left is tried in %.0f s", name, code, wait
            )

    def stop(self) -> None:
        """Ask all to end, as Ctrl-C does; their turns stay unfinished, for the next `serve`."""
        for process in self._running.values():
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _GRACE
        for name, process in self._running.items():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("schedule %s: process %d does not end and is killed", name, process.pid)
                _kill(process)
        self._running.clear()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With what it may have started itself."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
