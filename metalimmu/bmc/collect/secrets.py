"""Credentials of a fleet: each reference is read once, in a thread, whoever asks for it at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from metalimmu.bmc import credentials
from metalimmu.bmc.credentials import Credentials
from metalimmu.bmc.ports import Target

MOST = 4096


class Secrets:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._read: dict[str, asyncio.Future[Credentials]] = {}

    async def of(self, target: Target) -> Credentials | None:
        """Raises SecretError."""
        ref = target.credentials
        if not ref:
            return None
        task = self._read.get(ref)
        if task is None:
            if len(self._read) >= MOST:  # a reference for each host: nothing to remember
                self._read.clear()
            # In a thread: a vault answers when it likes, and the hash of a password takes 10 ms on purpose.
            task = asyncio.ensure_future(asyncio.to_thread(credentials.read, ref, folder=self._folder))
            self._read[ref] = task
        return await asyncio.shield(task)
