"""Through a proxy to a BMC: HTTP CONNECT (RFC 9110, 9.3.6) and SOCKS 5 (RFC 1928, login by RFC 1929)."""

from __future__ import annotations

import asyncio
import base64
import socket
from urllib.parse import SplitResult, unquote, urlsplit

from metalimmu import log
from metalimmu.bmc import answers
from metalimmu.bmc.unknown import NotSent, ProxyUnusable
from metalimmu.errors import UsageError

LONGEST = 16 << 10
SOCKS_REFUSALS = {
    1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "time to live expired", 7: "command not supported", 8: "address type not supported",
}  # fmt: skip


def parsed(proxy: str) -> SplitResult:
    """Raises UsageError. `socks5h` lets the proxy resolve names, `socks5` resolves them here."""
    try:
        parts = urlsplit(proxy)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "socks5", "socks5h"):
        raise UsageError(
            f"a scan cannot use the proxy {log.redact(answers.clean(proxy, 100))}",
            hint="write http://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT",
        )
    return parts


def address(proxy: SplitResult) -> tuple[str, int]:
    return proxy.hostname or "", proxy.port or (1080 if proxy.scheme.startswith("socks") else 8080)


async def tunnel(sock: socket.socket, proxy: SplitResult, host: str, port: int) -> None:
    """Ask the proxy at the other end of `sock` for a connection. Raises NotSent."""
    if proxy.scheme == "http":
        await _connect(sock, proxy, host, port)
    else:
        await _socks(sock, proxy, host, port)


async def _connect(sock: socket.socket, proxy: SplitResult, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.username:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {log.secret(base64.b64encode(pair).decode())}")
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        part = await loop.sock_recv(sock, 4096)
        head += part
        if not part or len(head) > LONGEST:
            raise ProxyUnusable(f"the proxy {proxy.hostname} broke off before it had answered")
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if not status.startswith("HTTP/1.") or status[8:10] != " 2":
        whose = ProxyUnusable if status[9:12] == "407" else NotSent
        raise whose(f"the proxy {proxy.hostname} refused {where}: {answers.clean(status, 100)}")


async def _socks(sock: socket.socket, proxy: SplitResult, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    methods = b"\x00\x02" if proxy.username else b"\x00"
    await loop.sock_sendall(sock, bytes([5, len(methods)]) + methods)
    version, method = await _exactly(sock, 2, proxy)
    if version != 5 or method not in methods:
        raise ProxyUnusable(f"the proxy {proxy.hostname} is no SOCKS 5 proxy, or wants another kind of login")
    if method == 2:
        user, password = unquote(proxy.username or "").encode(), unquote(proxy.password or "").encode()
        await loop.sock_sendall(sock, bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await _exactly(sock, 2, proxy))[1] != 0:
            raise ProxyUnusable(f"the proxy {proxy.hostname} refused its login")
    await loop.sock_sendall(sock, b"\x05\x01\x00" + await _place(proxy, host) + port.to_bytes(2))
    _, refusal, _, kind = await _exactly(sock, 4, proxy)
    if refusal:
        why = SOCKS_REFUSALS.get(refusal, f"code {refusal}")
        raise NotSent(f"the proxy {proxy.hostname} refused {host}:{port}: {why}")
    size = {1: 4, 4: 16}.get(kind) or (await _exactly(sock, 1, proxy))[0]
    await _exactly(sock, size + 2, proxy)


async def _place(proxy: SplitResult, host: str) -> bytes:
    for family, kind in ((socket.AF_INET, b"\x01"), (socket.AF_INET6, b"\x04")):
        try:
            return kind + socket.inet_pton(family, host)
        except OSError:
            continue
    if proxy.scheme == "socks5":
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return await _place(proxy, str(found[0][4][0]))
    name = host.encode("idna")
    return b"\x03" + bytes([len(name)]) + name


async def _exactly(sock: socket.socket, size: int, proxy: SplitResult) -> bytes:
    found = b""
    while len(found) < size:
        part = await asyncio.get_running_loop().sock_recv(sock, size - len(found))
        if not part:
            raise NotSent(f"the proxy {proxy.hostname} broke off before it had answered")
        found += part
    return found
