"""What several of these tests need, beside their fixtures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


@dataclass
class MediaServer:
    """Serves the files of a folder with byte ranges, as the controller does, and counts the bytes of bodies."""

    folder: Path
    sent: int = 0
    heads: int = 0
    ranges: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    stop: Callable[[], None] = lambda: None
