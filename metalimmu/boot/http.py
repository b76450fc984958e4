"""The boot service: HTTP for BMCs and booting machines, in one thread with a loop of its own.

::

    BMCs' listener       GET  /m/SECRET/boot.iso      boot media, Range requests
    (urls.bmc)           GET  /c/SECRET/SHA256        chunks, if the site has `urls.chunks`
    machines' listener   *    /v1/...                 agents and proof units, see wire.messages
    (urls.machines, TLS) GET  /c/SECRET/SHA256        chunks
    boot loaders         GET  /boot/..., /grub/...    scripts and loaders, see netboot_api
    (urls.boot, plain)   GET  /m/SECRET/NAME          kernel and initrds of one deployment
                         *    /i/SECRET/...           answers of installers, see install_api
                         *    /onie..., /switch, /nos/..., /ztp/...  switches, see onie_api

Everything else, and everything that is not part of a running deployment, is 404 without a word.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from urllib.parse import unquote

from metalimmu import log
from metalimmu.boot import listeners
from metalimmu.boot.changes import Changes
from metalimmu.boot.desk import AGAIN, Desk
from metalimmu.boot.listeners import Listener
from metalimmu.boot.media_api import files_path, media_path
from metalimmu.boot.netboot import Netboot
from metalimmu.boot.ports import Content, Deployments, Images
from metalimmu.boot.switch_ports import SwitchContent
from metalimmu.boot.syslog import Syslog
from metalimmu.boot.tls import TlsFiles
from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.netboot import Netboot as NetbootSettings
from metalimmu.desired.types import Listen, Urls
from metalimmu.errors import ListenError, UsageError

_READY = 30.0  # seconds
_STOPPED = 30.0  # seconds
_ENOUGH = 8  # characters of a secret that a BMC which cuts addresses must show

logger = log.get("boot")


class BootService:
    """`start` and `stop` from any thread. After `start` all ports are open; after `stop` all is written."""

    def __init__(
        self,
        urls: Urls,
        listen: Listen,
        *,
        tls: TlsFiles,
        key: SiteKey,
        deployments: Deployments,
        images: Images,
        content: Content,
        changes: Changes | None = None,
        again: float = AGAIN,
        per_rack: float | None = None,
        agents: int | None = None,
        netboot: NetbootSettings | None = None,
        switches: SwitchContent | None = None,
    ) -> None:
        """`per_rack`: bytes per second; `agents` that write at once; see limits. `netboot`: of site.yaml.

        Raises UsageError for addresses that contradict each other.
        """
        self.changes = changes or Changes()
        self._urls = urls
        self._tls = tls
        self._key = key
        self._plan = listeners.plan(urls, listen)
        self._make_desk: Callable[[], Desk] = lambda: Desk(
            deployments=deployments,
            images=images,
            content=content,
            key=key,
            changes=self.changes,
            again=again,
            per_rack=per_rack,
            agents=agents,
            switches=switches,
            chunks_url=(urls.chunks or urls.machines).rstrip("/"),
        )
        self._netboot = netboot or NetbootSettings()
        self._syslog = Syslog(listen.syslog, switches) if listen.syslog and switches is not None else None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failed: Exception | None = None
        self._seen: dict[str, int] = {}

    def start(self) -> None:
        """Raises ListenError (a port is taken) and SecretError (key or certificate)."""
        if self._thread is not None:
            raise RuntimeError("the boot service runs already")
        context = self._tls.context()
        places: list[tuple[Listener, socket.socket]] = []
        try:
            places.extend((each, listeners.open_socket(each)) for each in self._plan)
            if self._syslog is not None:
                self._syslog.start()
        except ListenError:
            for _, sock in places:
                sock.close()
            raise
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(places, context, ready), name="metalimmu-boot", daemon=True
        )
        self._thread.start()
        if not ready.wait(_READY) or self._failed is not None:
            self.stop()
            raise ListenError(
                "the boot service did not come up", hint="run again with --verbose and read the log"
            ) from (self._failed)
        logger.info("boot service listens on %s", ", ".join(f"{p.host or '*'}:{p.port}" for p in self._plan))

    def stop(self) -> None:
        """Ends transfers under way after 2 s. Nothing happens when it does not run."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._syslog is not None:
            self._syslog.stop()
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(_STOPPED)
        if thread.is_alive():
            logger.error("the boot service did not stop within %g s", _STOPPED)

    def media_url(self, deployment: str) -> str:
        """Where the BMC finds this deployment's boot media: no `?`, no `=` (Supermicro X12 refuses them)."""
        return self._urls.bmc.rstrip("/") + media_path(self._key.secret("media", deployment))

    def boot_url(self, path: str = "/boot/start.ipxe") -> str:
        """Where boot loaders reach us. Raises UsageError when the site has no address in the clear for them."""
        url = listeners.boot_url(self._urls)
        if url is None:
            raise UsageError(
                "the site has no address in the clear that machines could boot from",
                hint="set urls.boot: http://ADDRESS:PORT in site.yaml, as the machines reach the controller",
            )
        return url + path

    def files_url(self, deployment: str) -> str:
        """Where boot loaders find the files of a deployment, without a trailing slash. Raises UsageError as `boot_url`."""
        return self.boot_url(files_path(self._key.secret("media", deployment)))

    def switch_url(self, path: str, deployment: str) -> str:
        """An address of one switch's deployment: `/onie/{}/onie-installer`, `/ztp/{}/ztp.json`. Raises UsageError."""
        return self.boot_url(path.format(self._key.secret("switch", deployment)))

    def is_media_of(self, deployment: str, image: str) -> bool:
        """Is the address that a BMC shows this deployment's? BMCs cut, unquote or lower-case what they show."""
        secret = self._key.secret("media", deployment)
        ours = self.media_url(deployment).casefold()
        shown = unquote(image).strip().casefold()
        return secret in shown or (len(shown) >= ours.index(secret) + _ENOUGH and ours.startswith(shown))

    def wait(self, deployment: str, seconds: float) -> None:
        """Until something about the deployment has changed since the last `wait` for it, or for `seconds`."""
        self._seen[deployment] = self.changes.wait(deployment, seconds, since=self._seen.get(deployment, 0))

    def _run(
        self, places: list[tuple[Listener, socket.socket]], context: ssl.SSLContext, ready: threading.Event
    ) -> None:
        from metalimmu.boot.server import serve

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            desk = self._make_desk()
            url = listeners.boot_url(self._urls)
            netboot = Netboot(desk, url, max_boots=self._netboot.max_boots) if url else None
            await serve(places, context, desk, netboot=netboot, ready=ready.set, stop=self._stop)

        try:
            asyncio.run(main())
        except Exception as exc:
            self._failed = exc
            logger.exception("the boot service ended")
        finally:
            for _, sock in places:
                sock.close()
            ready.set()
