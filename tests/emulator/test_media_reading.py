"""How the BMC reads media: ranges over HTTP, and the NBD server that QEMU reads from."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from emulator_rig import MediaServer

from metalimmu_emulator import certificate, remote
from metalimmu_emulator.nbd import Export
from metalimmu_emulator.remote import BLOCK, MediaRefused, RemoteFile

SIZE = 3 * BLOCK + 4096


@pytest.fixture
def content(media_server: MediaServer) -> bytes:
    data = random.Random(1).randbytes(SIZE)
    (media_server.folder / "cd.iso").write_bytes(data)
    return data


@pytest.fixture
def opened(media_server: MediaServer, content: bytes) -> Iterator[RemoteFile]:
    file = RemoteFile(f"{media_server.url}/cd.iso")
    yield file
    file.close()


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 512), (BLOCK - 1, 2), (BLOCK, BLOCK), (100, 2 * BLOCK), (SIZE - 10, 10), (7, 0), (0, SIZE)],
)
def test_any_range(opened: RemoteFile, content: bytes, offset: int, length: int) -> None:
    assert opened.size == SIZE
    assert opened.read(offset, length) == content[offset : offset + length]


def sent(server: MediaServer, wanted: int) -> None:
    """The server counts after it has sent: its thread may be later than the reader."""
    deadline = time.monotonic() + 60
    while server.sent < wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.sent == wanted


def test_what_was_read_is_not_fetched_again(opened: RemoteFile, content: bytes, media_server: MediaServer) -> None:
    assert media_server.sent == 0
    opened.read(0, 512)
    sent(media_server, BLOCK)
    opened.read(512, 2048)
    assert opened.read(0, SIZE) == content
    sent(media_server, SIZE)  # the missing blocks, once


def test_memory_has_a_limit(opened: RemoteFile, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCKS", 2)
    assert opened.read(0, SIZE) == content
    assert len(opened._blocks) == 2
    assert opened.read(0, SIZE) == content


@pytest.mark.parametrize("offset", [-1, SIZE - 1])
def test_outside_is_an_error(opened: RemoteFile, offset: int) -> None:
    with pytest.raises(OSError, match="no bytes"):
        opened.read(offset, 2)


def test_a_medium_withdrawn_is_an_error_at_once(opened: RemoteFile, media_server: MediaServer) -> None:
    (media_server.folder / "cd.iso").unlink()
    started = time.monotonic()
    with pytest.raises(OSError, match="status 404"):
        opened.read(0, 10)
    assert time.monotonic() - started < 5


def test_a_server_that_restarts_is_waited_for(content: bytes, media_server: MediaServer, handler_class: type) -> None:
    first = ThreadingHTTPServer(("127.0.0.1", 0), handler_class)
    port = first.server_port
    thread = threading.Thread(target=first.serve_forever, args=(0.02,))
    thread.start()
    file = RemoteFile(f"http://127.0.0.1:{port}/cd.iso")
    first.shutdown()
    thread.join(10)
    first.server_close()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(file.read(0, 100)))
    reader.start()
    reader.join(0.3)
    assert reader.is_alive(), "it waits"
    second = ThreadingHTTPServer(("127.0.0.1", port), handler_class)
    thread = threading.Thread(target=second.serve_forever, args=(0.02,))
    thread.start()
    reader.join(10)
    assert got == [content[:100]]
    file.close()
    second.shutdown()
    thread.join(10)
    second.server_close()


def test_patience_ends(opened: RemoteFile, media_server: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.3)
    media_server.stop()
    with pytest.raises(OSError, match="refused"):
        opened.read(0, 10)


def test_an_eject_ends_a_read_that_waits(opened: RemoteFile, media_server: MediaServer) -> None:
    media_server.stop()
    failed: list[str] = []

    def read() -> None:
        try:
            opened.read(0, 10)
        except OSError as exc:
            failed.append(str(exc))

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(0.3)
    assert reader.is_alive()
    opened.close()
    reader.join(5)
    assert len(failed) == 1
    with pytest.raises(OSError, match="ejected"):
        opened.read(0, 10)


def test_https_is_read_and_verified_only_on_request(
    tmp_path: Path, content: bytes, media_server: MediaServer, handler_class: type
) -> None:
    certificate.create(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_class)
    server.socket = certificate.context(tmp_path).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"https://127.0.0.1:{server.server_port}/cd.iso"
    file = RemoteFile(url)
    assert file.read(5, 10) == content[5:15]
    file.close()
    with pytest.raises(MediaRefused, match="certificate verify failed") as caught:
        RemoteFile(url, verify=True)
    assert caught.value.status == 502
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    made: list[Export] = []

    def start(data: bytes, *, bad: range = range(0)) -> str:
        def read(offset: int, length: int) -> bytes:
            if any(offset <= n < offset + length for n in (bad.start, bad.stop - 1)) and bad:
                raise OSError("unreadable")
            return data[offset : offset + length]

        folder = tmp_path / "n"
        folder.mkdir()
        made.append(Export(folder / "m.sock", len(data), read))
        return f"nbd+unix:///?socket={folder}/m.sock"

    yield start
    for one in made:
        one.close()


def qemu_img(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_qemu_reads_what_is_exported(export: Callable[..., str], tmp_path: Path) -> None:
    data = random.Random(2).randbytes(5 << 20)
    url = export(data)
    done = qemu_img("convert", "-f", "raw", "-O", "raw", url, str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy").read_bytes() == data


def test_qemu_may_not_write(export: Callable[..., str]) -> None:
    done = qemu_img("bench", "-w", "-c", "1", "-f", "raw", export(bytes(1 << 20)))
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_an_unreadable_block_is_an_io_error_and_no_more(export: Callable[..., str], tmp_path: Path) -> None:
    url = export(random.Random(3).randbytes(4 << 20), bad=range(2 << 20, (2 << 20) + 1))
    done = qemu_img("convert", "-f", "raw", "-O", "raw", url, str(tmp_path / "copy"))
    assert done.returncode != 0
    assert "Input/output error" in done.stderr
    assert qemu_img("bench", "-c", "16", "-s", "65536", "-f", "raw", url).returncode == 0


def test_many_small_reads_at_once(export: Callable[..., str]) -> None:
    url = export(bytes(8 << 20))
    assert qemu_img("bench", "-c", "2000", "-d", "16", "-s", "4096", "-f", "raw", url).returncode == 0


def test_garbage_ends_the_connection_and_nothing_else(export: Callable[..., str], tmp_path: Path) -> None:
    url = export(bytes(1 << 20))
    for garbage in (b"GET / HTTP/1.0\r\n\r\n" * 4, struct.pack(">I8sII", 1, b"IHAVEOPT", 7, 1 << 31)):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(tmp_path / "n" / "m.sock"))
            client.sendall(garbage)
            assert client.recv(18).startswith(b"NBDMAGIC")
            with contextlib.suppress(ConnectionResetError):  # what we sent was not all read
                assert client.recv(1) == b""
    assert qemu_img("bench", "-c", "16", "-f", "raw", url).returncode == 0
