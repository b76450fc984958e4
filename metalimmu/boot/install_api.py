"""/i: what installers and live systems ask for. Decisions are in install_rules; here they meet store and HTTP.

In the clear, as chunks are: an installer cannot pin a certificate. Whoever has the address has the answers, so it is as
long as a token, the machine gets it with its media, and it is good only until the installer has finished.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from metalimmu import log
from metalimmu.boot import answers, install_rules
from metalimmu.boot.desk import Desk
from metalimmu.boot.install_rules import Told
from metalimmu.boot.ports import Deployment
from metalimmu.errors import NotFound

MAX_WORDS = 4096  # bytes of a body: why it failed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PHASE = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")

logger = log.get("boot")


class InstallApi:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/i/{secret}/{name}", self.answer, allow_head=False),
            web.get("/i/{secret}/say/{what}", self.say, allow_head=False),
            web.post("/i/{secret}/say/{what}", self.say),
        ]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.find("answers", request.match_info["secret"])
        name = request.match_info["name"]
        if d is None or d.ended is not None or not _NAME.match(name):
            return answers.nothing()
        try:
            text, main = await self._desk.call(self._desk.content.answer, d, name)
        except NotFound:
            return answers.nothing()
        now = self._desk.now()
        told = await self._decide(d, lambda it: install_rules.asked(it, name, now, main=main))
        if told.status != 200:
            return _said(told)
        logger.info("%s asked for %s", d.host, name)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def say(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.find("answers", request.match_info["secret"])
        what, now = request.match_info["what"], self._desk.now()
        if d is None or not _PHASE.match(what):
            return answers.nothing()
        if what == "begin":
            serial, uuid = (request.query.get(k, "")[:200] for k in ("serial", "uuid"))
            told = await self._decide(d, lambda it: install_rules.begins(it, serial, uuid, now))
        elif what == "finished":
            told = await self._decide(d, lambda it: install_rules.finishes(it, now))
        elif what == "failed":
            why = request.query.get("why", "") or (await request.content.read(MAX_WORDS)).decode(errors="replace")
            told = await self._decide(d, lambda it: install_rules.fails(it, why, now))
        else:
            told = await self._decide(d, lambda it: install_rules.says(it, what, now))
        return _said(told)

    async def _decide(self, d: Deployment, rule: Callable[[Deployment], Told]) -> Told:
        """Apply a rule to the record as it is inside of the store's transaction."""
        told = Told(404)

        def change(now: Deployment) -> Mapping[str, Any]:
            nonlocal told
            told = rule(now)
            return told.changes

        await self._desk.call(self._desk.deployments.update_deployment, d.id, change)
        self._desk.changes.notify(d.id)
        return told


def _said(told: Told) -> web.Response:
    if told.status == 404:
        return answers.nothing()
    return web.Response(status=told.status, text=f"{told.words}\n", headers={"Retry-After": "2"})
