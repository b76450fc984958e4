"""/boot: what boot loaders fetch before a deployment's own files. In the clear: none of them can do better.

::

    GET /boot/start.ipxe                              the same for every machine: asks the next one
    GET /boot/ipxe?mac=…&uuid=…&serial=…              its script: a deployment's boot, or its disk
    GET /grub/grub.cfg                                what our GRUB (see grub_image) looks for: asks the next one
    GET /boot/grub.cfg?mac=…&uuid=…                   its config
    GET /boot/efi/NAME                                iPXE and our GRUB, for UEFI HTTP boot
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from metalimmu.boot import quick
from metalimmu.boot.loaders import HTTP, Loaders
from metalimmu.boot.netboot import Netboot
from metalimmu.boot.scripts import Loader

_TEXT = "text/plain"


class NetbootApi:
    def __init__(self, netboot: Netboot, loaders: Loaders) -> None:
        self.netboot = netboot
        self._loaders = loaders

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/boot/start.ipxe", self._start("ipxe")),
            web.get("/grub/grub.cfg", self._start("grub")),
            web.get("/boot/ipxe", self._script("ipxe")),
            web.get("/boot/grub.cfg", self._script("grub")),
            web.get("/boot/efi/{name:[A-Za-z0-9._-]+}", self.loader),
            web.get("/boot/{file:.+}", self._no_file),
            web.get("/grub/{file:.+}", self._no_file),
        ]

    def _start(self, loader: Loader) -> quick.Handler:
        async def start(_request: web.Request) -> web.StreamResponse:
            return web.Response(body=self.netboot.start[loader], content_type=_TEXT)

        return start

    def _script(self, loader: Loader) -> quick.Handler:
        async def script(request: web.Request) -> web.StreamResponse:
            if request.method == "HEAD":
                # GRUB asks for the size first on some firmware: nobody has booted anything by that.
                return web.Response(content_type=_TEXT)
            asked = quick.question(request.query_string, request.remote or "", loader)
            return web.Response(body=await self.netboot.answer(asked), content_type=_TEXT)

        return script

    async def _no_file(self, _request: web.Request) -> web.StreamResponse:
        """Not without a body: GRUB 2.06 waits for one for ever."""
        return web.Response(status=404, text="no such file\n")

    async def loader(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name == HTTP:
            data = await asyncio.get_running_loop().run_in_executor(None, self._loaders.http)
            return web.Response(body=data, content_type="application/efi")
        file = self._loaders.file(name)
        if file is None:
            return await self._no_file(request)
        return web.FileResponse(file, headers={"Content-Type": "application/efi"})
