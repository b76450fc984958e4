"""The Redfish service root of an address, as everybody may read it: one connection, one GET, and the certificate seen."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import io
import ssl
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from metalimmu.bmc.answers import clean, document
from metalimmu.bmc.collect.dial import Place, dial
from metalimmu.bmc.document import Doc
from metalimmu.bmc.spots import Spot
from metalimmu.bmc.unknown import ProxyUnusable
from metalimmu.errors import BmcBroken, BmcError

ROOT = "/redfish/v1/"
LARGEST = 1 << 20
HOPS = 3
LONGEST = 100  # of a name, a serial number, a version
AGENT = "metalimmu discover (reads only)"


class RedfishSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What the service root says to everybody. `fingerprint` is the certificate's SHA-256; empty without TLS."""

    port: int
    tls: bool
    fingerprint: str = ""
    tls_version: str = ""
    vendor: str = ""
    product: str = ""
    redfish: str = ""
    uuid: str = ""
    serial: str = ""
    bmc_model: str = ""
    bmc_firmware: str = ""
    closed: bool = False  # even the root wants a login


class Patience(NamedTuple):
    """Seconds for the connection, and for the answer after it."""

    connect: float
    answer: float


async def look(
    spot: Spot, address: str, patience: Patience, proxy: SplitResult | None = None
) -> tuple[RedfishSeen | None, str]:
    """What is there, or why it is nothing that we can read; neither where nobody lives. Never raises for what it does, but
    ProxyUnusable.
    """
    if spot.scheme == "ipmi":
        return None, ""
    tls = spot.scheme != "redfish+http"
    port = spot.port or (443 if tls else 80)
    try:
        async with asyncio.timeout(patience.connect + patience.answer):
            return await _root(spot, Way(address, port, proxy), patience, tls=tls)
    except TimeoutError:
        return None, f"port {port} took the connection and did not answer in time"
    except _Nobody:
        return None, ""
    except ssl.SSLError as exc:
        return None, f"port {port}: no TLS connection: {clean(str(exc.reason or exc), 100)}"
    except (OSError, http.client.HTTPException, EOFError) as exc:
        return None, f"port {port}: the connection broke off: {clean(f'{type(exc).__name__} {exc}', 100)}"
    except BmcBroken as exc:
        return None, f"port {port}: {clean(exc.message, 200)}"


class Way(NamedTuple):
    address: str
    port: int
    proxy: SplitResult | None


class _Nobody(Exception):
    """No TCP connection: nobody lives here, or a firewall does. Most addresses of a network; not worth a line."""


async def _root(spot: Spot, way: Way, patience: Patience, *, tls: bool) -> tuple[RedfishSeen | None, str]:
    path, port = ROOT, way.port
    for _ in range(HOPS):
        status, headers, body, peer = await _get(spot, way, path, patience, tls=tls)
        onward = headers.get("Location", "")
        if status in (301, 302, 303, 307, 308) and onward:
            here = f"http{'s' if tls else ''}://{spot.host if ':' not in spot.host else f'[{spot.host}]'}:{port}"
            there = urlsplit(urljoin(here + path, onward))
            if there.hostname != urlsplit(here).hostname:
                return None, f"port {port}: redirects elsewhere, to {clean(onward, 80)}; it was not followed"
            path = there.path or ROOT
            continue
        if status in (401, 403):
            if path != "/redfish":  # is it Redfish at all? Its version list is for everybody (DSP0266)
                path = "/redfish"
                continue
            return None, f"port {port}: HTTP {status}, and no Redfish that says so"
        if status != 200:
            return None, f"port {port}: HTTP {status}: a web server, and no Redfish service root"
        return _read(body, path, port, peer)
    return None, f"port {port}: more than {HOPS} redirects"


class _Peer(msgspec.Struct, frozen=True):
    fingerprint: str = ""
    version: str = ""


def _read(body: bytes, path: str, port: int, peer: _Peer) -> tuple[RedfishSeen | None, str]:
    root = Doc(document(body, f"port {port}"), path)
    tls = bool(peer.fingerprint)
    if path == "/redfish":
        if not root.text("v1"):
            return None, f"port {port}: a web server that wants a login, and no Redfish"
        return (
            RedfishSeen(port=port, tls=tls, fingerprint=peer.fingerprint, tls_version=peer.version, closed=True),
            "",
        )
    if "ServiceRoot" not in root.text("@odata.type") and not root.has("RedfishVersion"):
        return None, f"port {port}: JSON, and no Redfish service root"
    return facts(root, port=port, tls=tls, fingerprint=peer.fingerprint, tls_version=peer.version), ""


def facts(root: Doc, *, port: int, tls: bool, fingerprint: str = "", tls_version: str = "") -> RedfishSeen:
    """What a service root tells: the standard's fields, and what Dell and HPE add to it."""
    oem = root.part("Oem")
    managers = [Doc(m, root.uri) for m in oem.part("Hpe").items("Manager") if isinstance(m, dict)]
    manager = managers[0] if managers else Doc({}, root.uri)
    dell = "Dell" in oem.data
    return RedfishSeen(
        port=port,
        tls=tls,
        fingerprint=fingerprint,
        tls_version=tls_version,
        vendor=short(root.text("Vendor") or next((k for k in oem.data if isinstance(k, str)), "")),
        product="" if dell else short(root.text("Product")),  # Dell's is the BMC's
        redfish=short(root.text("RedfishVersion")),
        uuid=short(root.text("UUID").lower()),
        serial=short(oem.part("Dell").text("ServiceTag")),
        bmc_model=short(manager.text("ManagerType") or (root.text("Product") if dell else "")),
        bmc_firmware=short(manager.text("ManagerFirmwareVersion")),
    )


def short(text: str) -> str:
    return clean(text, LONGEST)


async def _get(
    spot: Spot, way: Way, path: str, patience: Patience, *, tls: bool
) -> tuple[int, http.client.HTTPMessage, bytes, _Peer]:
    """One GET over one connection. Raises _Nobody, ProxyUnusable, OSError, HTTPException, BmcBroken."""
    port = way.port
    reader, writer = await _connection(way, patience.connect)
    try:
        if tls:
            await writer.start_tls(
                anyone(), server_hostname=spot.host, ssl_handshake_timeout=patience.connect + patience.answer + 1
            )
        peer = _peer(writer.get_extra_info("ssl_object"))
        name = str(Spot(spot.host, port if port not in (80, 443) else 0))
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {name}\r\nAccept: application/json\r\nOData-Version: 4.0\r\n"
            f"Accept-Encoding: identity\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n".encode("ascii", "ignore")
        )
        await writer.drain()
        return (*await _answer(reader), peer)
    finally:
        writer.transport.abort()  # no farewell: a BMC that does not answer one would hold the socket


async def _connection(way: Way, seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises _Nobody, ProxyUnusable."""
    try:
        if way.proxy is None:
            async with asyncio.timeout(seconds):
                return await asyncio.open_connection(way.address, way.port, limit=1 << 16)
        there = await dial(Place(way.address, way.address, way.port, None, None, way.proxy), seconds)
        return await asyncio.open_connection(sock=there.sock, limit=1 << 16)
    except ProxyUnusable:
        raise
    except (OSError, TimeoutError, BmcError) as exc:
        raise _Nobody from exc


async def _answer(reader: asyncio.StreamReader) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Reads until the answer is whole, however it is framed, or too large."""
    data = bytearray()
    while True:
        piece = await reader.read(1 << 16)
        data += piece
        if len(data) > LARGEST:
            raise BmcBroken(f"the answer is larger than {LARGEST >> 10} KiB; reading stopped")
        if piece and b"\r\n\r\n" not in data:
            continue
        found = http.client.HTTPResponse(_Bytes(data))  # type: ignore[arg-type]
        try:
            found.begin()
            body = found.read()
        except http.client.IncompleteRead:
            if piece:
                continue
            raise
        except (ValueError, http.client.HTTPException):
            if piece:  # a chunk's length may be cut in two
                continue
            raise
        if piece and found.getheader("Content-Length") is None and not found.chunked:
            continue  # framed by the end of the connection
        return found.status, found.headers, body


class _Bytes:
    """What http.client takes for a socket."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytes(data)

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


def _peer(tls: ssl.SSLObject | None) -> _Peer:
    certificate = tls.getpeercert(binary_form=True) if tls else None
    return (
        _Peer(hashlib.sha256(certificate).hexdigest(), (tls.version() or "") if tls else "") if certificate else _Peer()
    )


@lru_cache(maxsize=1)
def anyone() -> ssl.SSLContext:
    """Whoever it is, with whatever TLS it has: nothing secret is sent, and the certificate is what we came to see."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with contextlib.suppress(ValueError):
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    return context
