"""A sweep for BMCs that logs in nowhere: the Redfish service root over TLS, and presence over IPMI.

Redfish lets everybody read its root (DSP0266, "Service root request"). What is sent to an address is one GET, or a few where
the BMC redirects on itself, and one or two UDP packets. The certificate that is seen is kept as a fingerprint, so that
whoever logs in later can insist on the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from urllib.parse import SplitResult

import msgspec

from metalimmu.bmc.answers import clean
from metalimmu.bmc.collect import proxy as proxies
from metalimmu.bmc.presence import PORT as IPMI_PORT
from metalimmu.bmc.presence import IpmiSeen, Presence
from metalimmu.bmc.service_root import Patience, RedfishSeen, look
from metalimmu.bmc.spots import Spot
from metalimmu.bmc.unknown import ProxyUnusable

WAITING = 20
"""So many times `sockets` addresses wait for an answer by UDP, or for their turn, in memory."""


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. `rate` addresses are begun per second; at most `sockets` TCP connections are open, and one UDP socket."""

    rate: float = 50.0
    sockets: int = 256
    connect: float = 3.0
    answer: float = 10.0
    ipmi: float = 1.0
    ipmi_port: int = IPMI_PORT
    proxy: str | None = None
    """Through which BMCs are reached, as `bmc.proxy` of a site. UDP does not go through it: no IPMI is seen then."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """`trouble` is why an address that answered is no BMC that we can read."""

    spot: Spot
    redfish: RedfishSeen | None = None
    ipmi: IpmiSeen | None = None
    trouble: str = ""

    @property
    def found(self) -> bool:
        return self.redfish is not None or self.ipmi is not None


async def sweep(
    spots: Iterable[Spot], settings: Sweep, *, looked_at: Callable[[], None] = lambda: None
) -> AsyncIterator[Sighting]:
    """Those that answered, as they are seen. Never raises for what an address does. `looked_at` is called once per address.
    Raises UsageError for a proxy's address, ProxyUnusable.
    """
    through = proxies.parsed(settings.proxy) if settings.proxy else None
    room = asyncio.Semaphore(WAITING * settings.sockets)
    sockets = asyncio.Semaphore(settings.sockets)
    seen: asyncio.Queue[Sighting] = asyncio.Queue()
    running: set[asyncio.Task[None]] = set()
    presence = await _presence() if through is None else {}
    unusable: list[ProxyUnusable] = []

    async def one(spot: Spot) -> None:
        try:
            sighting = await _look(spot, settings, presence, sockets, through)
            if sighting.found or sighting.trouble:
                seen.put_nowait(sighting)
        except ProxyUnusable as exc:
            unusable.append(exc)
        finally:
            looked_at()
            room.release()

    async def begin() -> None:
        """Paced by the clock, so that a late start is not made up for by a burst."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for spot in spots:
            await room.acquire()
            if unusable:
                break
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            due = max(due, loop.time() - 1 / settings.rate) + 1 / settings.rate
            task = asyncio.create_task(one(spot))
            running.add(task)
            task.add_done_callback(running.discard)
        while running:
            await asyncio.wait(running)
        if unusable:
            raise unusable[0]

    starter = asyncio.create_task(begin())
    try:
        while not (starter.done() and seen.empty()):
            getter = asyncio.create_task(seen.get())
            await asyncio.wait({getter, starter}, return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                yield getter.result()
            else:
                getter.cancel()
        starter.result()  # a mistake of ours must not look like an empty network
    finally:
        starter.cancel()
        for task in list(running):
            task.cancel()
        await asyncio.gather(starter, *running, return_exceptions=True)
        for asked in presence.values():
            asked.close()
        await asyncio.sleep(0)  # in which they are closed


async def _presence() -> dict[int, Presence]:
    found = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            found[int(family)] = await Presence.open(family)
    return found


async def _look(
    spot: Spot,
    settings: Sweep,
    presence: dict[int, Presence],
    sockets: asyncio.Semaphore,
    through: SplitResult | None,
) -> Sighting:
    """Raises ProxyUnusable."""
    try:
        # Names behind a proxy are often known there only.
        family, address = await _resolved(spot.host) if through is None else (0, spot.host)
    except OSError as exc:
        return Sighting(spot=spot, trouble=f"no address: {clean(str(exc.strerror or exc), 100)}")
    patience = Patience(settings.connect, settings.answer)

    async def redfish() -> tuple[RedfishSeen | None, str]:
        async with sockets:
            return await look(spot, address, patience, through)

    ipmi, (seen, trouble) = await asyncio.gather(_ipmi(spot, address, settings, presence.get(family)), redfish())
    return Sighting(spot=spot, redfish=seen, ipmi=ipmi, trouble=trouble)


async def _resolved(host: str) -> tuple[int, str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    return int(family), str(address[0])


async def _ipmi(spot: Spot, address: str, settings: Sweep, presence: Presence | None) -> IpmiSeen | None:
    if presence is None or spot.scheme not in ("any", "ipmi") or (spot.port and spot.scheme != "ipmi"):
        return None
    return await presence.ask(address, spot.port or settings.ipmi_port, seconds=settings.ipmi)
