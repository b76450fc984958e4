"""The asynchronous half of the boot service: applications on listening sockets, until told to stop."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn, cast
from weakref import WeakKeyDictionary

from aiohttp import hdrs, web

from metalimmu import log
from metalimmu.boot import answers
from metalimmu.boot.agent_api import AgentApi
from metalimmu.boot.answers import Refused
from metalimmu.boot.desk import Desk
from metalimmu.boot.install_api import InstallApi
from metalimmu.boot.listeners import BACKLOG, Listener
from metalimmu.boot.loaders import Loaders
from metalimmu.boot.media_api import MediaApi
from metalimmu.boot.netboot import Netboot
from metalimmu.boot.netboot_api import NetbootApi
from metalimmu.boot.onie_api import OnieApi
from metalimmu.boot.quick import Door
from metalimmu.errors import MetalimmuError
from metalimmu.wire.messages import Refusal

IDLE = 75.0  # seconds that a connection may go without a whole request
HANDSHAKE = 20.0  # seconds for TLS
GOODBYE = 5.0  # seconds for the end of a TLS connection
FLUSH = 1.0  # seconds between writes of progress
_DESCRIPTORS = 16_384
STOP = 2.0  # seconds for transfers under way when the service stops

logger = log.get("boot")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Alive = WeakKeyDictionary[asyncio.Transport, Any]


async def serve(
    places: list[tuple[Listener, socket.socket]],
    context: ssl.SSLContext,
    desk: Desk,
    *,
    netboot: Netboot | None = None,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop`, then write what is left to write. `netboot`: for listeners that machines boot from."""
    opened: list[tuple[asyncio.Server | Door, web.AppRunner]] = []
    alive: _Alive = WeakKeyDictionary()
    flushing = asyncio.create_task(_flush_for_ever(desk, netboot))
    loaders = Loaders(netboot.url) if netboot is not None else None
    try:
        for listener, sock in places:
            booting = NetbootApi(netboot, loaders) if netboot and loaders and listener.netboot else None
            opened.append(await _open(listener, sock, context if listener.tls else None, desk, alive, booting))
        ready()
        await stop.wait()
    finally:
        flushing.cancel()
        await _accept_no_more([sock for _, sock in places])
        for server, _ in opened:
            server.close()
        await asyncio.gather(*(runner.cleanup() for _, runner in opened))
        await _end_handshakes()
        for transport in list(alive):
            _abort(transport, alive[transport])
        await _turns(10)
        with suppress(asyncio.CancelledError):
            await flushing
        await desk.flush()
        if netboot is not None:
            await netboot.settle()
            await netboot.flush()
        await asyncio.to_thread(desk.close)


def _abort(transport: asyncio.Transport, sock: Any) -> None:
    """TLS would wait for the other side's goodbye. CPython 3.11.2, which Debian 12 has, cannot abort what was closed twice."""
    try:
        transport.abort()
    except AttributeError:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


async def _accept_no_more(sockets: list[socket.socket]) -> None:
    """A server that is closed loses the connections it has accepted in this turn of the loop (CPython 3.11's
    `Server._attach`): they get theirs first.
    """
    for sock in sockets:
        asyncio.get_running_loop().remove_reader(sock.fileno())
    await _turns(5)


async def _end_handshakes() -> None:
    """Connections in the middle of theirs have no handler yet: a task of the loop's has each, and closes it when it is
    cancelled after it has begun. Both take a few turns of the loop.
    """
    await _turns(5)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _open(
    listener: Listener,
    sock: socket.socket,
    context: ssl.SSLContext | None,
    desk: Desk,
    alive: _Alive,
    booting: NetbootApi | None,
) -> tuple[asyncio.Server | Door, web.AppRunner]:
    app = web.Application(client_max_size=answers.MAX_BODY, middlewares=[_guard])
    media = MediaApi(desk)
    app.router.add_routes(media.media_routes() if listener.media or booting else [])
    app.router.add_routes([*media.netboot_routes(), *booting.routes()] if booting else [])
    app.router.add_routes(media.chunk_routes() if listener.chunks else [])
    api = AgentApi(desk)
    app.router.add_routes(api.routes() if listener.agents else [])
    app.router.add_routes(api.open_routes() if listener.chunks or listener.media or booting else [])
    app.router.add_routes(InstallApi(desk).routes() if listener.chunks or listener.media or booting else [])
    if desk.switches is not None and listener.netboot:
        app.router.add_routes(OnieApi(desk, desk.switches).routes())
    app.on_response_prepare.append(_anonymous)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP)
    await runner.setup()
    manager = runner.server
    if manager is None:
        raise RuntimeError("the runner is set up and has no server")
    loop = asyncio.get_running_loop()
    most = _most_connections()

    def connection(first: bytes = b"") -> asyncio.Protocol:
        return _Connection(manager, loop, most, alive, first)

    if booting is not None:
        return Door(
            booting.netboot, desk if listener.chunks else None, sock, connection, most=most, idle=lambda: IDLE
        ), runner
    server = await loop.create_server(
        connection,
        sock=sock,
        backlog=BACKLOG,
        ssl=context,
        ssl_handshake_timeout=HANDSHAKE if context else None,
        ssl_shutdown_timeout=GOODBYE if context else None,
    )
    return server, runner


class _Connection(web.RequestHandler):
    """Closes without a word where aiohttp would explain: to garbage, after our own faults, above the limit."""

    __slots__ = ("_alive", "_first", "_most")

    def __init__(
        self,
        manager: web.Server,
        loop: asyncio.AbstractEventLoop,
        most: int,
        alive: _Alive,
        first: bytes,
    ) -> None:
        """`first`: what was read of the connection before it came here."""
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=IDLE,
            access_log=None,  # type: ignore[arg-type]  # what AppRunner passes too: paths have secrets
            lingering_time=2.0,
            auto_decompress=False,
        )
        self._most = most
        self._alive = alive
        self._first = first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._alive[cast("asyncio.Transport", transport)] = transport.get_extra_info("socket")
        if self._manager is not None and len(self._manager.connections) > self._most:
            logger.warning("more than %d connections: one was closed", self._most)
            self.force_close()
        elif self._first:
            self.data_received(self._first)
            self._first = b""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> NoReturn:
        logger.debug("%s: connection closed: %s %s", request.remote, status, type(exc).__name__ if exc else message)
        raise ConnectionResetError("closed")


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as exc:
        return answers.refuse(exc.status, exc.refusal)
    except web.HTTPRequestEntityTooLarge:
        return web.Response(status=413, headers={"Connection": "close"})
    except web.HTTPException:
        return answers.nothing()  # no such page, no such method
    except (ConnectionError, TimeoutError):
        raise ConnectionResetError from None
    except MetalimmuError as exc:
        logger.warning("%s: %s (%s)", _route(request), exc, exc.hint)
        return _or_close(request, answers.unavailable(exc))
    except Exception:
        logger.exception("a fault in metalimmu, answering %s", _route(request))
        return _or_close(request, answers.refuse(503, Refusal("MetalimmuError", "a fault in the controller")))


def _or_close(request: web.Request, answer: web.Response) -> web.Response:
    if request.writer.output_size:
        raise ConnectionResetError("the answer had begun")
    return answer


def _route(request: web.Request) -> str:
    """The pattern, never the path: paths have secrets."""
    resource_ = request.match_info.route.resource
    return f"{request.method} {resource_.canonical if resource_ else '?'}"


async def _anonymous(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop(hdrs.SERVER, None)


async def _flush_for_ever(desk: Desk, netboot: Netboot | None) -> None:
    while True:
        await asyncio.sleep(FLUSH)
        try:
            await desk.flush()
            desk.sweep()
            if netboot is not None:
                await netboot.flush()
                await netboot.look()
        except Exception:
            logger.exception("progress was not written")


def _most_connections() -> int:
    """As many as descriptors allow: each takes one, and one more while it sends a chunk; the rest of the process needs
    some too. The usual soft limit of 1024 would be reached by a hundred machines with five connections each, so it is
    raised as far as this user may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    free = _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return max(64, min(4096, (free - 256) // 2))
