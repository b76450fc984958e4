"""HTTPS listeners, one per BMC, on werkzeug's threaded server."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from metalimmu_emulator.bmc import Bmc

LOG = logging.getLogger(__name__)
HANDSHAKE_SECONDS = 20.0
IDLE_SECONDS = 600.0


def listen(port: int = 0) -> socket.socket:
    """On 127.0.0.1: nobody else may drive the lab. Port 0: a free one. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # werkzeug's default closes after each answer; BMCs keep connections alive
    server: BmcServer

    def run_wsgi(self) -> None:
        if self.server.bmc.gate(self.command, self.path):
            super().run_wsgi()
        else:
            self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # werkzeug's name
        LOG.debug("%s %s", type, message % args)


class BmcServer(ThreadedWSGIServer):
    daemon_threads = True

    def __init__(self, bmc: Bmc, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.bmc = bmc
        self._context = context
        self._open: set[ssl.SSLSocket] = set()
        self._guard = threading.Lock()
        host, port = sock.getsockname()
        with sock:  # werkzeug duplicates it
            super().__init__(host, port, bmc, handler=_Handler, fd=sock.fileno())
        self.name = bmc.vm.spec.name
        bmc.cut = self.cut

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.2,), name=f"{self.name}-bmc", daemon=True).start()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """False closes the connection at once: a BMC that reboots."""
        return not self.bmc.away()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a client which never says hello holds up nobody else."""
        request.settimeout(HANDSHAKE_SECONDS)
        try:
            tls = self._context.wrap_socket(request, server_side=True)
        except OSError as exc:  # ssl.SSLError is one
            LOG.debug("%s: TLS handshake failed: %s", self.name, exc)
            return
        tls.settimeout(IDLE_SECONDS)
        with self._guard:
            self._open.add(tls)
        try:
            super().finish_request(tls, client_address)
        finally:
            with self._guard:
                self._open.discard(tls)
            tls.close()

    def cut(self) -> None:
        """End all connections, as a BMC's reboot does."""
        with self._guard:
            for tls in self._open:
                try:
                    tls.shutdown(socket.SHUT_RDWR)
                except OSError:
                    LOG.debug("%s: a connection was gone already", self.name)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        LOG.debug("%s: connection broken", self.name, exc_info=True)  # noqa: LOG014  # socketserver calls it inside its handler
