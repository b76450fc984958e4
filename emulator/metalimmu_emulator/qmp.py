"""QEMU Machine Protocol: JSON lines over a socket (QEMU docs/interop/qmp-spec). A small synchronous client.

One reader thread per connection: answers go to whoever waits for them, events to a queue. So an event that comes
while a command runs is not lost, and a command can be sent while somebody waits for an event.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import socket
import threading
import time
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError

Event = dict[str, Any]


def event_time(event: Event) -> float:
    """When it happened by QEMU's clock, seconds since 1970."""
    stamp = event["timestamp"]
    return float(stamp["seconds"]) + float(stamp["microseconds"]) / 1e6


class QmpError(LabError):
    """QEMU said no, or is gone. `kind` is QMP's error class, or "closed" or "timeout"."""

    default_hint = "the machine's qemu.log in the lab's folder has QEMU's own words"

    def __init__(self, message: str, *, kind: str = "GenericError") -> None:
        super().__init__(message)
        self.kind = kind


class QmpClient:
    """`sock` is connected; the greeting is read and capabilities are negotiated here. Raises QmpError.

    `events` gets each event as QEMU sent it, and None once when the connection ends.
    """

    def __init__(self, sock: socket.socket, *, timeout: float = 20.0) -> None:
        self._sock = sock
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._greeting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._closed = False
        self.events: queue.Queue[Event | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="qmp-reader", daemon=True)
        self._reader.start()
        try:
            self._wait(self._greeting, timeout, "greeting")
            self.execute("qmp_capabilities")
        except QmpError:
            self.close()
            raise

    @classmethod
    def connect(cls, path: Path, *, timeout: float = 20.0) -> QmpClient:
        """To a Unix socket. A path may be longer than the 107 bytes of sockaddr_un: the folder is opened first."""
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(f"/proc/self/fd/{folder}/{path.name}")
            sock.settimeout(None)
        except OSError as exc:
            sock.close()
            raise QmpError(f"no QEMU answers at {path}: {exc}", kind="closed") from exc
        finally:
            os.close(folder)
        return cls(sock, timeout=timeout)

    def execute(self, command: str, /, timeout: float | None = None, **arguments: Any) -> Any:
        """The command's `return` value. `_` in argument names becomes `-` (QMP's spelling). Raises QmpError."""
        number = next(self._ids)
        answer: queue.Queue[dict[str, Any]] = queue.Queue()
        message = {
            "execute": command,
            "arguments": {k.replace("_", "-"): v for k, v in arguments.items()},
            "id": number,
        }
        with self._lock:
            if self._closed:
                raise QmpError(f"{command}: QEMU has ended", kind="closed")
            self._waiting[number] = answer
            try:
                self._sock.sendall(json.dumps(message).encode() + b"\n")
            except OSError as exc:
                self._waiting.pop(number, None)
                raise QmpError(f"{command}: QEMU has ended ({exc})", kind="closed") from exc
        try:
            reply = self._wait(answer, timeout or self._timeout, command)
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if "error" in reply:
            error = reply["error"]
            raise QmpError(f"{command}: {error.get('desc', error)}", kind=str(error.get("class", "GenericError")))
        return reply.get("return")

    def wait_event(self, name: str, timeout: float) -> Event:
        """The next event of that name; others before it are dropped. Raises QmpError (kind "timeout", "closed")."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise QmpError(f"no {name} event within {timeout:g} s", kind="timeout") from None
            if event is None:
                raise QmpError(f"QEMU ended before {name}", kind="closed")
            if event.get("event") == name:
                return event

    def close(self) -> None:
        with self._lock:
            self._closed = True
        with contextlib.suppress(OSError):  # the other side was faster
            self._sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=5)

    @staticmethod
    def _wait(answers: queue.Queue[dict[str, Any]], timeout: float, what: str) -> dict[str, Any]:
        try:
            reply = answers.get(timeout=timeout)
        except queue.Empty:
            raise QmpError(f"{what}: QEMU did not answer within {timeout:g} s", kind="timeout") from None
        if reply.get("closed"):
            raise QmpError(f"{what}: QEMU ended instead of answering", kind="closed")
        return reply

    def _read(self) -> None:
        try:
            with self._sock, self._sock.makefile("rb") as lines:
                for line in lines:
                    self._dispatch(json.loads(line))
        except (OSError, ValueError):
            pass  # a broken line means a broken QEMU: the same as its end
        self._end()

    def _dispatch(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self.events.put(message)
        elif "QMP" in message:
            self._greeting.put(message)
        else:
            with self._lock:
                waiting = self._waiting.get(message.get("id", 0))
            if waiting:
                waiting.put(message)

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            waiting = [*self._waiting.values(), self._greeting]
        for answers in waiting:
            answers.put({"closed": True})
        self.events.put(None)
