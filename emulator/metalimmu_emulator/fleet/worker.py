"""One process of a fleet: `python -m metalimmu_emulator.fleet.worker FOLDER NUMBER OF [--detached]`.

Says its process number, then `ready`, or why not. Serves its share of the BMCs, obeys over a Unix socket in the folder, one JSON object per line, and ends with the process
that started it, on SIGTERM, or when the folder's fleet.json goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.errors import MetalimmuError
from metalimmu_emulator.fleet import control, server
from metalimmu_emulator.fleet.spec import Counters, FleetSpec

SPEC = "fleet.json"
LARGEST = 64 << 20


def share(spec: FleetSpec, number: int, of: int) -> range:
    """The `number`-th of `of` address ranges."""
    count = len(spec.members)
    return range(count * number // of, count * (number + 1) // of)


def obey(serving: server.Server, order: dict[str, Any]) -> dict[str, Any]:
    """One order: {"bmc": index or null for all, "verb", "args"} -> {"result"} or {"error", "hint"}."""
    verb, arguments, index = order.get("verb", ""), order.get("args") or {}, order.get("bmc")
    try:
        if index is not None:
            return {"result": control.run(serving.personas[index], verb, arguments)}
        if verb == "counters":
            total = Counters()
            for persona in serving.personas.values():
                persona.counters.sessions = len(persona.sessions)
                total.add(persona.counters)
            return {"result": msgspec.to_builtins(total)}
        for persona in serving.personas.values():
            control.run(persona, verb, arguments)
    except MetalimmuError as exc:
        return {"error": exc.message, "hint": exc.hint}
    return {"result": None}


@contextlib.contextmanager
def socket_path(folder: Path, number: int) -> Iterator[str]:
    """Through a descriptor: the path of a Unix socket has at most 107 characters, a test's folder more."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/control-{number}.sock"
    finally:
        os.close(fd)


def _control_socket(folder: Path, number: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    with socket_path(folder, number) as path:
        Path(path).unlink(missing_ok=True)
        sock.bind(path)
    return sock


async def _serve(folder: Path, number: int, of: int, *, detached: bool) -> None:
    spec = msgspec.json.decode((folder / SPEC).read_bytes(), type=FleetSpec)
    serving = server.Server(spec, share(spec, number, of), folder)
    gc.collect()
    gc.freeze()  # templates and personas are here for good: no cycle collection walks them again
    serving.open(spec.port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if not detached:
        loop.add_reader(0, stop.set)  # our starter holds the other end, and writes nothing

    async def listened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                writer.write(msgspec.json.encode(obey(serving, msgspec.json.decode(line))) + b"\n")
                await writer.drain()
        writer.close()

    controlled = await asyncio.start_unix_server(listened, sock=_control_socket(folder, number), limit=LARGEST)
    os.write(1, b"ready\n")
    os.dup2(2, 1)  # whoever started us reads no more
    while not stop.is_set() and (folder / SPEC).exists():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
    controlled.close()
    serving.close()


def main(arguments: list[str]) -> int:
    folder, number, of = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    detached = "--detached" in arguments
    if detached and os.fork():
        return 0
    os.write(1, f"{os.getpid()}\n".encode())
    try:
        asyncio.run(_serve(folder, number, of, detached=detached))
    except server.PortTaken as exc:
        os.write(1, f"taken {exc}\n".encode())
        return 3
    except MetalimmuError as exc:
        os.write(1, f"failed {exc.message}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
