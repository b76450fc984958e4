"""/m and /c: boot media for BMCs, chunks for agents. Bytes that really went out are counted per deployment."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from metalimmu import log
from metalimmu.boot import answers, ranges
from metalimmu.boot.desk import Desk
from metalimmu.boot.limits import PIECE
from metalimmu.boot.ports import Deployment, MediaFile
from metalimmu.boot.ranges import Slice
from metalimmu.errors import NotFound

BLOCK = 256 * 1024  # bytes of media in memory per transfer
TLS_BLOCK = 256 * 1024
MEDIA_STALL = 600.0  # seconds for one block: BMCs stop reading while their machine does something else
CHUNK_TIME = 180.0  # seconds for one chunk of at most 1 MiB

_SHA = re.compile(r"[0-9a-f]{64}\Z")

logger = log.get("boot")


class MediaApi:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def media_routes(self) -> list[web.RouteDef]:
        return [web.get("/m/{secret}/boot.iso", self.media)]

    def netboot_routes(self) -> list[web.RouteDef]:
        return [web.get("/m/{secret}/{name:[A-Za-z0-9][A-Za-z0-9._-]{0,63}}", self.media)]

    def chunk_routes(self) -> list[web.RouteDef]:
        return [web.get("/c/{secret}/{sha}", self.chunk)]

    async def media(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.running("media", request.match_info["secret"])
        if d is None:
            return answers.nothing()
        try:
            return await self._media(request, d, request.match_info.get("name", ""))
        except NotFound:  # no such file for this deployment
            return answers.nothing()

    async def _media(self, request: web.Request, d: Deployment, name: str) -> web.StreamResponse:
        async with self._desk.media(d, name) as file:
            wanted = Slice(200, 0, file.size, file.size)
            if "If-Range" not in request.headers:  # we send no validator, so a condition can never hold
                wanted = ranges.parse(request.headers.get("Range"), file.size)
            response = web.StreamResponse(status=wanted.status, headers={"Accept-Ranges": "bytes"})
            response.content_type = "application/octet-stream"
            response.content_length = wanted.length
            if wanted.content_range:
                response.headers["Content-Range"] = wanted.content_range
            await response.prepare(request)
            if request.method != "HEAD":
                await self._send_media(request, response, d, file, wanted)
            return response

    async def chunk(self, request: web.Request) -> web.StreamResponse:
        d = await self._desk.running("chunk", request.match_info["secret"])
        sha = request.match_info["sha"]
        if d is None or not _SHA.match(sha) or sha not in (await self._desk.image(d.digest)).chunks:
            return answers.nothing()
        try:
            fd = os.open(self._desk.images.chunk_path(sha), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            logger.warning("chunk %s of %s cannot be read: %s; `metalimmu image verify` says more", sha, d.host, exc)
            return answers.nothing()
        try:
            size = os.fstat(fd).st_size
            response = web.StreamResponse()
            response.content_type = "application/zstd"
            response.content_length = size
            with _corked(request, wanted=not self._desk.racks.limited):
                await response.prepare(request)
                if request.method != "HEAD":
                    await self._send_chunk(request, response, d, fd, size)
        finally:
            os.close(fd)
        return response

    async def _send_media(
        self, request: web.Request, response: web.StreamResponse, d: Deployment, file: MediaFile, wanted: Slice
    ) -> None:
        paced = d.kind != "disk"  # else it is the ramdisk, and the image comes in chunks
        block = self._desk.block(BLOCK) if paced else BLOCK
        offset, end = wanted.offset, wanted.offset + wanted.length
        while offset < end:
            data = await self._desk.call(file.pread, offset, min(block, end - offset))
            if not data:
                raise ConnectionResetError("the media became shorter while it was served")
            if paced:
                await self._desk.pace(d, len(data))
            async with asyncio.timeout(MEDIA_STALL):
                await _write(request, response, data)
            self._desk.recorder.sent(d.id, media=len(data))
            offset += len(data)

    async def _send_chunk(
        self, request: web.Request, response: web.StreamResponse, d: Deployment, fd: int, size: int
    ) -> None:
        """By sendfile where the transport can; TLS cannot. In small pieces where the rack has a limit."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the reader has gone")
        limited = self._desk.racks.limited
        if transport.get_extra_info("sslcontext") is not None:
            data = memoryview(await self._desk.call(os.pread, fd, size, 0))
            for start, length in _pieces(size, PIECE if limited else TLS_BLOCK):
                await self._desk.pace(d, length)
                async with asyncio.timeout(CHUNK_TIME):
                    await _write(request, response, data[start : start + length])
                self._desk.recorder.sent(d.id, chunks=length)
            return
        with io.FileIO(fd, "rb", closefd=False) as file:
            for start, length in _pieces(size, PIECE if limited else size):
                await self._desk.pace(d, length)
                if transport.is_closing():
                    raise ConnectionResetError("the reader has gone")
                await self._sendfile(transport, file, start, length, d.id)

    async def _sendfile(
        self, transport: asyncio.Transport, file: io.FileIO, start: int, length: int, deployment: str
    ) -> None:
        try:
            async with asyncio.timeout(CHUNK_TIME):
                await asyncio.get_running_loop().sendfile(transport, file, start, length)
        finally:  # sendfile moves the file's position over what the socket took, also when it breaks off
            self._desk.recorder.sent(deployment, chunks=os.lseek(file.fileno(), 0, os.SEEK_CUR) - start)


@contextmanager
def _corked(request: web.Request, *, wanted: bool) -> Iterator[None]:
    """The head goes out in one packet with the beginning of the file (tcp(7), TCP_CORK): the reader wakes up once less."""
    sock = request.get_extra_info("socket") if wanted else None
    if sock is None or sock.family == socket.AF_UNIX:
        yield
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    try:
        yield
    finally:
        with suppress(OSError):  # the reader has gone
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def _pieces(size: int, piece: int) -> Iterator[tuple[int, int]]:
    """(start, length)"""
    return ((start, min(piece, size - start)) for start in range(0, size, max(1, piece)))


async def _write(request: web.Request, response: web.StreamResponse, data: bytes | memoryview) -> None:
    """Returns when the socket has taken it. A broken connection is known one turn of the loop later (seen with TLS on
    Python 3.11: all further writes seemed to succeed).
    """
    await response.write(data)
    await asyncio.sleep(0)
    if request.transport is None:
        raise ConnectionResetError("the reader has gone")


def media_path(secret: str) -> str:
    return f"{files_path(secret)}/boot.iso"


def files_path(secret: str) -> str:
    return f"/m/{secret}"
