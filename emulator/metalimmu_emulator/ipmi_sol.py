"""Serial over LAN (IPMI 2.0, chapter 15), the BMC's side: a server's serial port in packets with numbers and receipts.

pyghmi's own waits inside for each receipt, and so for one client holds up all BMCs of a lab: this one never waits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOL_PAYLOAD = 1
MOST = 200  # characters in a packet
BUFFER = 256 << 10
AGAIN_SECONDS, TRIES = 1.0, 10
RETRY_CONNECT_SECONDS = 0.2
BREAK, NACK, UNAVAILABLE = 0x10, 0x40, 0x20


class Serial:
    """The machine's serial port: a Unix socket that is there while QEMU runs. QEMU takes one client at a time.

    What is typed goes into the socket. What the machine says is read from QEMU's log, and the socket only tells when: a
    machine may have said its first words before anybody could connect, and a BMC, which is wired to it, misses none.
    """

    def __init__(self, path: Path, log: Path) -> None:
        self._path, self._log = path, log
        self._at = 0  # of the log
        self._sock: socket.socket | None = None
        self._next = 0.0

    def listen(self) -> None:
        """From now on."""
        self._at = self._log.stat().st_size if self._log.exists() else 0

    def said(self) -> bytes:
        """What the machine has said since the last call."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._at)
                data = log.read(BUFFER)
        except FileNotFoundError:
            return b""
        self._at += len(data)
        return data

    def connect(self) -> int | None:
        """Its descriptor when it has just been connected; None otherwise, also while the machine is off."""
        if self._sock is not None or time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + RETRY_CONNECT_SECONDS
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = -1
        try:
            # sockaddr_un has 107 bytes for a path, and a path may be longer
            folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
            sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        except OSError:
            sock.close()
            return None
        finally:
            if folder >= 0:
                os.close(folder)
        self._sock = sock
        return sock.fileno()

    def gone(self) -> bool:
        """Empties the socket; true when the machine has gone away."""
        if self._sock is None:
            return True
        try:
            return not self._sock.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def write(self, data: bytes) -> None:
        """What the machine does not take is lost, as on any serial line."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.send(data)

    def close(self) -> int | None:
        sock, self._sock, self._next = self._sock, None, 0.0
        if sock is None:
            return None
        fd = sock.fileno()
        sock.close()
        return fd


class Sol:
    """One activated console. `send` puts a payload into the session; `heard` gets characters, `broke` a break."""

    def __init__(
        self, send: Callable[[bytearray], None], heard: Callable[[bytes], None], broke: Callable[[], None]
    ) -> None:
        self._send = send
        self._heard = heard
        self._broke = broke
        self._out = bytearray()  # not yet in a packet
        self._packet: bytes = b""  # on its way, without a receipt
        self._number = 0
        self._sent_at, self._tries = 0.0, 0
        self._last_in, self._last_size = 0, 0
        self.lost = False  # the client gives no receipts any more

    def say(self, data: bytes) -> None:
        self._out += data
        del self._out[:-BUFFER]
        self._pump()

    def tick(self) -> None:
        if self._packet and time.monotonic() - self._sent_at > AGAIN_SECONDS:
            if self._tries >= TRIES:
                self.lost = True
                return
            self._transmit()

    def got(self, payload: Any) -> None:
        """A packet of the client: number, number it has received, how much of that, flags, characters (15.9)."""
        if len(payload) < 4:
            return
        number, receipt, accepted, flags = payload[0] & 0x0F, payload[1] & 0x0F, payload[2], payload[3]
        if number:
            data = bytes(payload[4:])
            fresh = data if number != self._last_in else data[self._last_size :]
            self._last_in, self._last_size = number, len(data)
            self._send(bytearray((0, number, len(data), 0)))
            if flags & BREAK:
                self._broke()
            if fresh:
                self._heard(fresh)
        if receipt and receipt == self._number and self._packet:
            self._out[:0] = self._packet[accepted:]
            self._packet = b""
            self._pump()

    def _pump(self) -> None:
        if self._packet or not self._out:
            return
        self._packet = bytes(self._out[:MOST])
        del self._out[:MOST]
        self._number = self._number % 15 + 1
        self._tries = 0
        self._transmit()

    def _transmit(self) -> None:
        self._tries += 1
        self._sent_at = time.monotonic()
        self._send(bytearray((self._number, 0, 0, 0)) + self._packet)
