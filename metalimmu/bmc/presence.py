"""Is there a BMC that speaks IPMI? Asked without a login, of many addresses, through one UDP socket.

First an RMCP/ASF presence ping (IPMI 2.0, 13.2.3); who does not answer it is asked for its authentication capabilities
(22.13), which needs no session either: not all BMCs know ASF.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Self, cast

import msgspec

PORT = 623
PING = bytes.fromhex("0600ff06 000011be 80 00 00 00")
CAPABILITIES = bytes.fromhex("0600ff07 00 00000000 00000000 09 2018c8 810038 8e02b7")
"""Get Channel Authentication Capabilities: this channel, User level, IPMI 2.0 asked for."""

Address = tuple[str, int]


class IpmiSeen(msgspec.Struct, frozen=True):
    port: int
    version: str = ""  # 1.5 or 2.0 where it said so
    anonymous: bool = False  # it says that it takes a login without name and password


class Presence(asyncio.DatagramProtocol):
    """One socket for one address family. Answers count only from addresses that are being asked."""

    def __init__(self) -> None:
        self._waiting: dict[Address, asyncio.Future[bytes]] = {}
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls, family: socket.AddressFamily) -> Self:
        """Raises OSError where this machine has no such family."""
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(cls, family=family)
        return protocol

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def ask(self, host: str, port: int = PORT, *, seconds: float = 1.0) -> IpmiSeen | None:
        """`host` is an IP address. None: nobody answered."""
        for packet in (PING, CAPABILITIES):
            data = await self._exchange((host, port), packet, seconds)
            seen = data and parse(data, port)
            if seen:
                return seen
        return None

    async def _exchange(self, address: Address, packet: bytes, seconds: float) -> bytes | None:
        if self._transport is None or address in self._waiting:
            return None
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[address] = answer
        try:
            self._transport.sendto(packet, address)
            return await asyncio.wait_for(answer, seconds)
        except (TimeoutError, OSError):
            return None
        finally:
            self._waiting.pop(address, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        answer = self._waiting.get((addr[0], addr[1]))
        if answer is not None and not answer.done():
            answer.set_result(data[:200])

    def error_received(self, exc: Exception) -> None:
        """ICMP says that nobody is there; the time limit says it too."""


def parse(data: bytes, port: int = PORT) -> IpmiSeen | None:
    """A presence pong that names IPMI, or authentication capabilities; None for anything else."""
    if (
        len(data) >= 21
        and data[:1] == b"\x06"
        and data[3] == 0x06
        and data[4:8] == b"\x00\x00\x11\xbe"
        and data[8] == 0x40
    ):
        return IpmiSeen(port) if data[20] & 0x80 else None
    if len(data) >= 25 and data[:1] == b"\x06" and data[3] == 0x07 and data[19] == 0x38 and data[20] == 0:
        new = bool(data[22] & 0x80 and data[24] & 0x02)
        return IpmiSeen(port, "2.0" if new else "1.5", anonymous=bool(data[23] & 0x01))
    return None
