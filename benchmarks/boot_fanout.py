"""A wave writes its image: 32 agents fetch all chunks at once, four connections each, from one controller.

Held against nginx (one worker, sendfile) with the same files on the same machine, over plain HTTP, which is how a site serves
chunks when it may: each is checked against the manifest. Ours also finds the deployment by its secret and counts the bytes
that really went out. TLS is told beside it: neither has sendfile there.

Both sides' answers are compared: every chunk's SHA-256, and all bytes counted.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.nginx import TLS, cpu, free_port, nginx
from benchmarks.options import options
from benchmarks.processes import ROOT, alternate
from benchmarks.result import Result, as_fast, told

LEAST = 0.9
CONNECTIONS = 4  # of one agent, as wire.messages.Assignment has it


def run() -> list[Result]:
    agents, chunks = (4, 4) if options().quick else (32, 64)
    rounds = options().repeat(7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.boot_fanout", str(folder), str(chunks)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            plain, secure, secret, *shas = server.stdout.readline().split()
            ours = [f"/c/{secret}/{sha}" for sha in shas]
            theirs = [f"/chunks/{sha[:2]}/{sha}.zst" for sha in shas]
            more = free_port()
            tls = TLS.format(
                port=more, pem=folder / "tls" / "controller.pem", key=folder / "tls" / "controller.key",
                files=folder / "images",
            )  # fmt: skip
            with nginx(folder / "nginx", folder / "images", more=tls) as (process, port):
                equal = all(
                    hashlib.sha256(b"".join(_fetch([path], at, tls=False, keep=True))).hexdigest() == sha
                    for paths, at in ((ours, int(plain)), (theirs, port))
                    for path, sha in zip(paths, shas, strict=True)
                )
                cpus: dict[str, list[float]] = {"ours": [], "nginx": []}

                def side(who: str, paths: list[str], at: int, pid: int, *, few: int = 1, secure: bool = False) -> float:
                    before = cpu(pid)
                    seconds, got = _agents(agents, paths[: max(1, len(paths) // few)], at, tls=secure)
                    if got != agents * max(1, len(paths) // few) << 20:
                        raise RuntimeError(f"{who} sent {got} bytes")
                    if not secure:
                        cpus[who].append((cpu(pid) - before) / (got / 1e9))
                    return got / seconds / 1e6

                a, b = alternate(
                    rounds,
                    lambda: side("ours", ours, int(plain), server.pid),
                    lambda: side("nginx", theirs, port, process),
                )
                c, d = alternate(
                    max(1, rounds // 2),
                    lambda: side("ours", ours, int(secure), server.pid, few=4, secure=True),
                    lambda: side("nginx", theirs, more, process, few=4, secure=True),
                )
        finally:
            server.stdin.close()
            server.wait(30)
            server.stdout.close()
    name = f"{agents} agents fetch an image"
    # `as_fast` compares times: of one megabyte.
    times = [[1 / v for v in side] for side in (a, b)]
    return [
        as_fast(
            name, times[0], times[1], LEAST, unit="s/MB", rival="nginx, sendfile", equal=equal,
            ours_mb_s=a, nginx_mb_s=b, cpu_s_per_gb=cpus,
        ),
        told(f"{name}: throughput", a, unit="MB/s", nginx=b),
        told(f"{name}: over TLS", c, unit="MB/s", nginx=d, ratio=[x / y for x, y in zip(c, d, strict=True)]),
    ]  # fmt: skip


def _agents(count: int, paths: list[str], port: int, *, tls: bool) -> tuple[float, int]:
    """Seconds and bytes until all agents have all of them."""
    got = [0] * (count * CONNECTIONS)
    gate = threading.Barrier(count * CONNECTIONS + 1)

    def connection(number: int) -> None:
        agent, part = divmod(number, CONNECTIONS)
        mine = paths[part::CONNECTIONS]
        random.Random(agent).shuffle(mine)
        gate.wait()
        got[number] = sum(len(data) for data in _fetch(mine, port, tls=tls, keep=False))

    threads = [threading.Thread(target=connection, args=(i,), daemon=True) for i in range(count * CONNECTIONS)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, sum(got)


def _fetch(paths: list[str], port: int, *, tls: bool, keep: bool) -> list[bytes | memoryview]:
    """Bodies, one after the other over one connection; without `keep` they are only read."""
    found: list[bytes | memoryview] = []
    buffer = memoryview(bytearray(1 << 20))
    sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    with sock:
        for path in paths:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096)
            head, _, body = head.partition(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise RuntimeError(f"{path}: {head[:60]!r}")
            length = next(int(x.split(b":")[1]) for x in head.lower().splitlines() if x.startswith(b"content-length"))
            buffer[: len(body)] = body
            at = len(body)
            while at < length:
                more = sock.recv_into(buffer[at:length])
                if not more:
                    raise RuntimeError(f"{path}: {at} of {length} bytes")
                at += more
            found.append(bytes(buffer[:length]) if keep else buffer[:length])
    return found


# --- the server's process


def serve(folder: Path, chunks: int) -> None:
    """Until standard input ends."""
    sys.path[:0] = [str(ROOT / "tests" / "boot"), str(ROOT / "emulator")]
    from boot_rig import FakeImage, Rig  # type: ignore[import-not-found]  # of the tests

    from metalimmu.wire.manifest import CHUNK, Manifest

    rig = Rig(folder)
    shas = []
    for i in range(chunks):
        data = random.Random(i).randbytes(CHUNK)  # as large as a chunk can be: nothing of it compresses
        sha = hashlib.sha256(data).hexdigest()
        path = rig.images.chunk_path(sha)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        shas.append(sha)
    manifest = Manifest("disk", "x86_64", chunks * CHUNK, tuple(shas), build_id="bench")
    rig.images.images[manifest.digest] = FakeImage(manifest)
    rig.deploy("n1", manifest.digest)
    rig.service.start()
    print(rig.bmc_port, rig.machines_port, rig.key.secret("chunk", "n1"), *shas, flush=True)
    os.read(0, 1)
    rig.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
