"""One connection to a BMC: TLS in memory, HTTP/1.1, and the faults of the wire.

TLS is done here with `ssl.MemoryBIO` and not by asyncio: that takes half the time per request, and a fault can bite in the
middle of a handshake.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import unquote

from metalimmu_emulator.fleet import service
from metalimmu_emulator.fleet.faults import Fault
from metalimmu_emulator.fleet.message import REASONS, Answer, Request, error
from metalimmu_emulator.fleet.persona import Persona

LARGEST_HEAD = 64 << 10
LARGEST_BODY = 128 << 20
HANDSHAKE_SECONDS = 60.0
COMMON = b"OData-Version: 4.0\r\nCache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"


class Ways(NamedTuple):
    """How a fleet serves. `strange` has a certificate that no client knows."""

    tls: ssl.SSLContext | None
    strange: ssl.SSLContext | None
    latency: float


class Connection(asyncio.Protocol):
    def __init__(self, persona: Persona, ways: Ways, gone: Callable[[Connection], None]) -> None:
        self.persona = persona
        self._ways = ways
        self._gone = gone
        self._known: set[bytes] = set()  # Basic logins seen here
        self._buffer = bytearray()
        self._busy = False
        self._closing = False
        self._tls: ssl.SSLObject | None = None
        self._shaken = True
        self._timers: list[asyncio.TimerHandle] = []

    # the wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # create_server makes no others
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        counters = self.persona.counters
        counters.connections += 1
        counters.open_connections += 1
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.persona.away_until > time.monotonic():
            self.cut()
            return
        context = self._ways.tls
        fault = self.persona.fault("tls", "", "") if context and self.persona.faults else None
        if fault is not None and fault.kind == "other":
            context = self._ways.strange
        elif fault is not None:
            if fault.kind != "close":
                transport.write(b"220 this is no TLS\r\n")
            transport.close()
            return
        if context is not None:
            self._shaken = False
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._timers.append(self._loop.call_later(HANDSHAKE_SECONDS, self._not_shaken))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.persona.counters.open_connections -= 1
        self._closing = True
        for timer in self._timers:
            timer.cancel()
        if self._busy:
            self._answered()
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._tls is None:
            self._buffer += data
        else:
            self._incoming.write(data)
            if not self._decrypt(self._tls):
                return
        self._serve()

    def _decrypt(self, tls: ssl.SSLObject) -> bool:
        try:
            if not self._shaken:
                tls.do_handshake()
                self._shaken = True
                self._timers.pop().cancel()
            while part := tls.read(1 << 16):
                self._buffer += part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._flush()
            self._transport.close()
            return False
        else:
            self._transport.close()  # close_notify
        self._flush()
        return True

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def _not_shaken(self) -> None:
        if not self._shaken:
            self._transport.close()

    def send(self, data: bytes) -> None:
        if self._closing:
            return
        if self._tls is None:
            self._transport.write(data)
        else:
            self._tls.write(data)
            self._flush()

    def cut(self) -> None:
        """Connection reset by peer."""
        self._closing = True
        sock: socket.socket = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # requests, one after the other

    def _serve(self) -> None:
        if self._busy or self._closing:
            return
        try:
            request = self._parse()
        except ValueError:
            self._busy = True
            self._deliver(error(400, "UnrecognizedRequestBody"), None, last=True)
            return
        if request is not None:
            self._take(request)

    def _parse(self) -> Request | None:
        """None: not all of it is here. Raises ValueError for what is no HTTP."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > LARGEST_HEAD:
                raise ValueError("head")
            return None
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        method, target, version = lines[0].split(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ValueError("version")
        headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError("header")
            headers[name.lower()] = value.strip()
        body = self._body(headers, end + 4)
        if body is None:
            return None
        path, _, query = target.decode("latin-1").partition("?")
        if path[:4] == "http":  # absolute form, through a proxy
            path = "/" + path.partition("://")[2].partition("/")[2]
        return Request(method.decode("latin-1"), unquote(path) if "%" in path else path, query, headers, body)

    def _body(self, headers: dict[bytes, bytes], start: int) -> bytes | None:
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            found = _unchunked(self._buffer, start)
            if found is None:
                self._go_on(headers)
                return None
            body, end = found
        else:
            size = int(headers.get(b"content-length", b"0"))
            if not 0 <= size <= LARGEST_BODY:
                raise ValueError("size")
            end = start + size
            if len(self._buffer) < end:
                self._go_on(headers)
                return None
            body = bytes(self._buffer[start:end])
        del self._buffer[:end]
        self._asked_on = False
        return body

    _asked_on = False

    def _go_on(self, headers: dict[bytes, bytes]) -> None:
        if headers.get(b"expect", b"").lower() == b"100-continue" and not self._asked_on:
            self._asked_on = True
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, request: Request) -> None:
        persona, counters = self.persona, self.persona.counters
        self._busy = True
        now = time.time()
        counters.requests += 1
        counters.first = counters.first or now
        counters.last = now
        persona.in_flight += 1
        counters.most_in_flight = max(counters.most_in_flight, persona.in_flight)
        delay = self._ways.latency
        for fault in persona.faults:
            if fault.name in ("silent", "refuse", "slow", "busy") and fault.bites(request.method, request.path):
                if fault.name == "slow":
                    delay += fault.delay
                elif fault.name == "busy":
                    self._later(delay, self._deliver, _busy(fault), request)
                    return
                elif fault.name == "refuse":
                    self._later(delay, self.cut)
                    return
                else:
                    return  # never answered; the client ends it
        self._later(delay, self._work, request)

    def _later(self, delay: float, act: Callable[..., None], *args: object) -> None:
        if delay > 0:
            self._timers = [t for t in self._timers if t.when() > self._loop.time() and not t.cancelled()]
            self._timers.append(self._loop.call_later(delay, act, *args))
        else:
            act(*args)

    def _work(self, request: Request) -> None:
        if self._closing:
            return
        self._deliver(service.answer(self.persona, request, self._known), request)

    def _deliver(self, answer: Answer, request: Request | None, *, last: bool = False) -> None:
        if self._closing:
            return
        if answer.status >= 400:
            self.persona.counters.errors += 1
        method = request.method if request else "GET"
        last = last or self.persona.template.traits.closes
        last = last or (request is not None and request.headers.get(b"connection", b"").lower() == b"close")
        head, body = self._framed(answer, method, last=last)
        self.persona.counters.bytes_sent += len(body)
        for fault in self.persona.faults if request else ():
            if (
                fault.name in ("reset", "truncated", "drip")
                and answer.body
                and fault.bites(method, request.path if request else "")
            ):
                self._broken(fault, head, body)
                return
        self.send(head + body)
        self._answered()
        if last:
            self._transport.close()
            self._closing = True
        elif self._buffer:
            self._loop.call_soon(self._serve)

    def _answered(self) -> None:
        self._busy = False
        self.persona.in_flight -= 1 if self.persona.in_flight > 0 else 0

    def _framed(self, answer: Answer, method: str, *, last: bool) -> tuple[bytes, bytes]:
        traits = self.persona.template.traits
        head = [b"HTTP/1.1 %d %s\r\n" % (answer.status, REASONS.get(answer.status, b"Unknown")), COMMON]
        if traits.date:
            head.append(_date(int(self.persona.now())))
        head += [b"%s: %s\r\n" % h for h in answer.headers]
        body = answer.body
        if answer.status not in (204, 304):
            if body:
                head.append(b"Content-Type: %s\r\n" % answer.content_type)
            if traits.chunked_over is not None and len(body) > traits.chunked_over:
                head.append(b"Transfer-Encoding: chunked\r\n")
                body = _chunked(body)
            else:
                head.append(b"Content-Length: %d\r\n" % len(body))
        if last:
            head.append(b"Connection: close\r\n")
        head.append(b"\r\n")
        return b"".join(head), b"" if method == "HEAD" else body

    def _broken(self, fault: Fault, head: bytes, body: bytes) -> None:
        if fault.name == "truncated":  # the right length for half of the JSON: only a parser sees it
            half = body[: len(body) // 2]
            head = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(half))
            self.send(head + half)
            self._answered()
            if b"chunked" in head:
                self._transport.close()
        elif fault.name == "reset":
            self.send(head + body[: len(body) // 2])
            self._answered()
            self._loop.call_soon(self.cut)
        else:
            self._drip(head + body, fault.every)

    def _drip(self, rest: bytes, every: float) -> None:
        if self._closing or not rest:
            self._answered()
            return
        self.send(rest[:1])
        self._later(every, self._drip, rest[1:], every)


def _busy(fault: Fault) -> Answer:
    after = fault.retry_after
    headers = ((b"Retry-After", f"{after:g}".encode()),) if after is not None else ()
    return error(fault.status or 503, "ServiceTemporarilyUnavailable", f"{after or 0:g}", headers=headers)


def _chunked(body: bytes, size: int = 4000) -> bytes:
    out = []
    for i in range(0, len(body), size):
        part = body[i : i + size]
        out.append(b"%x\r\n%s\r\n" % (len(part), part))
    out.append(b"0\r\n\r\n")
    return b"".join(out)


def _unchunked(buffer: bytearray, at: int) -> tuple[bytes, int] | None:
    """(body, end), None when there is more to come. Raises ValueError."""
    parts: list[bytes] = []
    while True:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(bytes(buffer[at:line]).partition(b";")[0], 16)
        if not 0 <= size <= LARGEST_BODY:
            raise ValueError("size")
        start, at = line + 2, line + 2 + size + 2
        if len(buffer) < at:
            return None
        if size == 0:
            return b"".join(parts), at
        parts.append(bytes(buffer[start : start + size]))


_dates: dict[int, bytes] = {}


def _date(second: int) -> bytes:
    found = _dates.get(second)
    if found is None:
        if len(_dates) > 1000:
            _dates.clear()
        found = _dates[second] = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
    return found
