"""What ONIE's installer says while it works: syslog (RFC 3164) over UDP, where DHCP's option 7 has sent it.

Anybody can send such packets: only lines from the address that the installer was given to are kept, and not many of
them. They are words for the operator, and decide nothing.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter

from metalimmu import log
from metalimmu.boot.switch_ports import SwitchContent, SwitchDeployment
from metalimmu.errors import ListenError, MetalimmuError

MOST = 300  # lines of one deployment
_LONGEST = 400  # characters of a line
_FRESH = 0.2  # seconds that the running deployments are remembered
_LINE = re.compile(r"<\d{1,3}>(?:[A-Z][a-z]{2}\s+\d+ [\d:]{8} )?(?:\S+ )?(?P<tag>(?:os-install|onie[\w-]*))(?:\[\d+\])?:\s*(?P<text>.*)", re.DOTALL)  # fmt: skip

logger = log.get("boot")


class Syslog:
    """`start` and `stop` from any thread. `where`: ADDRESS:PORT."""

    def __init__(self, where: str, content: SwitchContent) -> None:
        host, _, port = where.rpartition(":")
        self._place = (host.strip("[]"), int(port))
        self._content = content
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._kept: Counter[str] = Counter()
        self._known: tuple[float, dict[str, SwitchDeployment]] = (0.0, {})

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1] if self._socket else 0

    def start(self) -> None:
        """Raises ListenError."""
        family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.bind(self._place)
        except OSError as exc:
            sock.close()
            raise ListenError(
                f"syslog cannot be heard at {self._place[0]}:{self._place[1]} (listen.syslog): {exc.strerror or exc}",
                hint="another program has that port, or it is below 1024 and needs root; leave listen.syslog out to do without",
            ) from exc
        sock.settimeout(0.2)
        self._socket = sock
        self._thread = threading.Thread(target=self._listen, args=(sock,), name="metalimmu-syslog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        if self._socket is not None:
            self._socket.close()

    def _listen(self, sock: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                data, sender = sock.recvfrom(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                self._heard(data, str(sender[0]))
            except MetalimmuError as exc:  # the store is full or locked: these words can be missed
                logger.debug("a line of syslog was not kept: %s", exc)

    def _heard(self, data: bytes, sender: str) -> None:
        found = _LINE.match(data.decode(errors="replace"))
        if found is None:
            return
        d = self._running().get(sender)
        if d is None or self._kept[d.id] >= MOST:
            return
        self._kept[d.id] += 1
        text = " ".join("".join(c if c.isprintable() else " " for c in found["text"]).split())[:_LONGEST]
        if text:
            self._content.switch_said(d, "onie", f"{found['tag']}: {text}")

    def _running(self) -> dict[str, SwitchDeployment]:
        """By the address that asked for the installer."""
        at, known = self._known
        if time.monotonic() - at > _FRESH:
            known = {d.asked_from: d for d in self._content.switches().running() if d.asked_from}
            self._known = (time.monotonic(), known)
        return known
