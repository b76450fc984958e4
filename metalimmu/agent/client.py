"""The way to the controller: TLS to exactly one certificate, short JSON messages, patience.

The pin is the SHA-256 of the certificate (DER), brought by the boot media. Name and dates are not looked at: bare
machines' clocks are wrong. Nothing, and so no token, is sent before the pin was compared.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import random
import ssl
import time
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from metalimmu.errors import AgentError, AgentRefused, FetchFailed
from metalimmu.wire import codec
from metalimmu.wire.messages import (
    Assignment,
    CheckIn,
    Failure,
    Orders,
    Progress,
    Refusal,
    Report,
    RunTimeConfig,
)

T = TypeVar("T")

MESSAGE_LIMIT = 4 << 20  # bytes of a message; the run-time config is the largest
MANIFEST_LIMIT = 256 << 20  # 64 bytes a chunk: an image of 3 TiB
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
IDLE = 4.0


class Unreachable(FetchFailed):
    """No connection, no answer, or a 5xx: the same request may succeed later."""


class Refused(AgentRefused):
    """The controller understood and said no."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(f"the controller refuses ({status} {refusal.code}): {refusal.message}", hint=refusal.hint)
        self.status = status


class Backoff:
    """Pauses in seconds: doubling, with jitter, so that a rack of agents does not return in one moment."""

    def __init__(self, first: float = 0.25, most: float = 10.0) -> None:
        self._first, self._most, self._next = first, most, first

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, self._most)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    def reset(self) -> None:
        self._next = self._first


class PinnedConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int | None, pin: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # compared in connect()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        super().__init__(host, port, timeout=CONNECT_TIMEOUT, context=context)
        self._pin = pin.lower().replace(":", "")

    def connect(self) -> None:
        super().connect()
        seen = hashlib.sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(seen, self._pin):
            self.close()
            raise ssl.SSLError(f"certificate has SHA-256 {seen}, the boot media says {self._pin}")
        self.sock.settimeout(READ_TIMEOUT)


class PlainConnection(http.client.HTTPConnection):
    """For chunks only: each is checked against the manifest."""

    def __init__(self, host: str, port: int | None) -> None:
        super().__init__(host, port, timeout=CONNECT_TIMEOUT)

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


def connection(url: SplitResult, pin: str) -> http.client.HTTPConnection:
    """Raises AgentError for what is no http(s) URL."""
    try:
        host, port = url.hostname, url.port
    except ValueError as exc:
        raise AgentError(f"the controller gave an URL with a wrong port: {url.geturl()!r}") from exc
    if not host or url.scheme not in ("http", "https"):
        raise AgentError(f"the controller gave no usable URL: {url.geturl()!r}")
    return PinnedConnection(host, port, pin) if url.scheme == "https" else PlainConnection(host, port)


def close_if_idle(link: http.client.HTTPConnection, used: float) -> float:
    """Servers and firewalls drop idle connections, some after five seconds: that must not look like a broken network.

    `used`: when it was used last, by time.monotonic; returns now.
    """
    now = time.monotonic()
    if now - used > IDLE:
        link.close()
    return now


def bounded(response: http.client.HTTPResponse, limit: int) -> bytes:
    """The whole body. Raises Unreachable when it is longer than `limit` bytes or breaks off."""
    body = response.read(limit + 1)
    if len(body) > limit:
        raise Unreachable(f"the controller's answer is longer than {limit} bytes")
    if response.length:  # what Content-Length still promises
        raise Unreachable(f"the controller's answer broke off, {response.length} bytes short")
    return body


class Controller:
    """One kept-alive connection; one thread uses it. Every method raises Unreachable or Refused."""

    def __init__(self, url: str, token: str, pin: str) -> None:
        self._url = urlsplit(url)
        if self._url.scheme != "https":
            raise AgentError(f"the boot media's controller URL {url!r} is not https://: the token would be readable")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._connection = connection(self._url, pin)
        self._used = 0.0

    def check_in(self, message: CheckIn) -> Assignment:
        return self._message("POST", "/v1/check-in", Assignment, message)

    def manifest(self, digest: str) -> bytes:
        """The canonical bytes. Raises FetchFailed when they do not have that digest."""
        sha = digest.removeprefix("sha256:")
        data = self._request("GET", f"/v1/manifest/{sha}", None, MANIFEST_LIMIT)
        if hashlib.sha256(data).hexdigest() != sha:
            raise FetchFailed(f"the controller's manifest is not the one with digest {digest}")
        return data

    def config(self) -> RunTimeConfig:
        return self._message("GET", "/v1/config", RunTimeConfig)

    def progress(self, message: Progress) -> Orders:
        return self._message("POST", "/v1/progress", Orders, message)

    def report(self, message: Report) -> Orders:
        return self._message("POST", "/v1/report", Orders, message)

    def failure(self, message: Failure) -> Orders:
        return self._message("POST", "/v1/failure", Orders, message)

    def salvage(self, name: str, content: Callable[[], Iterable[bytes]]) -> None:
        """Send one archive, from its beginning each time that this is called. A controller that takes none says so first."""
        path = f"/v1/salvage/{name}"
        self._request("POST", path, None, MESSAGE_LIMIT)
        headers = self._headers | {"Content-Type": "application/zstd"}
        self._connection.close()
        try:
            self._connection.request("PUT", self._url.path.rstrip("/") + path, content(), headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered before it heard all: it says why
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise Unreachable(f"PUT {path} at {self._url.netloc}: {exc or type(exc).__name__}") from exc
        try:
            self._answer(f"PUT {path}", MESSAGE_LIMIT)
        finally:
            self._connection.close()

    def close(self) -> None:
        self._connection.close()

    def _message(self, method: str, path: str, answer: type[T], message: object = None) -> T:
        data = self._request(method, path, None if message is None else codec.encode(message), MESSAGE_LIMIT)
        try:
            return codec.decode(answer, data)
        except codec.WireError as exc:
            raise Unreachable(f"{method} {path}: the answer is not what was agreed: {exc}") from exc

    def _request(self, method: str, path: str, body: bytes | None, limit: int) -> bytes:
        self._used = close_if_idle(self._connection, self._used)
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            self._connection.request(method, self._url.path.rstrip("/") + path, body, headers)
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise Unreachable(f"{method} {path} at {self._url.netloc}: {exc or type(exc).__name__}") from exc
        return self._answer(f"{method} {path}", limit)

    def _answer(self, asked: str, limit: int) -> bytes:
        try:
            response = self._connection.getresponse()
            data = bounded(response, limit)
        except (OSError, http.client.HTTPException, Unreachable) as exc:
            self._connection.close()
            raise Unreachable(f"{asked} at {self._url.netloc}: {exc or type(exc).__name__}") from exc
        if response.status == 200:
            return data
        if response.status >= 500 or response.status in (408, 425, 429):
            raise Unreachable(f"{asked}: the controller answered {response.status}")
        raise Refused(response.status, _refusal(data))


def _refusal(data: bytes) -> Refusal:
    try:
        return codec.decode(Refusal, data)
    except codec.WireError:  # a proxy, or an address that is no controller
        return Refusal("", data[:200].decode(errors="replace").strip() or "no reason given")
