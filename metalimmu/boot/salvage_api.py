"""PUT /v1/salvage/NAME: files of the old system, from an agent that has not written yet. Bounded, whole or not at all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from aiohttp import web

from metalimmu import log
from metalimmu.boot import answers, rules
from metalimmu.boot.answers import Refused
from metalimmu.boot.desk import Desk
from metalimmu.boot.ports import Archive, Deployment
from metalimmu.errors import SalvageFailed
from metalimmu.wire.messages import Refusal

logger = log.get("boot")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_PIECE = 1 << 18
_SILENCE = 60.0  # seconds without a byte
_HEADERS = 64 << 20  # bytes that an archive may have beside what its files hold


class SalvageApi:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        return [web.put("/v1/salvage/{name}", self.put), web.post("/v1/salvage/{name}", self.ask)]

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """May it come? A refusal in the middle of a long body may not reach who sends it."""
        d, name = await self._allowed(request)
        archive = await self._open(d, name)
        await self._desk.call(archive.abandon)
        return answers.message(rules.orders(d))

    async def put(self, request: web.Request) -> web.StreamResponse:
        d, name = await self._allowed(request)
        size = await self._receive(request, d, name)
        logger.info("%s: salvaged %s, %d bytes", d.host, name, size)
        return answers.message(rules.orders(d))

    async def _allowed(self, request: web.Request) -> tuple[Deployment, str]:
        d = await self._desk.find("agent", answers.bearer(request))
        if d is None:
            raise web.HTTPNotFound
        name = request.match_info["name"]
        verdict = rules.may_salvage(d)
        if verdict.refusal is not None:
            raise Refused(verdict.status, verdict.refusal)
        if not _NAME.fullmatch(name):
            raise Refused(400, Refusal("AgentRefused", "that is no name of a file system"))
        return d, name

    async def _open(self, d: Deployment, name: str) -> Archive:
        try:
            return await self._desk.call(self._desk.content.salvage, d, name)
        except SalvageFailed as exc:
            raise Refused(413, Refusal(exc.code, exc.message, exc.hint)) from exc

    async def _receive(self, request: web.Request, d: Deployment, name: str) -> int:
        call, wanted, size = self._desk.call, d.assignment.salvage, 0
        most = wanted.limit + _HEADERS if wanted else 0
        archive = await self._open(d, name)
        try:
            async for data in _pieces(request, most):
                size += len(data)
                await call(archive.write, data)
            await call(archive.finish)
        except BaseException:
            await asyncio.shield(call(archive.abandon))
            raise
        return size


async def _pieces(request: web.Request, most: int) -> AsyncIterator[bytes]:
    """Raises Refused when there are more than `most` bytes, TimeoutError in a long silence."""
    size = 0
    while True:
        async with asyncio.timeout(_SILENCE):
            data = await request.content.read(_PIECE)
        if not data:
            return
        size += len(data)
        if size > most:
            raise Refused(413, Refusal("SalvageFailed", f"more than {most} bytes"))
        yield data
