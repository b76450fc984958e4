"""A file on a web server, read by ranges when somebody needs them (RFC 9110, 14): how a BMC reads its media.

Blocks read once are kept for a while: firmware and GRUB read the same sectors again and again, and what the
controller counts should be what the machine needed.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
import urllib.parse
from collections import OrderedDict

from metalimmu.errors import LabError

BLOCK = 128 << 10
BLOCKS = 64  # kept: 8 MiB
CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 20.0  # a controller that restarts meanwhile; a guest's SCSI commands wait 30


class MediaRefused(LabError):
    """`status` is the HTTP status that the BMC answers with."""

    default_hint = "check the URL and that the BMC can reach it"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class RemoteFile:
    """Asks for the size at once. Raises MediaRefused: status 400 when the URL is wrong, 502 when its server is."""

    def __init__(self, url: str, *, verify: bool = False) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise MediaRefused(f"{url}: only http://HOST/… and https://HOST/… can be read", status=400)
        self.url = url
        self._target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._parts = parts
        self._verify = verify
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._closed = False
        self.size = self._ask_size()

    def read(self, offset: int, length: int) -> bytes:
        """Raises OSError when the server does not give it, after some patience with one that is away."""
        if offset < 0 or offset + length > self.size:
            raise OSError(f"{self.url}: no bytes {offset} to {offset + length}")
        with self._lock:
            if self._closed:
                raise OSError(f"{self.url}: ejected")
            first, last = offset // BLOCK, max(offset + length - 1, offset) // BLOCK
            data = b"".join(self._get(range(first, last + 1)))
        start = offset - first * BLOCK
        return data[start : start + length]

    def close(self) -> None:
        """Also ends a read that waits for a server that is away or silent."""
        self._closed = True
        connection = self._connection
        if connection and connection.sock:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._drop()

    def _get(self, wanted: range) -> list[bytes]:
        """Those that are missing come in one request."""
        missing = [n for n in wanted if n not in self._blocks]
        got = {n: self._blocks[n] for n in wanted if n in self._blocks}
        if missing:
            start, end = missing[0] * BLOCK, min((missing[-1] + 1) * BLOCK, self.size)
            data = self._patiently(start, end)
            got |= {n: data[n * BLOCK - start : (n + 1) * BLOCK - start] for n in range(missing[0], missing[-1] + 1)}
        for number in wanted:
            self._blocks[number] = got[number]
            self._blocks.move_to_end(number)
        while len(self._blocks) > BLOCKS:
            self._blocks.popitem(last=False)
        return [got[n] for n in wanted]

    def _patiently(self, start: int, end: int) -> bytes:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                status, body = self._request(start, end)
            except (OSError, http.client.HTTPException) as exc:
                self._drop()
                if self._closed or time.monotonic() > deadline:
                    raise OSError(f"{self.url}: {exc}") from exc
                time.sleep(0.2)
                continue
            if status in (429, 500, 502, 503, 504) and not self._closed and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            if status != 206 or len(body) != end - start:
                raise OSError(f"{self.url}: bytes {start} to {end}: status {status}, {len(body)} bytes")
            return body

    def _request(self, start: int, end: int) -> tuple[int, bytes]:
        connection = self._connect()
        connection.request("GET", self._target, headers={"Range": f"bytes={start}-{end - 1}"})
        answer = connection.getresponse()
        if answer.status != 206:
            self._drop()  # without reading a body of any length
            return answer.status, b""
        return answer.status, answer.read(end - start + 1)

    def _ask_size(self) -> int:
        try:
            connection = self._connect()
            connection.request("HEAD", self._target)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise MediaRefused(f"{self.url}: cannot be read: {exc}", status=502) from exc
        finally:
            self._drop()  # who knows when the next one comes
        if answer.status != 200:
            status = 502 if answer.status >= 500 else 400
            raise MediaRefused(f"{self.url}: its server answers {answer.status}", status=status)
        size = answer.headers.get("Content-Length", "")
        if answer.headers.get("Accept-Ranges", "").lower() != "bytes" or not size.isdigit() or not int(size):
            raise MediaRefused(f"{self.url}: its server does not offer byte ranges", status=400)
        return int(size)

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, port = str(self._parts.hostname), self._parts.port
            if self._parts.scheme == "https":
                context = ssl.create_default_context()
                if not self._verify:  # most BMCs do not
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                self._connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        return self._connection

    def _drop(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None
