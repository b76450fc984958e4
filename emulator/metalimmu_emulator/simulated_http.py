"""A small HTTP client for simulated machines: kept-alive, the controller's certificate pinned, standard library only."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT = 10.0  # seconds for one answer
BROKEN = (OSError, http.client.HTTPException)  # what a request raises when the network or the server is away


@dataclass(frozen=True)
class Answer:
    status: int
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Connection:
    """One kept-alive connection to one server; a broken one is opened again by the next request."""

    def __init__(self, url: str, pin: str = "", context: ssl.SSLContext | None = None) -> None:
        self._parts = urlsplit(url)
        self._pin = pin
        self._context = context
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Raises one of BROKEN."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(method, path, body=body, headers=headers or {})
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.headers))
        except BROKEN:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self._context or any_server())
        connection.connect()
        secured = connection.sock
        certificate = secured.getpeercert(binary_form=True) if isinstance(secured, ssl.SSLSocket) else None
        if self._pin and hashlib.sha256(certificate or b"").hexdigest() != self._pin:
            connection.close()
            raise OSError(f"{host}:{port} has another certificate than the pinned one")
        return connection


def any_server() -> ssl.SSLContext:
    """No names, no dates: the pin decides. BMCs that fetch media check nothing at all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def pieces(url: str, *, size: int = 1 << 20, context: ssl.SSLContext | None = None) -> Iterator[bytes]:
    """A file's content in ranges, as firmware reads a virtual drive. Raises one of BROKEN when it is not served."""
    connection = Connection(url, context=context)
    offset, total = 0, 1
    try:
        while offset < total:
            wanted = {"Range": f"bytes={offset}-{offset + size - 1}"}
            answer = connection.request("GET", urlsplit(url).path, headers=wanted)
            if answer.status != 206:
                raise OSError(f"the media is answered with {answer.status}")
            total = int(answer.headers["Content-Range"].rpartition("/")[2])
            offset += len(answer.data)
            yield answer.data
    finally:
        connection.close()
