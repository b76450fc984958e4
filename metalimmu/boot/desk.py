"""What all requests share: the store asked from threads, deployments found by their secrets, images kept decoded."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from metalimmu.boot.changes import Changes
from metalimmu.boot.limits import PIECE, Racks, Turns
from metalimmu.boot.ports import Content, Deployment, Deployments, Images, MediaFile, Receiver, Secret
from metalimmu.boot.recorder import Recorder
from metalimmu.boot.switch_ports import SwitchContent
from metalimmu.boot.tokens import SiteKey, hashed
from metalimmu.errors import ImageError
from metalimmu.wire.manifest import Manifest

T = TypeVar("T")

_FRESH = 1.0  # seconds that a found deployment is believed to be running, for media and chunks
_KEPT = 512  # found deployments
_MEDIA_IDLE = 60.0  # seconds
_IMAGES_KEPT = 8  # a manifest of 100 GB takes about 10 MB

AGAIN = 300.0  # seconds until an installed system says again that it is there


@dataclass(frozen=True)
class Served:
    """An image as it is served."""

    manifest: Manifest
    encoded: bytes
    chunks: frozenset[str]


@dataclass
class _Open:
    file: MediaFile
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Desk:
    """Lives in the boot service's loop; everything that may block goes through `call`."""

    def __init__(
        self,
        *,
        deployments: Deployments,
        images: Images,
        content: Content,
        key: SiteKey,
        changes: Changes,
        chunks_url: str,
        again: float = AGAIN,
        per_rack: float | None = None,
        agents: int | None = None,
        clock: Callable[[], float] = time.time,
        switches: SwitchContent | None = None,
    ) -> None:
        self.deployments = deployments
        self.images = images
        self.content = content
        self.changes = changes
        self.switches = switches
        self.recorder = Recorder(deployments, changes.notify)
        self.again = again
        self.now = clock
        self.racks = Racks(per_rack)
        self.turns = Turns(agents)
        self._key = key
        self._chunks_url = chunks_url
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="metalimmu-boot")
        self._found: OrderedDict[tuple[Secret, str], tuple[float, Deployment | None]] = OrderedDict()
        self._served: OrderedDict[str, Served] = OrderedDict()
        self._media: dict[tuple[str, str], _Open] = {}
        self._rack: OrderedDict[str, str] = OrderedDict()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for opened in self._media.values():
            opened.file.close()
        self._media.clear()

    async def flush(self) -> None:
        """Write what the recorder has."""
        beats = self.recorder.take()
        if not await self.call(self.recorder.write, beats):
            self.recorder.give_back(beats)

    async def find(self, kind: Secret, secret: str | None) -> Deployment | None:
        """As the store has it now."""
        if not secret or len(secret) > 200:
            return None
        return await self.call(self.deployments.find_deployment, kind, hashed(secret))

    def made(self, kind: Secret, secret: str, deployment: str) -> bool:
        """Did this site give that secret for that deployment, whether or not we know of it?"""
        return self._key.made(kind, secret, deployment)

    def is_controller(self, secret: str) -> bool:
        return hmac.compare_digest(self._key.controller.encode(), secret.encode("utf-8", "surrogateescape"))

    async def running(self, kind: Secret, secret: str) -> Deployment | None:
        """One that has not ended, as it was at most a second ago: chunks come by the thousand."""
        key = (kind, hashed(secret))
        at, found = self._found.get(key, (0.0, None))
        if time.monotonic() - at > _FRESH:
            found = await self.find(kind, secret)
            self._found[key] = (time.monotonic(), found)
            self._found.move_to_end(key)
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return found if found is not None and found.ended is None else None

    def known(self, kind: Secret, secret: str) -> Deployment | None:
        """As `running`, of those that were found within the last second."""
        at, found = self._found.get((kind, hashed(secret)), (0.0, None))
        return found if found is not None and found.ended is None and time.monotonic() - at <= _FRESH else None

    def loaded(self, digest: str) -> Served | None:
        """As `image`, of those that are in memory."""
        return self._served.get(digest)

    def block(self, size: int) -> int:
        """Bytes of an image that are sent together: fewer where a rack has a limit."""
        return min(size, PIECE) if self.racks.limited else size

    async def pace(self, deployment: Receiver, size: int) -> None:
        """Returns when so many bytes of an image may leave for the rack of this machine."""
        if not self.racks.limited:
            return
        rack = self._rack.get(deployment.id)
        if rack is None:
            rack = self._rack[deployment.id] = await self.call(self.content.rack, deployment)
            if len(self._rack) > _KEPT:
                self._rack.popitem(last=False)
        await self.racks.pace(rack, size)

    async def image(self, digest: str) -> Served:
        """Raises ImageError when the catalogue does not have it."""
        served = self._served.get(digest)
        if served is None:
            served = await self.call(self._load, digest)
            self._served[digest] = served
            if len(self._served) > _IMAGES_KEPT:
                self._served.popitem(last=False)
        else:
            self._served.move_to_end(digest)
        return served

    @asynccontextmanager
    async def media(self, deployment: Deployment, name: str = "") -> AsyncIterator[MediaFile]:
        """The boot media, or a file by its name for a boot from the network; shared by all requests for it."""
        key = (deployment.id, name)
        opened = self._media.get(key)
        if opened is None:
            more = (name,) if name else ()
            file = await self.call(self.content.netboot_file if name else self.content.media, deployment, *more)
            opened = self._media.setdefault(key, _Open(file))
            if opened.file is not file:
                file.close()  # another request was faster
        opened.users += 1
        try:
            yield opened.file
        finally:
            opened.users -= 1
            opened.used = time.monotonic()

    def sweep(self) -> None:
        """Close media that nobody reads."""
        old = time.monotonic() - _MEDIA_IDLE
        for key, opened in list(self._media.items()):
            if opened.users == 0 and opened.used < old:
                del self._media[key]
                opened.file.close()

    def chunk_base(self, deployment: Deployment) -> str:
        return f"{self._chunks_url}/c/{self._key.secret('chunk', deployment.id)}"

    def file_path(self, deployment: str) -> str:
        """Where the files of a deployment are, without a trailing slash."""
        return f"/m/{self._key.secret('media', deployment)}"

    def _load(self, digest: str) -> Served:
        image = self.images.by_digest(digest)
        if image is None:
            raise ImageError(f"the image store has no image with digest {digest}", hint="add it again from its file")
        return Served(image.manifest, image.manifest.encode(), frozenset(image.manifest.distinct()))
