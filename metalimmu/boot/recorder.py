"""Progress and byte counts, gathered in memory and written once a second for all machines in one transaction.

A hundred machines report every second and fetch thousands of chunks: the store sees one write per second. What is
lost when the controller is killed is the last second of progress; nothing is decided by it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from metalimmu import log
from metalimmu.boot.ports import Beat, Deployments
from metalimmu.errors import MetalimmuError
from metalimmu.wire.messages import Progress

MAX_LOG_LINES = 20_000  # of one deployment, while this process runs

logger = log.get("boot")


class Recorder:
    """Used from the boot service's loop only, except `write`, which blocks and runs in a thread."""

    def __init__(self, deployments: Deployments, changed: Callable[[str], None]) -> None:
        self._deployments = deployments
        self._changed = changed
        self._beats: dict[str, Beat] = {}
        self._phases: dict[str, str] = {}
        self._lines: dict[str, int] = {}

    def progress(self, deployment: str, said: Progress, lines: tuple[str, ...], now: float) -> bool:
        """True when the phase is new: then it is worth writing at once."""
        self._merge(deployment, seen=now, progress=said, lines=self._allowed(deployment, lines))
        is_new = self._phases.get(deployment) != said.phase
        self._phases[deployment] = said.phase
        return is_new

    def sent(self, deployment: str, *, media: int = 0, chunks: int = 0) -> None:
        """Bytes that really went out: whoever reads is alive."""
        if media or chunks:
            self._merge(deployment, seen=time.time(), media=media, chunks=chunks)

    def take(self) -> list[Beat]:
        """What is not written yet; give it to `write`."""
        beats, self._beats = list(self._beats.values()), {}
        return beats

    def give_back(self, beats: list[Beat]) -> None:
        """The store could not be written: keep them for the next time."""
        newer, self._beats = self._beats, {b.deployment: b for b in beats}
        for beat in newer.values():
            self._merge(
                beat.deployment,
                seen=beat.seen,
                progress=beat.progress,
                media=beat.media_bytes,
                chunks=beat.chunk_bytes,
                lines=beat.log,
            )

    def write(self, beats: list[Beat]) -> bool:
        """Blocking. False when the store does not take them now."""
        if not beats:
            return True
        try:
            self._deployments.beat(beats)
        except MetalimmuError as exc:
            logger.warning("progress of %d machines waits: %s (%s)", len(beats), exc, exc.hint)
            return False
        for beat in beats:
            self._changed(beat.deployment)
        return True

    def _allowed(self, deployment: str, lines: tuple[str, ...]) -> tuple[str, ...]:
        had = self._lines.get(deployment, 0)
        self._lines[deployment] = had + len(lines)
        return lines[: max(0, MAX_LOG_LINES - had)]

    def _merge(
        self,
        deployment: str,
        *,
        seen: float | None = None,
        progress: Progress | None = None,
        media: int = 0,
        chunks: int = 0,
        lines: tuple[str, ...] = (),
    ) -> None:
        beat = self._beats.get(deployment) or Beat(deployment)
        self._beats[deployment] = dataclasses.replace(
            beat,
            seen=seen if seen is not None else beat.seen,
            progress=progress or beat.progress,
            media_bytes=beat.media_bytes + media,
            chunk_bytes=beat.chunk_bytes + chunks,
            log=(*beat.log, *lines),
        )
