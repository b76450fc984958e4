from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from emulator_rig import MediaServer

from metalimmu_emulator.lab import Lab


@pytest.fixture
def media_folder(tmp_path: Path) -> MediaServer:
    folder = tmp_path / "media"
    folder.mkdir()
    return MediaServer(folder)


@pytest.fixture
def handler_class(media_folder: MediaServer) -> type[BaseHTTPRequestHandler]:
    state = media_folder
    folder = state.folder

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _file(self) -> bytes | None:
            path = folder / self.path.strip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            return path.read_bytes()

        def do_HEAD(self) -> None:
            data = self._file()
            if data is None:
                return
            with state.lock:
                state.heads += 1
            self.send_response(200)
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()

        def do_GET(self) -> None:
            data = self._file()
            if data is None:
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            assert asked, "a BMC reads ranges only"
            start, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
            self.send_header("Content-Length", str(end - start + 1))
            self.end_headers()
            try:
                self.wfile.write(data[start : end + 1])
            except ConnectionError:
                return
            with state.lock:
                state.sent += end - start + 1

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def media_server(media_folder: MediaServer, handler_class: type[BaseHTTPRequestHandler]) -> Iterator[MediaServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_class)
    server.daemon_threads = True
    media_folder.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join(10)
        server.server_close()

    media_folder.stop = stop
    yield media_folder
    stop()


@pytest.fixture
def lab_up(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Lab.up in the test's folder; every lab is down afterwards, also when the test failed."""
    made: list[Path] = []

    def up(name: str = "lab", **shape: Any) -> Lab:
        folder = tmp_path / "labs" / name
        made.append(folder)
        shape = {"firmware": "bios", "memory": 256, "disk_size": 1 << 21} | shape
        return Lab.up(folder, images=tmp_path / "images", ramdisks=tmp_path / "ramdisks", **shape)

    yield up
    for folder in made:
        if (folder / "lab.json").exists():
            Lab(folder).down()
