"""Follow a rollout: one table on a terminal, however many hosts; plain lines otherwise. Reads the store only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import click

from metalimmu.log import redact
from metalimmu.plan.titles import title
from metalimmu.plan.waves import BUSY, RowState
from metalimmu.store.ids import attempt_id

if TYPE_CHECKING:
    from rich.console import Group

    from metalimmu.service.site import OpenSite
    from metalimmu.store.records import RunRecord
    from metalimmu.store.rollout_records import RolloutHost, RolloutRecord

_LOOK = 0.5  # seconds
_BUSY_SHOWN = 20  # hosts under way that are shown one by one
_FAILED_SHOWN = 5
_BAR = 40  # characters of the timeline


def follow(site: OpenSite, rollout: str, *, tick: Callable[[], None] = lambda: None) -> RolloutRecord:
    """Until nothing happens any more. `tick` is called between looks."""
    from metalimmu.service.rollouts import halted

    with _Table(site) if sys.stdout.isatty() else _Lines() as view:
        while True:
            record = site.store.rollouts.get(rollout)
            view.show(record, site.store.rollouts.hosts(rollout))
            if halted(site, record):
                return record
            tick()
            time.sleep(_LOOK)


def ended(site: OpenSite, rollout: str) -> None:
    """What became of it. Raises StepFailed unless all of it is done."""
    from metalimmu.errors import StepFailed
    from metalimmu.plan.waves import ENDED, RolloutState

    record = site.store.rollouts.get(rollout)
    rows = site.store.rollouts.hosts(rollout)
    click.echo(f"\n{rollout}: {record.state}; {counts(rows)}")
    for row in rows:
        if row.state in (RowState.failed, RowState.refused, RowState.rolled_back):
            click.echo(f"  {row.host:<20} {row.state}: {redact(row.reason)}")
    if record.state is RolloutState.done:
        return
    hint = f"`metalimmu run show {rollout}` has the timeline"
    if record.state not in ENDED:
        hint = f"`metalimmu run resume {rollout}` goes on, `metalimmu run cancel {rollout}` ends it"
    raise StepFailed(f"rollout {rollout} {record.state}: {record.reason}", hint=hint)


def counts(rows: Sequence[RolloutHost]) -> str:
    found = [(str(s), sum(r.state is s for r in rows)) for s in RowState]
    return ", ".join(f"{count} {word}" for word, count in found if count)


def headline(record: RolloutRecord, rows: Sequence[RolloutHost]) -> str:
    last = max((r.wave for r in rows), default=0)
    here = max((r.wave for r in rows if r.state not in (RowState.waiting, RowState.untouched)), default=0)
    return f"{record.id}  {record.verb}  {record.state}  wave {here} of {last}  {counts(rows)}"


def timeline(site: OpenSite, record: RolloutRecord) -> None:
    """Each host in its order, with the time of its run as a bar."""
    from metalimmu.cli.output import emit

    rows = site.store.rollouts.hosts(record.id)
    runs = {r.host: _runs(site, r) for r in rows}
    known = [run for found in runs.values() for run in found]
    began = min((run.started for run in known if run.started), default=record.created)
    end = record.finished or max((run.finished or time.time() for run in known), default=time.time())
    click.echo(headline(record, rows))
    asked = f"asked by {record.by} at {_clock(record.created)}"
    click.echo(f"{asked}, ended {_clock(record.finished)}" if record.finished else asked)
    if record.reason:
        click.echo(redact(record.reason))
    click.echo()
    table: list[dict[str, Any]] = []
    for row in rows:
        mine = runs[row.host]
        started, finished = (mine[0].started, mine[-1].finished) if mine else (None, None)
        table.append(
            {
                "wave": row.wave or "",
                "host": row.host,
                "state": str(row.state),
                "began": _clock(started),
                "seconds": f"{(finished or time.time()) - started:.0f}" if started else "",
                "time": _bar(mine, began, end),
                "run": row.run or "",
                "note": redact(row.reason),
            }
        )
    emit(table, ["wave", "host", "state", "began", "seconds", "time", "run", "note"], "table", name="host")


def _runs(site: OpenSite, row: RolloutHost) -> list[RunRecord]:
    """Every attempt, oldest first."""
    return [site.store.run(attempt_id(row.rollout, row.host, n)) for n in range(1, row.attempt + 1)]


def _bar(runs: Sequence[RunRecord], began: float, end: float) -> str:
    """`#` while it is reimaged, `<` while it goes back."""
    span = max(end - began, 1.0)
    bar = ["."] * _BAR
    for run in runs:
        if run.started:
            left = min(_BAR - 1, int((run.started - began) / span * _BAR))
            right = max(left + 1, round(((run.finished or time.time()) - began) / span * _BAR))
            mark = "<" if run.options.get("returning") else "#"
            bar[left:right] = mark * (min(right, _BAR) - left)
    return "".join(bar)


def _clock(moment: float | None) -> str:
    return time.strftime("%H:%M:%SZ", time.gmtime(moment)) if moment else ""


class _Lines:
    """No terminal: a line for each change of a host, and one when it waits for something else."""

    def __init__(self) -> None:
        self._known: dict[str, RowState] = {}
        self._reason = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, record: RolloutRecord, rows: Sequence[RolloutHost]) -> None:
        now = _clock(time.time())
        first = not self._known
        for row in rows:
            before = self._known.get(row.host)
            self._known[row.host] = row.state
            if row.state is before or (first and row.state is RowState.waiting):
                continue
            reason = f": {redact(row.reason)}" if row.reason else ""
            click.echo(f"{now}  wave {row.wave}  {row.host}  {row.state}{reason}")
        if record.reason != self._reason:
            self._reason = record.reason
            if record.reason:
                click.echo(f"{now}  {record.state}: {redact(record.reason)}")


class _Table:
    """A terminal: counts, those under way with step and progress, the last failures."""

    def __init__(self, site: OpenSite) -> None:
        self._site = site

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(auto_refresh=False, transient=True)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, record: RolloutRecord, rows: Sequence[RolloutHost]) -> None:
        self._live.update(picture(self._site, record, rows), refresh=True)


def picture(site: OpenSite, record: RolloutRecord, rows: Sequence[RolloutHost]) -> Group:
    """As many lines for two hundred hosts as for twenty."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    busy = [r for r in rows if r.state in BUSY or r.state is RowState.soaking]
    table = Table(box=None, pad_edge=False)
    for name in ("wave", "host", "state", "step", "progress", "since"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in busy[:_BUSY_SHOWN]:
        step, words = _under_way(site, row)
        since = f"{time.time() - row.since:.0f} s"
        table.add_row(str(row.wave), Text(row.host), str(row.state), step, Text(words), since)
    parts: list[Any] = [Text(headline(record, rows), style="bold"), _share(rows)]
    if record.reason:
        parts.append(Text(redact(record.reason)))
    parts.append(table)
    if len(busy) > _BUSY_SHOWN:
        parts.append(Text(f"… and {len(busy) - _BUSY_SHOWN} more under way"))
    failed = sorted((r for r in rows if r.state is RowState.failed), key=lambda r: r.since)
    parts += [
        Text(f"FAILED {r.host}: {redact(r.reason)}", style="red", no_wrap=True, overflow="ellipsis")
        for r in failed[-_FAILED_SHOWN:]
    ]
    if len(failed) > _FAILED_SHOWN:
        parts.append(Text(f"… and {len(failed) - _FAILED_SHOWN} more failed before", style="red"))
    return Group(*parts)


def _share(rows: Sequence[RolloutHost]) -> Any:
    from rich.progress_bar import ProgressBar

    waiting = sum(r.state is RowState.waiting for r in rows)
    return ProgressBar(total=max(len(rows), 1), completed=len(rows) - waiting, width=60)


def _under_way(site: OpenSite, row: RolloutHost) -> tuple[str, str]:
    from metalimmu.cli.watch import progress

    if row.state is RowState.soaking:
        return "soak", f"{max(0.0, row.after - time.time()):.0f} s to go"
    steps = site.store.steps(row.run) if row.run else []
    if not steps or row.run is None:
        return "queued", ""
    return title(steps[-1].name), progress(site, row.run, steps[-1])[0]
