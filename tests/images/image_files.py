"""Small disk images for tests."""

from __future__ import annotations

import random
from pathlib import Path

from metalimmu.wire.manifest import CHUNK


def disk(path: Path, chunks: str, *, seed: int = 0) -> Path:
    """A raw file with one chunk per letter: `.` is a hole, `0` written zeros, any other letter content of its own."""
    with path.open("wb") as file:
        file.truncate(len(chunks) * CHUNK)
        for i, letter in enumerate(chunks):
            if letter == ".":
                continue
            file.seek(i * CHUNK)
            file.write(bytes(CHUNK) if letter == "0" else random.Random(f"{seed}{letter}").randbytes(CHUNK))
    return path
