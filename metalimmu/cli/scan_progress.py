"""How far a scan is: a bar on a terminal, a line now and then otherwise. On standard error: the result goes elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click

from metalimmu.service.scans.record import Progress

EVERY = 10.0  # seconds between two plain lines


def words(p: Progress) -> str:
    left = "" if p.left is None or p.done >= p.total else f", {duration(p.left)} left"
    rate = f", {p.rate:.{0 if p.rate >= 10 else 1}f}/s" if p.rate >= 0.05 else ""
    return f"{p.done:,} of {p.total:,} hosts, {p.unknown:,} unknown, {p.drift:,} with drift{rate}{left}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Plain:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= EVERY:
            self._last = now
            click.echo(words(progress), err=True)


class Live:
    """Drawn by a thread of rich, ten times a second at most."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task: Any = self._bar.add_task("reading", total=None)
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        self._bar.update(self._task, total=progress.total, completed=progress.done, description=words(progress))


def shown() -> Plain | Live:
    return Live() if sys.stderr.isatty() else Plain()
