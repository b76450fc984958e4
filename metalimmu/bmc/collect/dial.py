"""From an address to a connected, non-blocking socket: TCP, a proxy if there is one, TLS, and the pin before anything is sent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from typing import NamedTuple
from urllib.parse import SplitResult

from metalimmu.bmc.collect import proxy
from metalimmu.bmc.unknown import BmcTimeout, NotSent, ProxyUnusable
from metalimmu.errors import BmcCertificateError, BmcError, BmcUnreachable

HINT_TLS = "is this port HTTPS? Is the BMC's TLS too old?"


class Place(NamedTuple):
    """Where a BMC is, and how it shows that it is the one."""

    base: str  # its URL, for messages
    host: str
    port: int
    context: ssl.SSLContext | None  # None: plain HTTP
    pin: str | None  # SHA-256 of the certificate, lower-case hex
    proxy: SplitResult | None


class Dialled(NamedTuple):
    sock: socket.socket
    certificate: bytes  # DER; empty without TLS


async def dial(place: Place, seconds: float) -> Dialled:
    """Raises NotSent, BmcTimeout (a TCP connection and then silence), BmcCertificateError, BmcUnreachable."""
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(seconds):
            if place.proxy is None:
                sock = await _reach(place)
            else:
                try:
                    sock = await _reach(place)
                except OSError as exc:
                    raise _no_proxy(place.proxy, exc) from exc
                await proxy.tunnel(sock, place.proxy, place.host, place.port)
            if place.context is None:
                return Dialled(sock, b"")
            sock = _wrapped(sock, place)
            await _shake_hands(sock)
        return Dialled(sock, _checked(sock, place))
    except BaseException as exc:
        if sock is not None:
            sock.close()
        if isinstance(exc, (OSError, ValueError)):  # TimeoutError is an OSError; ValueError: no host name at all
            raise _translated(exc, place, connected=isinstance(sock, ssl.SSLSocket)) from exc
        raise


async def _reach(place: Place) -> socket.socket:
    """The first of its addresses that takes a connection."""
    loop = asyncio.get_running_loop()
    host, port = proxy.address(place.proxy) if place.proxy else (place.host, place.port)
    error: OSError | None = None
    for family, address in await _addresses(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            error = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise error or OSError(f"{host} has no address")


async def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """Without a look into the resolver where the host is an address already."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def _wrapped(sock: socket.socket, place: Place) -> ssl.SSLSocket:
    assert place.context is not None  # noqa: S101  for the type checker
    return place.context.wrap_socket(
        sock, server_hostname=place.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )


async def _shake_hands(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    number = sock.fileno()
    while True:
        ready = loop.create_future()
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            loop.add_reader(number, _done, ready)
            try:
                await ready
            finally:
                loop.remove_reader(number)
        except ssl.SSLWantWriteError:
            loop.add_writer(number, _done, ready)
            try:
                await ready
            finally:
                loop.remove_writer(number)
        else:
            return


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _checked(sock: ssl.SSLSocket, place: Place) -> bytes:
    certificate = sock.getpeercert(binary_form=True) or b""
    if place.pin and hashlib.sha256(certificate).hexdigest() != place.pin:
        raise BmcCertificateError(
            f"{place.base}: the certificate is not the expected one: its fingerprint is "
            f"{hashlib.sha256(certificate).hexdigest()}"
        )
    return certificate


def _translated(exc: OSError | ValueError, place: Place, *, connected: bool) -> BmcError:
    base = place.base
    number = exc.errno if isinstance(exc, OSError) and not isinstance(exc, (ssl.SSLError, socket.gaierror)) else None
    words = os.strerror(number) if number else str(getattr(exc, "strerror", None) or exc or type(exc).__name__)[:300]
    if isinstance(exc, ssl.SSLCertVerificationError):
        return BmcCertificateError(f"{base}: the certificate is not the expected one: {exc.verify_message}")
    if isinstance(exc, TimeoutError):
        if connected:
            return BmcTimeout(f"{base}: connected, but no TLS in time")
        return NotSent(f"{base}: no TCP connection in time")
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)) and connected:
        return BmcUnreachable(f"{base}: the connection broke off in the TLS handshake: {words}")
    if isinstance(exc, ssl.SSLError):
        return BmcCertificateError(f"{base}: no TLS connection: {words}", hint=HINT_TLS)
    return NotSent(f"{base}: no TCP connection: {words}")


def _no_proxy(proxy_: SplitResult, exc: OSError) -> ProxyUnusable:
    words = os.strerror(exc.errno) if exc.errno and not isinstance(exc, socket.gaierror) else str(exc.strerror or exc)
    return ProxyUnusable(
        f"no TCP connection to the proxy {proxy_.hostname}:{proxy.address(proxy_)[1]}: {words}",
        hint="is it up? `bmc.proxy` of site.yaml, or --proxy, says where it is",
    )
