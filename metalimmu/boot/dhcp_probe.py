"""Which DHCP servers answer on a segment? One DISCOVER (RFC 2131), for an address that nobody takes. Needs root."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from contextlib import suppress

WAIT = 2.5  # seconds; a server may ping an address before it offers it

_COOKIE = b"\x63\x82\x53\x63"
_MESSAGE, _SERVER = 53, 54
_DISCOVER, _OFFER = 1, 2
_REPLY = 2


def servers(interface: str, *, wait: float = WAIT) -> tuple[str, ...]:
    """Their addresses, sorted. Nothing can be asked where something else has the client's port: then nobody is found."""
    transaction = secrets.token_bytes(4)
    found: set[str] = set()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind(("", 68))
        sock.sendto(discover(transaction), ("255.255.255.255", 67))
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                server = offered_by(sock.recv(4096), transaction)
            except TimeoutError:
                break
            if server:
                found.add(server)
    return tuple(sorted(found))


def discover(transaction: bytes) -> bytes:
    """From a MAC that no machine has: locally administered, and another each time."""
    mac = b"\x02" + secrets.token_bytes(5)
    head = struct.pack("!BBBB4sHH", 1, 1, 6, 0, transaction, 0, 0x8000) + bytes(16) + mac.ljust(16, b"\0") + bytes(192)
    return (head + _COOKIE + bytes([_MESSAGE, 1, _DISCOVER, 255])).ljust(300, b"\0")


def offered_by(data: bytes, transaction: bytes) -> str:
    """The server of an offer to that transaction; empty: it is none."""
    if len(data) < 240 or data[0] != _REPLY or data[4:8] != transaction or data[236:240] != _COOKIE:
        return ""
    options = _options(data[240:])
    server = options.get(_SERVER, b"")
    if options.get(_MESSAGE) != bytes([_OFFER]) or len(server) != 4:
        return ""
    return socket.inet_ntoa(server)


def _options(rest: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(rest) >= 2 and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        length = rest[1]
        found[rest[0]] = rest[2 : 2 + length]
        rest = rest[2 + length :]
    return found
