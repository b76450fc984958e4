"""Follow a run: live on a terminal, plain lines otherwise. Reads the store only, so any process may watch any run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import click

from metalimmu.log import redact
from metalimmu.plan.titles import title
from metalimmu.store.records import FINAL, Outcome, RunRecord, RunStatus, StepRecord

if TYPE_CHECKING:
    from metalimmu.service.site import OpenSite

_LOOK = 0.3  # seconds
_MARK = {Outcome.done: "ok", Outcome.skipped: "already", Outcome.failed: "FAILED"}


def follow(site: OpenSite, run: str, *, tick: Callable[[], None] = lambda: None) -> RunRecord:
    """Print each step as it ends, until the run does or is interrupted. `tick` is called between looks."""
    printed: set[int] = set()
    with _line() as line:
        while True:
            record = site.store.run(run)
            for step in site.store.steps(run):
                if step.outcome is not Outcome.running and step.seq not in printed:
                    printed.add(step.seq)
                    line.say(_finished(step))
                elif step.outcome is Outcome.running:
                    line.show(step, progress(site, run, step))
            if record.status in FINAL or record.status is RunStatus.interrupted:
                return record
            tick()
            time.sleep(_LOOK)


def ended(site: OpenSite, run: str) -> None:
    """The table, and StepFailed unless the run succeeded."""
    from metalimmu.errors import StepFailed

    record = site.store.run(run)
    summary(site, record)
    if record.status is RunStatus.interrupted:
        raise StepFailed(f"run {record.id} was interrupted", hint=f"`metalimmu run resume {record.id}` finishes it")
    if record.status is not RunStatus.succeeded:
        error = record.error
        raise StepFailed(
            f"run {record.id} {record.status}: {error.message if error else ''}", hint=error.hint if error else ""
        )


def summary(site: OpenSite, record: RunRecord) -> None:
    """The table at the end: step, seconds, bytes over the network, proof."""
    from metalimmu.cli.output import emit

    steps = site.store.steps(record.id)
    moved = _moved(site, record)
    rows: list[dict[str, Any]] = [
        {
            "step": s.name,
            "seconds": f"{s.seconds or 0:.1f}",
            "bytes": f"{moved[s.name]:,}" if moved.get(s.name) else "",
            "proof": redact(s.summary),
        }
        for s in steps
    ]
    total = sum(moved.values())
    took = (record.finished or time.time()) - (record.started or record.created)
    rows.append(
        {
            "step": "TOTAL",
            "seconds": f"{took:.1f}",
            "bytes": f"{total:,}",
            "proof": _verdict(record),
        }
    )
    click.echo()
    emit(rows, ["step", "seconds", "bytes", "proof"], "table", name="step")


def _verdict(record: RunRecord) -> str:
    if record.status is not RunStatus.succeeded:
        return str(record.status)
    plan = record.plan
    word = "unproven, as its role asks for no proof" if plan["spec"]["proof"].get("by") == "none" else "proven"
    return f"{plan['image']['ref']}: {word}"


def _moved(site: OpenSite, record: RunRecord) -> dict[str, int]:
    """Bytes over the network by step, as the boot service counted them when all was over."""
    from metalimmu.errors import NotFound

    try:
        d = site.store.deployment(record.id)
    except NotFound:
        return {}
    return {"check-in": d.media_bytes, "write": d.chunk_bytes}


def _finished(step: StepRecord) -> str:
    size = f"  {step.bytes / 1e6:.1f} MB" if step.bytes else ""
    return f"{_MARK[step.outcome]:>8}  {title(step.name):<34} {step.seconds or 0:7.1f} s{size}  {redact(step.summary)}"


def progress(site: OpenSite, run: str, step: StepRecord) -> tuple[str, float | None]:
    """Words and a share from 0 to 1 of what the machine does now."""
    if step.name not in ("write", "verify", "config"):
        return "", None
    d = site.store.deployment(run)
    if d.queued is not None:
        return "waits for its turn: as many write now as boot.agents allows", None
    p = d.progress
    if p is None or not p.total:
        return "", None
    rate = p.done / max(time.time() - step.started, 0.1)
    left = f"{(p.total - p.done) / rate:.0f} s left" if rate > 1 else "waiting"
    return f"{p.phase} {p.done / 1e6:.0f} of {p.total / 1e6:.0f} MB, {rate / 1e6:.0f} MB/s, {left}", p.done / p.total


class _Plain:
    """No terminal: a line when a step begins and one when it ends."""

    def __init__(self) -> None:
        self._shown = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        click.echo(text)

    def show(self, step: StepRecord, _progress: tuple[str, float | None]) -> None:
        if step.seq != self._shown:
            self._shown = step.seq
            click.echo(f"{'...':>8}  {title(step.name)}")


class _Live:
    """A terminal: finished steps scroll up, the present one has a spinner, a bar and its speed."""

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            transient=True,
        )
        self._progress.start()
        self._task: Any = None
        self._seq = -1
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def show(self, step: StepRecord, progress: tuple[str, float | None]) -> None:
        words, share = progress
        if step.seq != self._seq:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._seq = step.seq
            self._task = self._progress.add_task(title(step.name), total=None, words="")
        self._progress.update(self._task, words=words, total=1.0 if share is not None else None, completed=share or 0.0)


def _line() -> _Plain | _Live:
    return _Live() if sys.stdout.isatty() else _Plain()
