"""The QMP client against a scripted socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metalimmu_emulator.qmp import QmpClient, QmpError

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": ["oob"]}}
Answer = Callable[[dict[str, Any]], list[Any]]


class Script:
    """The other end: greets, agrees to the capabilities, then answers as `answer` says (dicts and raw bytes)."""

    def __init__(self, answer: Answer, *, greet: bool = True) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.asked: list[dict[str, Any]] = []
        self._answer = answer
        self._greet = greet
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self.theirs, self.theirs.makefile("rwb") as stream, contextlib.suppress(OSError, ValueError):
            if self._greet:
                self._send(stream, GREETING)
            for line in stream:
                message = json.loads(line)
                self.asked.append(message)
                if message["execute"] == "qmp_capabilities":
                    self._send(stream, {"return": {}, "id": message["id"]})
                    continue
                for part in self._answer(message):
                    if part is None:
                        return
                    self._send(stream, part)

    @staticmethod
    def _send(stream: Any, part: Any) -> None:
        stream.write(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\r\n")
        stream.flush()


@pytest.fixture
def client_of() -> Iterator[Callable[[Answer], tuple[QmpClient, Script]]]:
    clients: list[tuple[QmpClient, Script]] = []

    def make(answer: Answer) -> tuple[QmpClient, Script]:
        script = Script(answer)
        clients.append((QmpClient(script.ours, timeout=5), script))
        return clients[-1]

    yield make
    for client, script in clients:
        client.close()
        script.thread.join(5)
        assert not script.thread.is_alive()


def test_a_command_returns_its_value_and_spells_arguments_with_hyphens(client_of: Any) -> None:
    client, script = client_of(lambda m: [{"return": {"status": "running"}, "id": m["id"]}])
    assert client.execute("blockdev-add", node_name="m1", read_only=True) == {"status": "running"}
    assert script.asked[-1]["arguments"] == {"node-name": "m1", "read-only": True}


def test_an_error_carries_qemus_words_and_class(client_of: Any) -> None:
    client, _ = client_of(
        lambda m: [{"error": {"class": "DeviceNotFound", "desc": "Device 'cd9' not found"}, "id": m["id"]}]
    )
    with pytest.raises(QmpError, match="blockdev-open-tray: Device 'cd9' not found") as caught:
        client.execute("blockdev-open-tray", id="cd9")
    assert caught.value.kind == "DeviceNotFound"


def test_an_event_between_command_and_answer_is_kept(client_of: Any) -> None:
    client, _ = client_of(lambda m: [{"event": "STOP"}, {"event": "RESET"}, {"return": 1, "id": m["id"]}])
    assert client.execute("system_reset") == 1
    assert client.wait_event("RESET", 5)["event"] == "RESET"


def test_answers_find_their_own_caller_in_any_order(client_of: Any) -> None:
    held: list[dict[str, Any]] = []

    def answer(message: dict[str, Any]) -> list[Any]:
        held.append(message)
        if len(held) < 2:
            return []
        return [{"return": m["execute"], "id": m["id"]} for m in reversed(held)]

    client, script = client_of(answer)
    got: dict[str, Any] = {}
    first = threading.Thread(target=lambda: got.update(first=client.execute("first")))
    first.start()
    deadline = time.monotonic() + 5
    while len(script.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.execute("second") == "second"
    first.join(5)
    assert got == {"first": "first"}


def test_silence_is_a_timeout_and_the_client_can_still_be_used(client_of: Any) -> None:
    client, _ = client_of(lambda m: [] if m["execute"] == "hangs" else [{"return": 2, "id": m["id"]}])
    with pytest.raises(QmpError, match=r"hangs: QEMU did not answer within 0\.1 s") as caught:
        client.execute("hangs", 0.1)
    assert caught.value.kind == "timeout"
    assert client.execute("works") == 2


@pytest.mark.parametrize("last", [None, b"{ no json\n"])
def test_the_end_of_qemu_ends_waiting_at_once(client_of: Any, last: Any) -> None:
    client, _ = client_of(lambda _: [last])
    started = time.monotonic()
    with pytest.raises(QmpError) as caught:
        client.execute("quit")
    assert caught.value.kind == "closed"
    assert time.monotonic() - started < 4
    assert client.events.get(timeout=5) is None
    with pytest.raises(QmpError, match="QEMU has ended"):
        client.execute("query-status")


def test_waiting_for_an_event_has_a_limit(client_of: Any) -> None:
    client, _ = client_of(lambda m: [{"event": "STOP"}, {"return": {}, "id": m["id"]}])
    client.execute("stop")
    with pytest.raises(QmpError, match="no SHUTDOWN event"):
        client.wait_event("SHUTDOWN", 0.1)


def test_no_greeting_is_an_error() -> None:
    script = Script(lambda _: [], greet=False)
    with pytest.raises(QmpError, match="greeting"):
        QmpClient(script.ours, timeout=0.2)
    script.thread.join(5)
    assert not script.thread.is_alive()


def test_a_socket_path_may_be_longer_than_the_kernel_allows(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    script = Script(lambda m: [{"return": 3, "id": m["id"]}])
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(folder):
        listener.bind("qmp.sock")
    listener.listen()

    def forward() -> None:
        with listener.accept()[0] as near:
            for source, target in ((script.ours, near), (near, script.ours)):
                target.sendall(source.recv(4096))
            near.sendall(script.ours.recv(4096))

    thread = threading.Thread(target=forward)
    thread.start()
    client = QmpClient.connect(folder / "qmp.sock", timeout=5)
    client.close()
    thread.join(5)
    script.ours.close()
    script.thread.join(5)
    listener.close()
    assert script.asked[0]["execute"] == "qmp_capabilities"


def test_no_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="no QEMU answers"):
        QmpClient.connect(tmp_path / "none.sock")
