"""One chunk after another over a kept-alive connection, unpacked into memory that O_DIRECT can write from.

A chunk that breaks off, or a controller that is away, is asked for again without end: the write goes on where it
stopped. Every answer is bounded: a chunk of at most 1 MiB cannot unpack to more.

SHA-256 is the dearest thing here on small machines, and the read-back computes it for every chunk anyway. So a frame
that carries zstd's own checksum (xxHash64, checked while unpacking) is not hashed on arrival; one without is. What
arrived wrong in spite of that is found by the read-back, before the machine can boot from this disk (see write.py).
"""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from metalimmu.agent.block import Buffer
from metalimmu.agent.client import Backoff, Unreachable, bounded, close_if_idle, connection
from metalimmu.agent.link import Lost
from metalimmu.errors import ChunkCorrupt
from metalimmu.wire.manifest import CHUNK

FRAME_LIMIT = CHUNK + 65536  # zstd's worst case for 1 MiB is 4 KiB more (ZSTD_COMPRESSBOUND)
TRIES = 3  # for a chunk that arrives wrong, or is said not to exist
_GONE = frozenset({400, 401, 403, 404, 409, 410})


class Breaks:
    """How often the flow of chunks broke and went on: counted once, however many connections felt it."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._since: float | None = None
        self.count = 0

    def broke(self, why: str) -> None:
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                self._log(f"chunks: {why}; asking again")

    def went_on(self) -> None:
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                self._log(f"chunks: going on after {time.monotonic() - self._since:.1f} s")
                self.count += 1
                self._since = None


class Source:
    """One connection to the chunks; one thread uses it."""

    def __init__(self, base: str, token: str, pin: str, stop: threading.Event, breaks: Breaks) -> None:
        """The token goes along only over the pinned TLS."""
        self._url = urlsplit(base.rstrip("/"))
        self._headers = {"Authorization": f"Bearer {token}"} if self._url.scheme == "https" else {}
        self._connection = connection(self._url, pin)
        self._stop, self._breaks = stop, breaks
        self._used = 0.0

    def fetch(self, sha: str, length: int, into: Buffer, *, check: bool = False) -> int:
        """Unpack the chunk into the buffer's first `length` bytes; returns the bytes that came over the network.

        Returns -1 when `stop` was set meanwhile. `check` computes the SHA-256 in any case. Raises ChunkCorrupt after
        three wrong answers, Lost when the controller says three times that there is no such chunk.
        """
        backoff, gone = Backoff(), 0
        wrong: list[str] = []
        while not self._stop.is_set():
            try:
                status, frame = self._get(sha)
            except Unreachable as exc:
                self._breaks.broke(exc.message)
                self._stop.wait(backoff.next())
                continue
            if status == 200:
                self._breaks.went_on()
                problem = unpack(frame, sha, length, into, check=check)
                if not problem:
                    return len(frame)
                wrong.append(problem)
                if len(wrong) == TRIES:
                    raise ChunkCorrupt(f"chunk {sha} is wrong on the controller, {TRIES} times: {problem}")
            else:
                gone += 1
                if gone == TRIES:
                    raise Lost(f"the controller answers {status} for chunk {sha}")
            self._stop.wait(backoff.next())
        return -1

    def _get(self, sha: str) -> tuple[int, bytes]:
        self._used = close_if_idle(self._connection, self._used)
        try:
            self._connection.request("GET", f"{self._url.path}/{sha}", headers=self._headers)
            response = self._connection.getresponse()
            frame = bounded(response, FRAME_LIMIT)
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise Unreachable(f"connection to {self._url.netloc}: {exc or type(exc).__name__}") from exc
        except Unreachable:
            self._connection.close()
            raise
        if response.status != 200 and response.status not in _GONE:
            raise Unreachable(f"{self._url.netloc} answered {response.status}")
        return response.status, frame

    def close(self) -> None:
        self._connection.close()


def unpack(frame: bytes, sha: str, length: int, into: Buffer, *, check: bool) -> str:
    """What is wrong with the frame; empty when it unpacked to `length` bytes that are what they should be."""
    import zstandard

    try:
        if zstandard.frame_content_size(frame) not in (length, -1):
            return f"it says that it unpacks to {zstandard.frame_content_size(frame)} bytes, not {length}"
        checksum = zstandard.get_frame_parameters(frame).has_checksum
        with zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(frame) as reader:
            got = _fill(reader.readinto, into.view[:length])
            more = reader.read(1)
    except zstandard.ZstdError as exc:
        return f"no good zstd frame: {exc}"
    if got != length or more:
        return f"it unpacks to {'more' if more else got} bytes, not {length}"
    if check or not checksum:
        seen = hashlib.sha256(into.view[:length]).hexdigest()
        if seen != sha:
            return f"its SHA-256 is {seen}"
    return ""


def _fill(readinto: Callable[[memoryview], int], view: memoryview) -> int:
    done = 0
    while done < len(view):
        got = readinto(view[done:])
        if not got:
            break
        done += got
    return done
