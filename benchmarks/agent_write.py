"""The agent's write and read-back against `curl | zstd -dc | dd` with a read-back by OpenSSL's sha256.

Same content, same disk (a file with O_DIRECT, or a block device), same HTTP server (nginx's place is taken by
aiohttp with sendfile, in a process of its own), one after the other in one run; both digests are compared with the
truth. With --cpu both writers are bound to one processor, as in a small virtual machine.

    python benchmarks/agent_write.py [--size MIB] [--disk FILE] [--cpu N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import zstandard

from metalimmu.agent.block import Device
from metalimmu.agent.fetch import Breaks, Source
from metalimmu.agent.readback import read_back
from metalimmu.agent.write import Writer
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
    chunks: list[str | None] = []
    pack = zstandard.ZstdCompressor(level=3, write_checksum=True)
    (folder / "c").mkdir()
    for at in range(0, len(data), CHUNK):
        part = data[at : at + CHUNK]
        sha = hashlib.sha256(part).hexdigest() if any(part) else None
        chunks.append(sha)
        if sha:
            (folder / "c" / sha).write_bytes(pack.compress(part))
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


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--size", type=int, default=512, help="MiB")
    options.add_argument("--disk", type=Path)
    options.add_argument("--cpu", type=int)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(dir=asked.disk.parent if asked.disk else None) as folder:
        for name, zeros in (("full", 0.0), ("80 % zeros", 0.8)):
            results[name] = measure(Path(folder) / name.split()[0], asked, zeros)
    print(f"{'image':<12}{'pipeline s':>12}{'agent s':>10}{'ratio':>8}")
    for name, r in results.items():
        print(f"{name:<12}{r['pipeline']:>12.2f}{r['agent']:>10.2f}{r['ratio']:>8.2f}   {r['phases']}")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))
    return 0


def measure(folder: Path, asked: argparse.Namespace, zeros: float) -> dict[str, object]:
    folder.mkdir()
    data = content(asked.size * CHUNK, zeros)
    truth = hashlib.sha256(data).hexdigest()
    manifest = publish(data, folder)
    disk = asked.disk or folder / "disk.img"
    if not disk.exists():
        disk.write_bytes(b"\xff" * len(data))
    port = 18087
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(port)])
    before = os.sched_getaffinity(0)
    try:
        wait_for(port)
        if asked.cpu is not None:
            os.sched_setaffinity(0, {asked.cpu})
        best: dict[str, dict[str, float]] = {}
        for _ in range(asked.rounds):
            scrub(disk, len(data))
            took, digest = pipeline(f"http://127.0.0.1:{port}/image.zst", disk, len(data))
            assert digest == truth, "the pipeline wrote something else"
            best["pipeline"] = min(best.get("pipeline", took), took, key=lambda t: sum(t.values()))
            scrub(disk, len(data))
            took = agent(f"http://127.0.0.1:{port}/c", disk, manifest)
            assert whole_digest(disk, len(data)) == truth, "the agent wrote something else"
            best["agent"] = min(best.get("agent", took), took, key=lambda t: sum(t.values()))
    finally:
        os.sched_setaffinity(0, before)
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder)
    total = {k: sum(v.values()) for k, v in best.items()}
    phases = {k: {p: round(s, 2) for p, s in v.items()} for k, v in best.items()}
    return total | {
        "ratio": total["pipeline"] / total["agent"],
        "phases": phases,
        "size": len(data),
        "rounds": asked.rounds,
    }


def scrub(disk: Path, size: int) -> None:
    """Other content before each round."""
    with disk.open("r+b") as f:
        for at in range(0, size, CHUNK):
            f.seek(at)
            f.write(b"\xa5" * min(CHUNK, size - at))
        os.fsync(f.fileno())


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


if __name__ == "__main__":
    sys.exit(main())
