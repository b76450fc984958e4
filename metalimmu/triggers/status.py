"""`/metrics` and `/healthz` on an address of their own. What is asked for was prepared before: asking costs no query."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from metalimmu.boot.listeners import Listener, open_socket
from metalimmu.errors import UsageError
from metalimmu.service.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from aiohttp import web

_START = 10.0  # seconds


class StatusService:
    """One thread with a loop of its own."""

    def __init__(self, listen: str, metrics: Callable[[], str], health: Callable[[], dict[str, Any]]) -> None:
        """`health` has `status`: "ok", or something else, which is answered with 503."""
        self._listen = listen
        self._metrics = metrics
        self._health = health
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises ListenError, UsageError."""
        place = urlsplit(f"//{self._listen}")
        try:
            port = place.port
        except ValueError:
            port = None
        if not port:
            raise UsageError(f"listen.serve: {self._listen} is no ADDRESS:PORT", hint='write "127.0.0.1:9464"')
        sock = open_socket(Listener(place.hostname or "", port, "listen.serve", tls=False))
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sock, ready), name="status", daemon=True)
        self._thread.start()
        if not ready.wait(_START):
            raise UsageError("the status service did not start", hint="run again with -vv")

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)

    def _run(self, sock: Any, ready: threading.Event) -> None:
        from aiohttp import web

        loop = self._loop = asyncio.new_event_loop()
        app = web.Application()
        app.add_routes([web.get("/metrics", self._answer_metrics), web.get("/healthz", self._answer_health)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        try:
            loop.run_until_complete(runner.setup())
            loop.run_until_complete(web.SockSite(runner, sock).start())
            ready.set()
            loop.run_forever()
        finally:
            loop.run_until_complete(runner.cleanup())
            loop.close()

    async def _answer_metrics(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(body=self._metrics().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _answer_health(self, _request: web.Request) -> web.Response:
        from aiohttp import web

        health = self._health()
        status = 200 if health.get("status") == "ok" else 503
        return web.Response(text=json.dumps(health) + "\n", status=status, content_type="application/json")
