"""The agent's write and read-back against `curl | zstd -dc | dd` with a read-back by OpenSSL's sha256.

Same content, same disk (a file with O_DIRECT), same HTTP server (aiohttp with sendfile, a process of its own), one
after the other in one run. Both are bound to one processor, as in a small machine; the server has the others. What is
on the disk afterwards is hashed and compared with the truth, for both. The whole reimage in a virtual machine is
measured by vm_agent.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import zstandard

from benchmarks.options import options
from benchmarks.result import Result, as_fast
from metalimmu.agent.block import Device
from metalimmu.agent.fetch import Breaks, Source
from metalimmu.agent.readback import read_back
from metalimmu.agent.write import Writer
from metalimmu.images.chunks import ChunkStore
from metalimmu.wire.manifest import CHUNK, Manifest

SERVER = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[1])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None, access_log=None)
"""


class QuietLink:
    """Stands for the exchange with the controller."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def phase(self, name: str, total: int = 0) -> None: ...
    def advance(self, done: int, fetched: int = 0) -> None: ...
    def check(self) -> None: ...


def content(size: int, zeros: float) -> bytes:
    """Files of this system, as an image has them; a part of the chunks is zeros."""
    chunks = -(-size // CHUNK)
    data = bytearray(size)
    source = files()
    keep = {0} | {i for i in range(chunks) if (i * 7919 % 100) >= zeros * 100}
    for i in sorted(keep):
        data[i * CHUNK : (i + 1) * CHUNK] = next(source)
    return bytes(data[:size])


def files():
    pool = bytearray()
    while True:
        for folder in ("/usr/lib", "/usr/bin", "/usr/share"):
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file() and not path.is_symlink() and 4096 < path.stat().st_size < 50_000_000:
                    pool += path.read_bytes()
                    while len(pool) >= CHUNK:
                        yield bytes(pool[:CHUNK])
                        del pool[:CHUNK]


def publish(data: bytes, folder: Path) -> Manifest:
    """Chunks as the image store keeps them, and the same content as one stream."""
    chunks: list[str | None] = []
    store = ChunkStore(folder / "chunks")
    (folder / "c").mkdir()
    for at in range(0, len(data), CHUNK):
        part = data[at : at + CHUNK]
        sha = hashlib.sha256(part).hexdigest() if any(part) else None
        chunks.append(sha)
        if sha and store.put(sha, part):
            os.link(store.path(sha), folder / "c" / sha)
    with (folder / "image.zst").open("wb") as out:
        whole = zstandard.ZstdCompressor(level=3, write_checksum=True)
        with whole.stream_writer(out, size=len(data), closefd=False) as writer:
            for at in range(0, len(data), CHUNK):
                writer.write(data[at : at + CHUNK])
    return Manifest("disk", os.uname().machine, len(data), tuple(chunks))


def pipeline(url: str, disk: Path, size: int) -> tuple[dict[str, float], str]:
    began = time.monotonic()
    script = 'set -o pipefail; curl -sf "$0" | zstd -dc | dd of="$1" bs=1M iflag=fullblock oflag=direct conv=notrunc,fsync status=none'
    subprocess.run(["bash", "-c", script, url, str(disk)], check=True)
    wrote = time.monotonic()
    script = 'set -o pipefail; dd if="$0" bs=1M count="$1" iflag=direct status=none | openssl dgst -sha256 -r'
    done = subprocess.run(
        ["bash", "-c", script, str(disk), str(-(-size // CHUNK))], check=True, capture_output=True, text=True
    )
    return {"write": wrote - began, "read-back": time.monotonic() - wrote}, done.stdout.split()[0]


def agent(url: str, disk: Path, manifest: Manifest) -> dict[str, float]:
    link = QuietLink()
    breaks = Breaks(print)

    def source(halt: threading.Event) -> Source:
        return Source(url, "", "", halt, breaks)

    began = time.monotonic()
    with Device(str(disk)) as device:
        assert device.direct, f"{disk} has no O_DIRECT"
        writer = Writer(device, manifest, link, source)  # type: ignore[arg-type]
        writer.done.clear()  # the first chunk too: here all is compared
        writer.take_boot_away()
        writer.zero()
        writer.write(None, 4)
        wrote = time.monotonic()
        read_back(device, manifest, link, source(link.stop))  # type: ignore[arg-type]
    return {"write": wrote - began, "read-back": time.monotonic() - wrote}


def whole_digest(disk: Path, size: int) -> str:
    total = hashlib.sha256()
    with disk.open("rb") as f:
        while size > 0 and (part := f.read(min(CHUNK, size))):
            total.update(part)
            size -= len(part)
    return total.hexdigest()


def run() -> list[Result]:
    size = (64 if options().quick else 512) * CHUNK
    with tempfile.TemporaryDirectory() as folder:
        return [
            measure("agent write and read-back, full image", Path(folder) / "full", size, zeros=0.0, least=1.0),
            measure("agent write and read-back, 80 % zeros", Path(folder) / "sparse", size, zeros=0.8, least=3.0),
        ]


def measure(name: str, folder: Path, size: int, *, zeros: float, least: float) -> Result:
    folder.mkdir()
    data = content(size, zeros)
    truth = hashlib.sha256(data).hexdigest()
    manifest = publish(data, folder)
    disk = folder / "disk.img"
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(port)])
    before = os.sched_getaffinity(0)
    ours: list[dict[str, float]] = []
    rival: list[dict[str, float]] = []
    equal = True
    try:
        wait_for(port)
        os.sched_setaffinity(0, {min(before)})
        for _ in range(options().repeat(3)):
            scrub(disk, size)
            took, digest = pipeline(f"http://127.0.0.1:{port}/image.zst", disk, size)
            rival.append(took)
            equal &= digest == truth
            scrub(disk, size)
            ours.append(agent(f"http://127.0.0.1:{port}/c", disk, manifest))
            equal &= whole_digest(disk, size) == truth
    finally:
        os.sched_setaffinity(0, before)
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder)
    phases = {"agent": ours, "pipeline": rival}
    return as_fast(
        name,
        [sum(t.values()) for t in ours],
        [sum(t.values()) for t in rival],
        least,
        unit="s",
        rival="curl|zstd|dd + openssl",
        equal=equal,
        size=size,
        phases={k: [{p: round(s, 3) for p, s in t.items()} for t in v] for k, v in phases.items()},
    )


def scrub(disk: Path, size: int) -> None:
    """Other content before each round."""
    with disk.open("r+b" if disk.exists() else "wb") as f:
        for at in range(0, size, CHUNK):
            f.write(b"\xa5" * min(CHUNK, size - at))
        os.fsync(f.fileno())


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server did not start")
