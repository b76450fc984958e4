"""Chunks without a web framework, for agents that fetch an image at the same time: see quick."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass

from metalimmu.boot.desk import Desk
from metalimmu.errors import MetalimmuError

PREFIX = b"GET /c/"

_TARGET = re.compile(rb"/c/([a-z2-7]{1,64})/([0-9a-f]{64})\Z")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/zstd\r\nContent-Length: %d\r\n\r\n"


@dataclass
class Sending:
    """One file on its way; the bytes that went out are counted, whether or not it gets to its end."""

    desk: Desk
    deployment: str
    fd: int
    head: bytes
    size: int
    at: int = 0

    def push(self, conn: socket.socket) -> bool:
        """As much as the socket takes; True: that was all. Raises OSError when the reader has gone."""
        try:
            while self.head:
                self.head = self.head[conn.send(self.head, socket.MSG_MORE) :]
            while self.at < self.size:
                sent = os.sendfile(conn.fileno(), self.fd, self.at, self.size - self.at)
                if sent == 0:
                    raise ConnectionResetError("the file became shorter while it was served")
                self.at += sent
                self.desk.recorder.sent(self.deployment, chunks=sent)
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


async def learn(desk: Desk, target: bytes) -> None:
    """Have deployment and image of such an address in memory, if there are any."""
    found = _TARGET.match(target)
    if found is None or desk.racks.limited:
        return
    with suppress(MetalimmuError):  # whoever answers instead of us says it
        deployment = await desk.running("chunk", found[1].decode())
        if deployment is not None:
            await desk.image(deployment.digest)


def find(desk: Desk, target: bytes) -> Sending | None:
    """None: somebody else answers. It is not known yet, is nobody's, cannot be read, or is counted out to its rack."""
    found = _TARGET.match(target)
    if found is None or desk.racks.limited:
        return None
    secret, sha = found[1].decode(), found[2].decode()
    deployment = desk.known("chunk", secret)
    image = desk.loaded(deployment.digest) if deployment is not None else None
    if deployment is None or image is None or sha not in image.chunks:
        return None
    with suppress(OSError):
        fd = os.open(desk.images.chunk_path(sha), os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(fd).st_size
        return Sending(desk, deployment.id, fd, _HEAD % size, size)
    return None
