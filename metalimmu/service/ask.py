"""One HTTP request or TCP connection to a server that a site names: every wait limited, every answer bounded.

What answers may be a machine that was just written, so nothing of it is trusted: no redirect is followed, nothing is
unpacked, and little is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from metalimmu.desired.base import Tls
from metalimmu.log import redact
from metalimmu.service.said import readable

LARGEST = 64 * 1024  # bytes that are read of an answer

_CHECK = 0.5  # seconds between calls of `check`

T = TypeVar("T")


@dataclass(frozen=True)
class Heard:
    """`status` 0: no answer, and `words` says why."""

    status: int
    words: str
    body: str = ""
    more: bool = False  # the body is longer than what was read
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    tls: Tls
    largest: int = LARGEST
    by_environment: bool = False  # HTTPS_PROXY and the like


def request(asked: Request, *, folder: Path, limit: float, check: Callable[[], None]) -> Heard:
    """`folder` is the site's, for a CA. Raises what `check` raises, and nothing else."""
    began = time.monotonic()
    heard = _run(_request(asked, folder, limit), limit, check)
    return Heard(heard.status, heard.words, heard.body, heard.more, time.monotonic() - began)


def connect(host: str, port: int, *, limit: float, check: Callable[[], None]) -> Heard:
    """Open a TCP connection and close it. Status 1: it opened."""
    began = time.monotonic()
    heard = _run(_connect(host, port), limit, check)
    return Heard(heard.status, heard.words, seconds=time.monotonic() - began)


def _run(work: Coroutine[Any, Any, Heard], limit: float, check: Callable[[], None]) -> Heard:
    try:
        return asyncio.run(_watched(work, limit, check))
    except TimeoutError:
        return Heard(0, f"no answer within {limit:g} s")
    except (ssl.SSLError, OSError) as exc:
        return Heard(0, _plain(_why(exc)))
    except (ValueError, UnicodeError) as exc:
        return Heard(0, _plain(f"cannot be asked: {exc}"))


async def _watched(work: Coroutine[Any, Any, T], limit: float, check: Callable[[], None]) -> T:
    """The result of `work`, while `check` is called and allows it."""
    task = asyncio.ensure_future(work)
    deadline = time.monotonic() + limit
    try:
        while not task.done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait({task}, timeout=min(_CHECK, left))
            if not task.done():
                check()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1)
        for _ in range(3):
            await asyncio.sleep(0)  # transports close in a later turn of the loop


async def _request(asked: Request, folder: Path, limit: float) -> Heard:
    import aiohttp

    try:
        connector = aiohttp.TCPConnector(ssl=_context(asked.tls, folder), force_close=True)
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=limit),
                connector=connector,
                trust_env=asked.by_environment,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.request(
                asked.method,
                asked.url,
                data=asked.body,
                headers={"User-Agent": "metalimmu", "Accept-Encoding": "identity", **asked.headers},
                allow_redirects=False,
            ) as answer,
        ):
            body, more = await _read(answer.content, asked.largest)
            reason = f" {answer.reason}" if answer.reason else ""
            return Heard(answer.status, _plain(f"{answer.status}{reason}"), readable(body), more)
    except aiohttp.ClientConnectorCertificateError as exc:
        said = getattr(exc.certificate_error, "verify_message", "") or exc.certificate_error.args[-1]
        return Heard(0, _plain(f"its certificate is not the one that is trusted: {said}"))
    except aiohttp.ClientConnectorError as exc:
        return Heard(0, _plain(f"{urlsplit(asked.url).netloc}: {_why(exc.os_error)}"))
    except aiohttp.ClientError as exc:
        return Heard(0, _plain(f"no good answer: {type(exc).__name__}: {exc}"))


async def _read(content: Any, largest: int) -> tuple[bytes, bool]:
    found = bytearray()
    while len(found) <= largest:
        piece = await content.read(largest + 1 - len(found))
        if not piece:
            return bytes(found), False
        found += piece
    return bytes(found[:largest]), True


def _context(tls: Tls, folder: Path) -> ssl.SSLContext:
    """Raises OSError, ValueError for a CA or fingerprint that is none."""
    ca = folder / Path(tls.ca).expanduser() if tls.ca else None
    return _made(ca, ca.stat().st_mtime if ca else 0.0, (tls.fingerprint or "").replace(":", "").lower(), tls.verify)


@lru_cache(maxsize=256)
def _made(ca: Path | None, _stamp: float, pin: str, verify: bool) -> ssl.SSLContext:
    """Loading the CA store takes 17 ms: once, and not for each look at each host."""
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if pin or not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pin:
        context.sslobject_class = _pinned(bytes.fromhex(pin))
    return context


def _pinned(pin: bytes) -> type[ssl.SSLObject]:
    """Checked as a part of the handshake: before anything is said, and so that the connection ends as one that failed."""

    class Pinned(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            found = hashlib.sha256(self.getpeercert(binary_form=True) or b"").digest()
            if found != pin:
                raise ssl.SSLCertVerificationError(1, f"its fingerprint is {found.hex()}")

    return Pinned


async def _connect(host: str, port: int) -> Heard:
    _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()  # no goodbye that somebody could keep us waiting with
    return Heard(1, f"{host} port {port} takes connections")


def _why(exc: OSError) -> str:
    """Asyncio puts addresses into its words, and several exceptions into one."""
    if isinstance(exc, socket.gaierror | ssl.SSLError) or not exc.errno:
        return str(exc.strerror or exc) or type(exc).__name__
    return os.strerror(exc.errno)


def _plain(text: str) -> str:
    """One line."""
    return " ".join(readable(redact(text).encode(errors="replace")).split())[:300]
