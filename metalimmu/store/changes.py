"""What one write makes of a record: pure, and the same for every store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from metalimmu import lifecycle
from metalimmu.store.protocol import Beat
from metalimmu.store.records import FINAL, Attempt, DeploymentRecord, HostRecord, Outcome, RunRecord, StepRecord
from metalimmu.wire.messages import Progress

T = TypeVar("T")

_ATTEMPTS_KEPT = 20


def combined(record: T, change: Callable[[T], Mapping[str, Any]] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that an update sets: those that `change` returns, then the plain ones."""
    return {**(change(record) if change else {}), **fields}


def host(now: HostRecord, fields: dict[str, Any], at: float) -> dict[str, Any]:
    """Raises lifecycle.IllegalMove."""
    if "state" in fields:
        fields["state"] = lifecycle.move(now.state, lifecycle.State(fields["state"]))
    return {**fields, "updated": at}


def run(now: RunRecord, fields: dict[str, Any]) -> dict[str, Any]:
    """A final status stays: a replayed `running` or `failed` after it is not news."""
    if now.status in FINAL:
        return {k: v for k, v in fields.items() if k not in ("status", "finished", "error", "started")}
    return fields


def started(now: StepRecord | None, key: tuple[str, int, str], at: float) -> StepRecord:
    run_, seq, name = key
    if now is None:
        return StepRecord(run=run_, seq=seq, name=name, started=at)
    if now.outcome in (Outcome.done, Outcome.skipped):
        return now
    earlier = Attempt(started=now.started, finished=now.finished, outcome=now.outcome, summary=now.summary)
    return StepRecord(
        run=run_,
        seq=seq,
        name=name,
        started=at,
        attempts=now.attempts + 1,
        earlier=(*now.earlier, earlier)[-_ATTEMPTS_KEPT:],
    )


def beaten(now: DeploymentRecord, beat: Beat) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "media_bytes": now.media_bytes + beat.media_bytes,
        "chunk_bytes": now.chunk_bytes + beat.chunk_bytes,
    }
    if beat.seen is not None:
        fields["last_seen"] = beat.seen
    if beat.progress is not None:
        fields["progress"] = beat.progress
        if now.progress is None or _place(beat.progress) != _place(now.progress):
            fields["progressed"] = beat.seen
    return fields


def _place(progress: Progress) -> tuple[str, int]:
    return progress.phase, progress.done
