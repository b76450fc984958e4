"""What can be seen of a virtual machine from outside: when words appear on its console, and what its disk holds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import BinaryIO

from metalimmu.wire.manifest import CHUNK

REPORTED = b"metalimmu-proof: acknowledged"
BARE_FAILED = b"bare: FAILED"
LOOK = 0.02  # seconds


class Clock:
    """Notes when words appear on a machine's console."""

    def __init__(self, console: Path, words: tuple[bytes, ...] = (REPORTED, BARE_FAILED)) -> None:
        self._console = console
        self._start = console.stat().st_size if console.exists() else 0
        self._seen: dict[bytes, float] = {}
        self._lines: list[float] = []  # when each line was there
        self._words = words
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="console", daemon=True)
        self._thread.start()

    def text(self) -> bytes:
        if not self._console.exists():
            return b""
        with self._console.open("rb") as file:
            file.seek(self._start)
            return file.read()

    def timeline(self, start: float) -> list[str]:
        """Every line with the seconds from `start` to its end."""
        lines = self.text().decode(errors="replace").split("\n")
        return [
            f"{at - start:7.2f} {line.strip()}" for at, line in zip(self._lines, lines, strict=False) if line.strip()
        ]

    def saw(self, word: bytes, limit: float) -> float:
        """When (seconds since 1970). Raises RuntimeError when it does not come, with the console's last words."""
        deadline = time.monotonic() + limit
        while word not in self._seen:
            if BARE_FAILED in self._seen or time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError(
                    f"{word.decode()!r} is not on the console: {self.text()[-2000:].decode(errors='replace')}"
                )
            time.sleep(0.01)
        return self._seen[word]

    def _look(self) -> None:
        size = 0
        while not self._stop.wait(LOOK):
            now = self._console.stat().st_size if self._console.exists() else 0
            if now == size:
                continue
            size, at, text = now, time.time(), self.text()
            while len(self._lines) < text.count(b"\n"):
                self._lines.append(at)
            for word in self._words:
                if word in text:
                    self._seen.setdefault(word, at)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def strange(image: BinaryIO, disk: BinaryIO, changed: list[tuple[int, int]]) -> list[int]:
    """Offsets of sectors that differ and are not in `changed`."""
    found: list[int] = []
    at = 0
    while data := image.read(CHUNK):
        other = disk.read(len(data))
        if other != data:
            found += [
                at + i
                for i in range(0, len(data), 512)
                if data[i : i + 512] != other[i : i + 512] and not any(o <= at + i < o + n for o, n in changed)
            ]
        at += len(data)
    return found
