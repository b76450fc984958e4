"""Many BMCs in one event loop, each listening at its own address."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from pathlib import Path

from metalimmu.errors import LabError
from metalimmu_emulator.fleet import certificates, makes
from metalimmu_emulator.fleet.connection import Connection, Ways
from metalimmu_emulator.fleet.identity import Identity
from metalimmu_emulator.fleet.persona import Persona
from metalimmu_emulator.fleet.spec import FleetSpec, address

BACKLOG = 64
ACCEPTED_AT_ONCE = 32


class PortTaken(Exception):
    """Another program listens there."""


class Server:
    """BMCs `share[0]`, `share[1]`, ... of a fleet. All methods run in the loop's thread."""

    def __init__(self, spec: FleetSpec, share: range, folder: Path) -> None:
        self.personas: dict[int, Persona] = {}
        templates = makes.Templates()
        for index in share:
            member = spec.members[index]
            identity = Identity(index + 1, member.name, address(spec.network, index), spec.seed, spec.username)
            persona = Persona(
                templates.of(member.make), identity, password=spec.password, task_seconds=spec.task_seconds
            )
            for name, parameters in member.faults.items():
                persona.faults.append(makes.fault(name, parameters))
            self.personas[index] = persona
        self._ways = {name: _ways(spec, folder, name) for name in {certificates.name(i) for i in share}}
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._accepting: set[asyncio.Task[object]] = set()

    def open(self, port: int) -> int:
        """Listen everywhere; the port, for which 0 means any. Raises PortTaken, LabError."""
        allow_files(len(self.personas) * 2 + 1000)
        loop = asyncio.get_running_loop()
        for index, persona in self.personas.items():
            ways = self._ways[certificates.name(index)]
            sock = listen(persona.identity.ip, port)
            port = port or int(sock.getsockname()[1])
            persona.port = port
            self._listeners.append(sock)
            loop.add_reader(sock.fileno(), self._accept, sock, persona, ways)
        return port

    def _accept(self, listener: socket.socket, persona: Persona, ways: Ways) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE):  # the client waits in the backlog; connections will end
                    return
                raise
            sock.setblocking(False)
            task = loop.create_task(self._connected(sock, persona, ways))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _connected(self, sock: socket.socket, persona: Persona, ways: Ways) -> None:
        def protocol() -> Connection:
            connection = Connection(persona, ways, self._connections.discard)
            self._connections.add(connection)
            return connection

        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # it went away while it was being greeted
            await loop.connect_accepted_socket(protocol, sock)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._listeners:
            loop.remove_reader(sock.fileno())
            sock.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.cut()


def _ways(spec: FleetSpec, folder: Path, certificate: str) -> Ways:
    if not spec.tls:
        return Ways(None, None, spec.latency)
    strange = certificates.context(folder, certificates.STRANGE)
    return Ways(certificates.context(folder, certificate), strange, spec.latency)


def listen(ip: str, port: int) -> socket.socket:
    """Raises PortTaken, LabError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortTaken(f"{ip}:{port}") from exc
        raise LabError(f"{ip}:{port}: cannot listen: {exc.strerror}", hint="use fewer BMCs, or another port") from exc
    return sock


def allow_files(wanted: int) -> None:
    """A socket per BMC and one per connection. Raises LabError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if allowed < wanted * 0.6:
            raise LabError(
                f"{wanted} open files are needed and {hard} are allowed",
                hint="raise the limit (ulimit -Hn), or use fewer BMCs or more processes",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
