"""A fleet's processes: started, ordered about over their sockets, and ended. None is left behind."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from metalimmu.errors import LabError
from metalimmu_emulator.fleet import server, spec, worker
from metalimmu_emulator.processes import ProcessId, alive, end, identify

RUNNING = "running.json"
START_SECONDS = 120.0
ANSWER_SECONDS = 60.0


class Running(msgspec.Struct, frozen=True):
    """Written beside fleet.json while processes serve it."""

    port: int
    pids: tuple[int, ...]
    started: tuple[int, ...]


class Children:
    def __init__(self, folder: Path, port: int, ids: list[ProcessId], count: int) -> None:
        self.port = port
        self.ids = ids
        self._folder = folder
        self._count = count  # BMCs
        self._popen: list[subprocess.Popen[bytes]] = []

    @classmethod
    def start(cls, folder: Path, wanted: spec.FleetSpec, processes: int, *, detached: bool) -> Children:
        """Raises PortTaken, LabError."""
        processes = min(processes, len(wanted.members))
        port = wanted.port or _free(wanted)
        (folder / worker.SPEC).write_bytes(msgspec.json.encode(msgspec.structs.replace(wanted, port=port)))
        children = cls(folder, port, [], len(wanted.members))
        try:
            for number in range(processes):
                children._spawn(number, processes, detached=detached)
            for popen in children._popen:
                children._wait_ready(popen)
        except BaseException:
            children.stop()
            raise
        running = Running(port, tuple(i.pid for i in children.ids), tuple(i.started for i in children.ids))
        (folder / RUNNING).write_bytes(msgspec.json.encode(running))
        if detached:
            for popen in children._popen:  # who forked, and is gone
                popen.wait(START_SECONDS)
        return children

    @classmethod
    def found(cls, folder: Path) -> Children:
        """Those that run already. Raises LabError."""
        try:
            running = msgspec.json.decode((folder / RUNNING).read_bytes(), type=Running)
            wanted = msgspec.json.decode((folder / worker.SPEC).read_bytes(), type=spec.FleetSpec)
        except (OSError, msgspec.DecodeError) as exc:
            raise LabError(
                f"no fleet runs in {folder}", hint="start one: `metalimmu lab fleet --bmcs 100 --detach`"
            ) from exc
        ids = [ProcessId(p, s) for p, s in zip(running.pids, running.started, strict=True)]
        return cls(folder, running.port, ids, len(wanted.members))

    @property
    def alive(self) -> bool:
        return all(alive(i) for i in self.ids)

    def _spawn(self, number: int, of: int, *, detached: bool) -> None:
        command = [sys.executable, "-m", "metalimmu_emulator.fleet.worker", str(self._folder), str(number), str(of)]
        with (self._folder / f"worker-{number}.log").open("ab") as log:
            popen = subprocess.Popen(
                command + (["--detached"] if detached else []),
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the one who started us
            )
        self._popen.append(popen)

    def _wait_ready(self, popen: subprocess.Popen[bytes]) -> None:
        """Raises PortTaken, LabError."""
        assert popen.stdout  # noqa: S101  # it is a pipe
        timer = threading.Timer(START_SECONDS, popen.kill)
        timer.start()
        try:
            pid = popen.stdout.readline().decode(errors="replace").strip()
            found = identify(int(pid)) if pid.isdigit() else None
            self.ids += [found] if found else []
            line = popen.stdout.readline().decode(errors="replace").strip()
        finally:
            timer.cancel()
        if line.startswith("taken"):
            raise server.PortTaken(line.removeprefix("taken "))
        if line != "ready":
            why = line.removeprefix("failed ") or "see its log"
            raise LabError(f"a process of the fleet ended: {why}", hint=f"logs are in {self._folder}")
        popen.stdout.close()

    def order(self, index: int | None, verb: str, arguments: dict[str, Any]) -> Any:
        from metalimmu_emulator.fleet.fleet import result

        order = msgspec.json.encode({"bmc": index, "verb": verb, "args": arguments}) + b"\n"
        count, of = self._count, len(self.ids)
        if index is not None:
            number = next(n for n in range(of) if index < count * (n + 1) // of)
            return result(self._ask(number, order))
        answers = [result(self._ask(n, order)) for n in range(of)]
        if verb != "counters":
            return None
        total = spec.Counters()
        for one in answers:
            total.add(msgspec.convert(one, spec.Counters))
        return msgspec.to_builtins(total)

    def _ask(self, number: int, order: bytes) -> dict[str, Any]:
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX) as sock, worker.socket_path(self._folder, number) as path:
                sock.settimeout(ANSWER_SECONDS)
                sock.connect(path)
                sock.sendall(order)
                while not answer.endswith(b"\n"):
                    part = sock.recv(1 << 20)
                    if not part:
                        raise ConnectionResetError
                    answer += part
        except OSError as exc:
            raise LabError(f"process {number} of the fleet does not answer: {exc}") from exc
        found: dict[str, Any] = msgspec.json.decode(answer)
        return found

    def stop(self) -> None:
        """All gone when it returns."""
        for popen in self._popen:
            if popen.stdin:
                popen.stdin.close()  # they end by that alone
        for ident in self.ids:
            end(ident, grace=10.0)
        for popen in self._popen:
            popen.wait(10)
            if popen.stdout:
                popen.stdout.close()
        for name in (RUNNING, worker.SPEC):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()


def _free(wanted: spec.FleetSpec) -> int:
    """A port that is free at the first address. Another program may be faster: then PortTaken says so."""
    with server.listen(spec.address(wanted.network, 0), 0) as sock:
        return int(sock.getsockname()[1])
