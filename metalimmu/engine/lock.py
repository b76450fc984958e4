"""The site's worker lock: one process of a site executes runs and owns the boot service. The kernel frees it on any death."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO


class WorkerLock:
    """flock(2) on a file that also says who has it, for people."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def take(self) -> bool:
        """True when it is ours now."""
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate(0)
        file.write(f"{socket.gethostname()} pid {os.getpid()}\n")
        file.flush()
        self._file = file
        return True

    def holder(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8").strip() or "nobody"
        except OSError:
            return "nobody"

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
