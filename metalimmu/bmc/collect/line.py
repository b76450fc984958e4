"""HTTP/1.1 over one kept-alive connection, one request at a time, for thousands of connections in one loop.

Why not aiohttp, which the boot service uses: measured side by side on the 28 requests of a scan, aiohttp takes 6 to 8 ms
of CPU per BMC, asyncio's streams under the same parser 2.5, this 2.1, libcurl's multi interface 2.2; and a waiting
TLS connection takes 0.6 MB in asyncio's TLS layer (it clears a buffer of 256 KiB for each) and 0.1 MB here. So: plain
non-blocking sockets under the loop's selector, the TLS of the standard library, and httptools (llhttp, the parser of
Node.js) for what is easy to get wrong.

What a BMC sends is untrusted: head, body and time are bounded here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

import httptools

from metalimmu.bmc.collect.dial import Place, dial
from metalimmu.bmc.collect.headers import Headers
from metalimmu.bmc.unknown import BmcTimeout
from metalimmu.errors import BmcBroken, BmcError, BmcUnreachable

LARGEST_HEAD = 128 << 10
READ = 1 << 16
READS_AT_ONCE = 16
"""A BMC that sends faster than we read must not have the loop for itself."""


NEVER = float("inf")


class Times(NamedTuple):
    """Seconds: to connect; without a byte; for one answer in all; until `on_silence` is called."""

    connect: float
    idle: float
    whole: float
    silence: float = NEVER


class Response(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Broke(BmcUnreachable):
    """The connection ended before one byte of the answer had come: on a kept-alive one, an idle end that we ran into."""


class Line:
    """Opened by the first `exchange`, and again after it was closed by either side."""

    def __init__(self, place: Place, *, largest: int, on_silence: Callable[[], None] | None = None) -> None:
        self.place = place
        self.certificate = b""  # of the BMC, DER
        self.used = 0  # answers over the present connection
        self._largest = largest
        self._on_silence = on_silence
        self._sock: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Response] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._out = b""
        self._timer_at = NEVER
        self._pairs: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._got = 0
        self._head_complete = self._complete = self._keep = False

    async def exchange(self, request: bytes, times: Times) -> Response:
        """Send `request`, return the answer.

        Raises NotSent, BmcTimeout, BmcUnreachable (Broke), BmcCertificateError, BmcBroken.
        """
        self._times = times
        self._begin()
        waiter: asyncio.Future[Response] = self._loop.create_future()
        self._waiter = waiter
        try:
            if self._sock is None:
                await self._open(min(times.connect, times.whole))
            self._write(request)
            return await waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()

    @property
    def open(self) -> bool:
        return self._sock is not None

    def _begin(self) -> None:
        """Nothing has come yet, and from now on the time counts."""
        _, idle, whole, silence = self._times
        self._began = self._seen = now = self._loop.time()
        self._end = now + whole
        self._silent_at = now + silence
        self._pairs, self._parts, self._got = [], [], 0
        self._head_complete = self._complete = self._keep = False
        if self._timer is None or self._timer_at > now + min(idle, whole, silence):
            self._watch()

    # the connection

    async def _open(self, seconds: float) -> None:
        sock, self.certificate = await dial(self.place, seconds)
        self._sock = sock
        self.used = 0
        self._parser = httptools.HttpResponseParser(self)
        self._begin()
        self._loop.add_reader(sock.fileno(), self._readable)

    def _write(self, data: bytes) -> None:
        assert self._sock is not None  # noqa: S101  for the type checker
        self._out += data
        try:
            while self._out:
                self._out = self._out[self._sock.send(self._out) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
            self._loop.add_writer(self._sock.fileno(), self._writable)
        except OSError as exc:
            self._fail(self._broken(exc))

    def _writable(self) -> None:
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._write(b"")
            self._readable()

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            for _ in range(READS_AT_ONCE):
                data = sock.recv(READ)
                if not data:
                    self._ended()
                    return
                if self._waiter is None or self._waiter.done():  # nobody has asked for this
                    self.close()
                    return
                self._feed(data)
                if self._complete:
                    self._finish()
                    return
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        except ssl.SSLWantWriteError:
            self._loop.add_writer(sock.fileno(), self._writable)
            return
        except ssl.SSLEOFError:
            self._ended()
            return
        except httptools.HttpParserUpgrade:
            self._fail(BmcBroken(f"{self.place.base}: the answer switches to another protocol"))
            return
        except httptools.HttpParserError as exc:
            self._fail(BmcBroken(f"{self.place.base}: the answer is no HTTP: {exc}"))
            return
        except BmcError as exc:
            self._fail(exc)
            return
        except OSError as exc:
            self._fail(self._broken(exc))
            return
        self._loop.call_soon(self._readable)  # TLS may hold bytes that no selector sees

    def _ended(self) -> None:
        """The other side has closed. An answer without a length ends so."""
        if self._waiter is None or self._waiter.done():
            self.close()
        elif self._head_complete and not self._measured():
            self._keep = False
            self._finish()
        else:
            self._fail(self._broken(None))

    def _broken(self, exc: OSError | None) -> BmcUnreachable:
        words = str(exc.strerror or exc)[:200] if exc else "it was closed"
        kind = BmcUnreachable if self._got or not self.used else Broke
        return kind(f"{self.place.base}: the connection broke off: {words}")

    def _fail(self, error: BmcError) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # the clock: one timer for the connection, moved when it fires and not with each request

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = min(self._seen + self._times.idle, self._end, self._silent_at)
        self._timer = self._loop.call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done() or self._sock is None:  # `dial` has a clock of its own
            if self._waiter is not None and self._sock is None:
                self._silent()
            return
        now = self._loop.time()
        if now >= self._end:
            spent = now - self._began
            self._fail(BmcTimeout(f"{self.place.base}: the answer was not complete after {spent:.0f} s"))
        elif now >= self._seen + self._times.idle:
            self._fail(BmcTimeout(f"{self.place.base}: connected, but no answer in {self._times.idle:g} s"))
        else:
            self._silent()
            self._watch()

    def _silent(self) -> None:
        if self._loop.time() >= self._silent_at:
            self._silent_at = NEVER
            if self._on_silence:
                self._on_silence()

    # the answer

    def _feed(self, data: bytes) -> None:
        self._seen = self._loop.time()
        self._got += len(data)
        if self._got > self._largest + LARGEST_HEAD:
            raise BmcBroken(f"{self.place.base}: the answer is larger than {self._largest >> 20} MiB; reading stopped")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._complete:
                raise
            self._keep = False  # garbage behind the answer
        if not self._head_complete and self._got > LARGEST_HEAD:
            raise BmcBroken(f"{self.place.base}: the head of the answer is larger than {LARGEST_HEAD >> 10} KiB")

    def _finish(self) -> None:
        parts = self._parts
        response = Response(self._status, Headers(self._pairs), parts[0] if len(parts) == 1 else b"".join(parts))
        self.used += 1
        if not self._keep:
            self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(response)

    def _measured(self) -> bool:
        names = {name.lower() for name, _ in self._pairs}
        return b"content-length" in names or b"transfer-encoding" in names

    # what httptools calls

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer to one request
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete:
            self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        if not self._complete:
            self._head_complete = True
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self._status < 200:  # 100 Continue, 103 Early Hints: the answer comes after it
            self._pairs, self._head_complete = [], False
            return
        self._complete = True
        self._keep = self._parser.should_keep_alive()
