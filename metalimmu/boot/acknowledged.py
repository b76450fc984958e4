"""Has the other side really got it? A write that returned only means that our kernel has the bytes, up to some megabytes.

Where a delivery counts, its last byte must have been acknowledged by the reader's TCP (SIOCOUTQ of Linux, tcp(7)). The
socket is held by a second descriptor: a reader that has all of it may close the connection before we have looked.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
import time

_LOOK = 0.02  # seconds
_CLOSED = 7  # TCP_CLOSE of the kernel's tcp_states.h: reset, or given up


class Watched:
    """One connection, from before its answer is sent. Its transport's buffer is kept empty: a write returns when the kernel
    has all of it.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        transport.set_write_buffer_limits(high=0)
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    async def acknowledged(self, limit: float) -> bool:
        """Waits for `limit` seconds at most."""
        end = time.monotonic() + limit
        while self._unsent() > 0:
            if self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == _CLOSED:
                return False
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_LOOK)
        return True

    def close(self) -> None:
        self._socket.close()

    def _unsent(self) -> int:
        """Bytes that were written and not acknowledged."""
        found: int = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        return found
