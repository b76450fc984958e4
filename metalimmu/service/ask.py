"""One HTTP request or TCP connection to a server that a site names: every wait limited, every answer bounded.

What answers may be a machine that was just written, so nothing of it is trusted: no redirect is followed, nothing is
unpacked, and little is read.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
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
        return Heard(0, _plain(str(exc.strerror or exc) or type(exc).__name__))
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


async def _request(asked: Request, folder: Path, limit: float) -> Heard:
    import aiohttp

    try:
        verify = _verify(asked.tls, folder)
        connector = aiohttp.TCPConnector(ssl=verify, force_close=True)
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
        return Heard(0, _plain(f"its certificate is not trusted: {exc.certificate_error}"))
    except aiohttp.ServerFingerprintMismatch as exc:
        return Heard(0, f"its certificate has the fingerprint {exc.got.hex()}")
    except aiohttp.ClientConnectorError as exc:
        return Heard(0, _plain(f"{urlsplit(asked.url).netloc}: {exc.os_error.strerror or exc.os_error}"))
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


def _verify(tls: Tls, folder: Path) -> Any:
    """What aiohttp takes for `ssl`. Raises OSError, ValueError for a CA or fingerprint that is none."""
    import aiohttp

    if not tls.verify:
        return False
    if tls.fingerprint:
        return aiohttp.Fingerprint(bytes.fromhex(tls.fingerprint.replace(":", "")))
    return ssl.create_default_context(cafile=str(folder / Path(tls.ca).expanduser()) if tls.ca else None)


async def _connect(host: str, port: int) -> Heard:
    _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()  # no goodbye that somebody could keep us waiting with
    return Heard(1, f"{host} port {port} takes connections")


def _plain(text: str) -> str:
    """One line."""
    return " ".join(readable(redact(text).encode(errors="replace")).split())[:300]
