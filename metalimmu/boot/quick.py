"""Boot scripts without a web framework: what a whole rack asks for in one second when its power comes on.

A connection is looked at when its first bytes are there. If they ask for a boot script and the answer is in memory, it goes
out at once, on one kept-alive connection as often as wanted. Anything else is handed to the real server, with all that was
read. Without transports and protocols it takes a fraction of the time that aiohttp does (benchmarks.boot_scripts).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web

from metalimmu import log
from metalimmu.boot import quick_chunks
from metalimmu.boot.desk import Desk
from metalimmu.boot.listeners import BACKLOG
from metalimmu.boot.netboot import Netboot, Question
from metalimmu.boot.quick_chunks import Sending
from metalimmu.boot.scripts import Loader

PREFIX = b"GET /boot/ipxe?"
MOST = 8192  # bytes of a request's head
FIELD = 256  # characters

_END = b"\r\n\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: "
_STAYS = b"\r\nConnection: keep-alive\r\n\r\n"
_CLOSES = b"\r\nConnection: close\r\n\r\n"
_SWEEP = 1.0  # seconds

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = log.get("boot")


class Door:
    """Accepts on one listening socket. Call `close` when no more is to be accepted."""

    def __init__(
        self,
        netboot: Netboot,
        desk: Desk | None,
        sock: socket.socket,
        server: Callable[[bytes], asyncio.Protocol],
        *,
        most: int,
        idle: Callable[[], float],
    ) -> None:
        """`desk`: for chunks; None: there are none here. `server` makes the protocol that answers everything else; it is given what was read already. `idle`: seconds that a
        connection may go without a whole request.
        """
        self._netboot = netboot
        self._listening = sock
        self._server = server
        self._most = most
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._desk = desk
        self._sending: dict[socket.socket, Sending] = {}
        self._waiting: dict[socket.socket, tuple[bytes, str, float]] = {}  # what was read, from where, since when
        self._handed: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)
        self._timer = self._loop.call_later(_SWEEP, self._sweep)

    def close(self) -> None:
        self._timer.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
        for conn in list(self._waiting):
            self._end(conn)

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                conn, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # no more descriptors
                logger.warning("a connection was not accepted: %s", exc.strerror)
                return
            if len(self._waiting) >= self._most:
                logger.warning("more than %d connections: one was closed", self._most)
                conn.close()
                continue
            conn.setblocking(False)
            self._waiting[conn] = (b"", str(peer[0]).removeprefix("::ffff:"), self._loop.time())
            self._loop.add_reader(conn.fileno(), self._read, conn)

    def _read(self, conn: socket.socket) -> None:
        before, peer, since = self._waiting[conn]
        try:
            new = conn.recv(MOST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            new = b""
        if not new:
            self._end(conn)
            return
        data = before + new
        while data:
            end = data.find(_END)
            chunk = self._desk is not None and _begins(data, quick_chunks.PREFIX)
            asks = chunk or _begins(data, PREFIX)
            if asks and end < 0 and len(data) <= MOST:
                break  # the rest comes
            if chunk and end >= 0:
                sending, stays = self._chunk(data[:end])
                if sending is None or not stays:
                    self._waiting[conn] = (data, peer, self._loop.time())
                    self._loop.remove_reader(conn.fileno())
                    self._later(self._look_up(conn, end, stays=stays))
                    return
                self._sending[conn] = sending
                self._waiting[conn] = (data[end + len(_END) :], peer, self._loop.time())
                self._loop.remove_reader(conn.fileno())
                self._push(conn)
                return
            answer, stays = self._answer(data[:end], peer) if asks and end >= 0 else (None, True)
            if answer is None:
                self._hand_over(conn, data)
                return
            data = data[end + len(_END) :]
            if not self._sent(conn, answer) or not stays:
                self._end(conn)
                return
            since = self._loop.time()
        self._waiting[conn] = (data, peer, since)

    def _chunk(self, head: bytes) -> tuple[Sending | None, bool]:
        parts = _parts(head)
        if parts is None or self._desk is None or b"range" in head.lower():
            return None, True
        target, stays = parts
        return (quick_chunks.find(self._desk, target) if stays else None), stays

    async def _look_up(self, conn: socket.socket, end: int, *, stays: bool) -> None:
        """Its deployment was not in memory, or it asks for what is none: once more, then it is the real server's."""
        data, peer, _ = self._waiting[conn]
        parts = _parts(data[:end])
        if parts is not None and self._desk is not None and stays:
            await quick_chunks.learn(self._desk, parts[0])
        if conn not in self._waiting:
            return  # closed meanwhile
        sending, _ = self._chunk(data[:end]) if stays else (None, stays)
        if sending is None:
            self._hand_over(conn, data)
            return
        self._sending[conn] = sending
        self._waiting[conn] = (data[end + len(_END) :], peer, self._loop.time())
        self._push(conn)

    def _push(self, conn: socket.socket) -> None:
        """One chunk, then what was asked meanwhile."""
        sending = self._sending[conn]
        try:
            done = sending.push(conn)
        except OSError:
            self._end(conn)
            return
        data, peer, _ = self._waiting[conn]
        self._waiting[conn] = (data, peer, self._loop.time())
        if not done:
            self._loop.add_writer(conn.fileno(), self._push, conn)
            return
        self._loop.remove_writer(conn.fileno())
        sending.close()
        del self._sending[conn]
        if data:  # who asks before it has its answer is the real server's
            self._hand_over(conn, data)
        else:
            self._loop.add_reader(conn.fileno(), self._read, conn)

    def _answer(self, head: bytes, peer: str) -> tuple[bytes | None, bool]:
        """The whole answer, and whether the connection stays. None: somebody else answers."""
        parts = _parts(head)
        if parts is None:
            return None, True
        target, stays = parts
        text = self._netboot.quick(question(target.partition(b"?")[2].decode("latin-1"), peer))
        if text is None:
            return None, True
        return b"".join((_HEAD, str(len(text)).encode(), _STAYS if stays else _CLOSES, text)), stays

    def _sent(self, conn: socket.socket, answer: bytes) -> bool:
        """A script is far smaller than a socket's buffer: who does not take it whole does not read."""
        try:
            return conn.send(answer) == len(answer)
        except OSError:
            return False

    def _hand_over(self, conn: socket.socket, data: bytes) -> None:
        self._loop.remove_reader(conn.fileno())
        del self._waiting[conn]
        self._later(self._hand(conn, data))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._handed.add(task)
        task.add_done_callback(self._handed.discard)

    async def _hand(self, conn: socket.socket, data: bytes) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._server(data), conn)
        except OSError:
            conn.close()
        except asyncio.CancelledError:  # the service stops
            conn.close()
            raise

    def _end(self, conn: socket.socket) -> None:
        self._loop.remove_reader(conn.fileno())
        sending = self._sending.pop(conn, None)
        if sending is not None:
            self._loop.remove_writer(conn.fileno())
            sending.close()
        del self._waiting[conn]
        conn.close()

    def _sweep(self) -> None:
        old = self._loop.time() - self._idle()
        for conn in [c for c, (_, _, since) in self._waiting.items() if since < old]:
            self._end(conn)
        self._timer = self._loop.call_later(_SWEEP, self._sweep)


def _begins(data: bytes, prefix: bytes) -> bool:
    return data.startswith(prefix) if len(data) >= len(prefix) else prefix.startswith(data)


def _parts(head: bytes) -> tuple[bytes, bool] | None:
    """Target, and whether the connection stays. None: this is not for us to understand."""
    line, _, fields = head.partition(b"\r\n")
    _, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    lower = fields.lower()
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or b"content-length" in lower or b"transfer-encoding" in lower:
        return None
    stays = b"connection: close" not in lower and (version == b"HTTP/1.1" or b"connection: keep-alive" in lower)
    return target, stays


def question(query: str, peer: str, loader: Loader = "ipxe") -> Question:
    """From the query of the address. What cannot be read is not said."""
    said: dict[str, str] = {}
    for field in query[:MOST].split("&", 20):
        name, _, value = field.partition("=")
        said[name] = unquote_plus(value) if "%" in value or "+" in value else value
    return Question(
        loader,
        mac=said.get("mac", "")[:FIELD],
        uuid=said.get("uuid", "")[:FIELD],
        serial=said.get("serial", "")[:FIELD],
        vendor=said.get("vendor", "")[:FIELD],
        product=said.get("product", "")[:FIELD],
        platform=said.get("platform", "")[:FIELD],
        architecture=said.get("arch", "")[:FIELD],
        address=peer.removeprefix("::ffff:"),
    )
