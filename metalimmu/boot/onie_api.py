"""Installers for ONIE, images for a second slot, and what ZTP fetches: plain HTTP, for assigned switches alone.

::

    GET  /onie/SECRET/NAME      the installer, for the one switch that it was assigned to
    GET  /onie-installer...     the same by the names of ONIE's waterfall; who asks is known by its headers alone
    GET  /switch                the same for networks whose DHCP cannot tell switches apart; and ztp.json
    GET  /nos/SECRET/image      an image for the second slot of a NOS that runs
    GET  /ztp/SECRET/NAME       ztp.json, config_db.json, report.sh, ... of what ONIE installs
    POST /ztp/SECRET/report     the new NOS has done it

All bytes are counted. Once all of them were sent the address is dead; a switch that asks again has an installer that
failed. Whatever is not for this very switch is 404.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from metalimmu import log, structs
from metalimmu.boot import answers, onie
from metalimmu.boot.acknowledged import Watched
from metalimmu.boot.desk import Desk
from metalimmu.boot.onie import Asker
from metalimmu.boot.rules import clean
from metalimmu.boot.switch_ports import SwitchContent, SwitchDeployment
from metalimmu.boot.tokens import hashed
from metalimmu.desired.switch import HostKey

logger = log.get("boot")

BLOCK = 256 * 1024  # bytes
STALL = 120.0  # seconds for one block
NOTED = 8 << 20  # bytes, after which the count is written down
REPORT = 64 * 1024  # bytes of a report


class OnieApi:
    def __init__(self, desk: Desk, content: SwitchContent) -> None:
        self._desk = desk
        self._content = content
        self._store = content.switches()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/onie/{secret}/{name}", self.by_secret),
            web.get("/{name:onie-installer[A-Za-z0-9_.-]*}", self.by_name),
            web.get("/switch", self.by_headers),
            web.get("/nos/{secret}/image", self.for_slot),
            web.get("/ztp/{secret}/{name}", self.ztp, allow_head=False),
            web.post("/ztp/{secret}/report", self.report),
        ]

    async def by_secret(self, request: web.Request) -> web.StreamResponse:
        d = await self._found(request)
        if d is None or d.method != "onie":
            return answers.nothing()
        who = onie.asker(request.headers)
        if why := onie.misfit(who, d):
            await self._refused(d, request, why)
            return answers.nothing()
        return await self._installer(request, d)

    async def by_name(self, request: web.Request) -> web.StreamResponse:
        """An updater, another platform's name and a name that nobody would ask for are no names."""
        who = onie.asker(request.headers)
        d = await self._assigned(who, request)
        if d is None or not onie.named(request.match_info["name"], d.platform):
            return answers.nothing()
        return await self._installer(request, d)

    async def by_headers(self, request: web.Request) -> web.StreamResponse:
        who = onie.asker(request.headers)
        d = await self._assigned(who, request)
        if d is None:
            return answers.nothing()
        if not who.ztp:
            return await self._installer(request, d)
        if d.delivered == 0 or d.reported_at is not None:  # only the system that was just installed
            return answers.nothing()
        return await self._ztp(d, "ztp.json")

    async def for_slot(self, request: web.Request) -> web.StreamResponse:
        d = await self._found(request)
        if d is None or d.method != "two-slot" or not d.armed:
            return answers.nothing()
        return await self._send(request, d)

    async def ztp(self, request: web.Request) -> web.StreamResponse:
        d = await self._found(request)
        if d is None or d.method != "onie":
            return answers.nothing()
        return await self._ztp(d, request.match_info["name"])

    async def report(self, request: web.Request) -> web.StreamResponse:
        """Lines of KEY=VALUE; a key may come again."""
        d = await self._found(request)
        if d is None or d.method != "onie":
            return answers.nothing()
        async with asyncio.timeout(answers.BODY_TIME):
            data = await request.content.read(REPORT)
        said = reported(data.decode(errors="replace"))
        now = self._desk.now()
        await self._change(d, reported=said, reported_at=now)
        await self._tell(d, "ztp", f"{d.host} has done its ZTP: {said.get('version', '?')}")
        return web.Response(text="heard\n")

    # --- inside

    async def _found(self, request: web.Request) -> SwitchDeployment | None:
        secret = request.match_info["secret"]
        if len(secret) > 200:
            return None
        d = await self._desk.call(self._store.find, hashed(secret))
        return None if d is None or d.ended is not None else d

    async def _assigned(self, who: Asker, request: web.Request) -> SwitchDeployment | None:
        """By headers alone. One that is nearly right is noted: it is what the operator looks for."""
        if not who.serial and not who.base_mac:
            return None
        running = [d for d in await self._desk.call(self._store.running) if d.method == "onie"]
        found = next((d for d in running if not onie.misfit(who, d)), None)
        if found is None:
            for d in running:
                if who.base_mac == d.base_mac or (who.serial and who.serial == d.serial):
                    await self._refused(d, request, onie.misfit(who, d))
        return found

    async def _installer(self, request: web.Request, d: SwitchDeployment) -> web.StreamResponse:
        if request.method == "HEAD":  # ONIE never sends one: it asks nothing, and changes nothing
            return await self._send(request, d) if d.armed else answers.nothing()
        now, address = self._desk.now(), request.remote or ""

        def asked(at: Any) -> Mapping[str, Any]:
            """In the store's transaction. Who asks after all was sent has tried to install it, and failed."""
            again = {} if at.armed else {"failures": at.delivered}
            return {"asked": at.asked + 1, "asked_from": address, "asked_at": now, **again}

        before = d
        d = await self._desk.call(self._store.update, d.id, asked)
        self._desk.changes.notify(d.id)
        if d.failures > before.failures:
            await self._tell(d, "installer", f"{d.host} asks for its installer again: it failed {d.failures} times")
        elif before.asked == 0:
            await self._tell(d, "installer", f"{d.host} asks for its installer from {address}")
        if not d.armed:
            return answers.nothing()
        return await self._send(request, d)

    async def _send(self, request: web.Request, d: SwitchDeployment) -> web.StreamResponse:
        file = await self._desk.call(self._content.nos_image, d)
        try:
            response = web.StreamResponse()
            response.content_type = "application/octet-stream"
            response.content_length = file.size
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            if request.transport is None:
                raise ConnectionResetError("the reader has gone")
            watched = Watched(request.transport)
            block = self._desk.block(BLOCK)
            offset = noted = 0
            whole = False
            try:
                while offset < file.size:
                    data = await self._desk.call(file.pread, offset, min(block, file.size - offset))
                    if not data:
                        raise ConnectionResetError("the image became shorter while it was served")
                    await self._desk.pace(d, len(data))
                    async with asyncio.timeout(STALL):
                        await response.write(data)
                        await asyncio.sleep(0)  # a broken connection is known one turn of the loop later
                    if request.transport is None:
                        raise ConnectionResetError("the reader has gone")
                    offset += len(data)
                    if offset - noted >= NOTED and offset < file.size:
                        await self._sent(d, offset - noted)
                        noted = offset
                async with asyncio.timeout(STALL):
                    await response.write_eof()
                whole = await watched.acknowledged(STALL)
            finally:
                watched.close()
                await asyncio.shield(self._sent(d, offset - noted, whole=whole))
            return response
        finally:
            file.close()

    async def _sent(self, d: SwitchDeployment, count: int, *, whole: bool = False) -> None:
        now = self._desk.now()

        def change(at: Any) -> Mapping[str, Any]:
            """All of it: from now on nobody gets it, until the run says so again."""
            fields: dict[str, Any] = {"bytes": at.bytes + count}
            if whole:
                fields |= {"delivered": at.delivered + 1, "delivered_at": now, "armed": False}
            return fields

        await self._desk.call(self._store.update, d.id, change)
        self._desk.changes.notify(d.id)

    async def _ztp(self, d: SwitchDeployment, name: str) -> web.StreamResponse:
        found = await self._desk.call(self._content.ztp_file, d, name)
        if found is None:
            return answers.nothing()
        text, kind = found
        if name == "ztp.json" and d.ztp_at is None:
            await self._change(d, ztp_at=self._desk.now())
            await self._tell(d, "ztp", f"{d.host} fetches its ZTP")
        if name == "config_db.json":
            await self._change(d, config_at=self._desk.now())
        return web.Response(text=text, content_type=kind)

    async def _refused(self, d: SwitchDeployment, request: web.Request, why: str) -> None:
        logger.warning("%s: a request from %s got nothing: %s", d.host, request.remote, why)
        await self._change(d, refused=f"{request.remote}: {why}", refused_at=self._desk.now())

    async def _change(self, d: SwitchDeployment, **fields: Any) -> None:
        await self._desk.call(lambda: self._store.update(d.id, **fields))
        self._desk.changes.notify(d.id)

    async def _tell(self, d: SwitchDeployment, kind: str, text: str) -> None:
        await self._desk.call(self._content.switch_said, d, kind, text)


def reported(text: str) -> dict[str, Any]:
    """Of report.sh: `serial`, `version`, ... and `host_keys`, each once; what is no host key is left out."""
    found: dict[str, Any] = {}
    keys: list[str] = []
    for line in text.splitlines()[:200]:
        name, equals, value = line.partition("=")
        value = value.strip()[:2000]
        if not equals or not value:
            continue
        if name == "host_key":
            key = " ".join(value.split()[:2])
            with suppress(msgspec.ValidationError):
                keys.append(structs.convert(key, HostKey))
        elif name in ("serial", "version", "build", "boot"):
            found[name] = clean(value)[:200]
    return {**found, "host_keys": list(dict.fromkeys(keys))[:8]}
