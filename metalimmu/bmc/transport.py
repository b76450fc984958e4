"""HTTP to one BMC: one kept-alive connection, one TLS context for the whole process.

sushy's own connector sends `Connection: close` and urllib3 then reads the CA store again for each connection: 17 ms
of CPU for each request, even with verification off. Nothing here retries, logs in or knows Redfish.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

from metalimmu.bmc.answers import Answer
from metalimmu.bmc.tls import context_and_pin as _context_and_pin
from metalimmu.bmc.tls import say_once as _say_once
from metalimmu.bmc.unknown import BmcTimeout, NotSent
from metalimmu.desired.types import Tls
from metalimmu.errors import BmcBroken, BmcCertificateError, BmcError, BmcUnreachable, UsageError

__all__ = ["IDLE", "LARGEST_BODY", "WHOLE", "NotSent", "Transport"]

LARGEST_BODY = 32 << 20  # HPE's attribute registries have 5 MB
IDLE = 4.0
"""Seconds after which a kept-alive connection is not trusted with a write: BMCs close idle ones without a word."""

WHOLE = 4
"""How many read timeouts a whole answer may take."""


class Transport:
    """Blocking; its owner sends one request at a time."""

    def __init__(
        self,
        base: str,
        *,
        tls: Tls | None = None,
        proxy: str | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 60.0,
        largest: int = LARGEST_BODY,
    ) -> None:
        self.base = base
        self._timeouts = (connect_timeout, read_timeout)
        self._largest = largest
        self._used = 0.0
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.proxies = {"http": proxy, "https": proxy} if proxy else {}
        if base.startswith("https:"):
            self._adapter = _Adapter(*_context_and_pin(tls or Tls(), base))
            if not (tls or Tls()).verify:  # said aloud once, not for each request
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        else:
            self._adapter = _Adapter(None, None)
            _say_once(f"{base}: the BMC is spoken to in the clear; anybody on that network reads the password")
        self._session.mount(base, self._adapter)

    def send(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Any HTTP status is an answer. Raises NotSent, BmcUnreachable, BmcTimeout, BmcCertificateError, BmcBroken."""
        if method != "GET" and time.monotonic() - self._used > IDLE:
            self.drop()
        limit = WHOLE * self._timeouts[1] + self._timeouts[0]
        with _Watch(self._adapter.live, limit) as watch:
            try:
                answer = self._exchange(method, url, body, headers or {})
            except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
                self.drop()
                if not watch.cut:
                    raise _translated(exc, self.base) from exc
            finally:
                self._used = time.monotonic()
        if watch.cut:  # headers that break off count as complete for http.client
            self.drop()
            raise BmcTimeout(f"{url}: the answer was not complete after {limit:.0f} s")
        return answer

    def _exchange(self, method: str, url: str, body: Any, headers: Mapping[str, str]) -> Answer:
        try:
            with self._session.request(
                method,
                url,
                json=body,
                headers=dict(headers),
                timeout=self._timeouts,
                stream=True,
                allow_redirects=False,
            ) as response:
                return Answer(response.status_code, response.headers, self._body(response, url), url=url)
        except requests.exceptions.InvalidSchema as exc:
            raise UsageError(f"{self.base}: {exc}", hint="a socks5:// proxy needs the package PySocks") from exc

    def _body(self, response: requests.Response, url: str) -> bytes:
        parts, size = [], 0
        while part := response.raw.read1(1 << 16, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > self._largest:
                self.drop()
                raise BmcBroken(f"{url}: the answer is larger than {self._largest >> 20} MiB; reading stopped")
        return b"".join(parts)

    @contextlib.contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """Meanwhile no wait is longer than this."""
        usual = self._timeouts
        self._timeouts = (min(usual[0], seconds), min(usual[1], seconds))
        try:
            yield
        finally:
            self._timeouts = usual

    def drop(self) -> None:
        """Close the connection; the next request opens one."""
        self._adapter.close()

    def close(self) -> None:
        self._session.close()


class _Watch:
    """Cuts the connection when one request takes too long in all. A read timeout alone lets a BMC drip one byte a minute
    for ever, in its headers too, where nobody can look at a clock between two bytes.
    """

    def __init__(self, live: list[Any], seconds: float) -> None:
        self.cut = False
        self._live = live
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def _cut(self) -> None:
        self.cut = True
        for connection in self._live:
            sock = getattr(connection, "sock", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        with contextlib.suppress(RuntimeError):  # at interpreter exit no thread can be started; the log-out goes on
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


class _Adapter(HTTPAdapter):
    """One connection, known to `live`. Hands urllib3 a ready TLS context, so that it loads no CA file, and the pin, which
    it checks before a request is sent.
    """

    def __init__(self, context: ssl.SSLContext | None, pin: str | None) -> None:
        self.live: list[Any] = []
        self._tls: dict[str, Any] = {"ssl_context": context} if context else {}
        if pin:
            self._tls["assert_fingerprint"] = pin
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self.live)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # that one has connections of its own
            manager.pool_classes_by_scheme = _pools(self.live)
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> tuple[Any, Any]:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, dict(self._tls)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The context has it all."""


def _pools(live: list[Any]) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools, whose connection is in `live` from before it is made."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            live[:] = [self]
            super().connect()

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            live[:] = [self]
            super().connect()

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _chain(exc: BaseException) -> list[BaseException]:
    """The error and all that it was made from: requests and urllib3 wrap and wrap."""
    found: list[BaseException] = []
    todo: list[object] = [exc]
    while todo and len(found) < 20:
        one = todo.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def _translated(exc: Exception, base: str) -> BmcError:
    chain = _chain(exc)
    words = _words(chain)

    def made_from(*kinds: type[BaseException]) -> bool:
        return any(isinstance(e, kinds) for e in chain)

    if made_from(ssl.SSLCertVerificationError) or "Fingerprints did not match" in str(exc):
        return BmcCertificateError(f"{base}: the certificate is not the expected one: {words}")
    if made_from(ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError):
        return BmcUnreachable(f"{base}: the connection broke off: {words}")
    if made_from(ssl.SSLError) and not made_from(TimeoutError):
        return BmcCertificateError(
            f"{base}: no TLS connection: {words}", hint="is this port HTTPS? Is the BMC's TLS too old?"
        )
    # Before ConnectTimeoutError: urllib3 makes it a kind of that.
    if made_from(NewConnectionError, ProxyError):
        return NotSent(f"{base}: no TCP connection: {words}")
    if made_from(ConnectTimeoutError):
        return NotSent(f"{base}: no TCP connection in time")
    if made_from(requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        return BmcTimeout(f"{base}: connected, but no answer in time")
    if made_from(urllib3.exceptions.DecodeError, requests.exceptions.ContentDecodingError):
        return BmcBroken(f"{base}: the answer's compression is broken: {words}")
    return BmcUnreachable(f"{base}: the connection broke off: {words}")


def _words(chain: list[BaseException]) -> str:
    """The innermost error that says something."""
    inner = next((e for e in reversed(chain) if isinstance(e, OSError) and str(e)), chain[0])
    return str(getattr(inner, "strerror", None) or inner)[:300]
