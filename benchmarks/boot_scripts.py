"""A rack's power comes back: 500 machines ask for their boot script within one second.

Ours is the boot service of a site with 500 deployments: it must find out who asks, make the script, count, and write down
that it did. Held against nginx (one worker), which serves the very same 500 texts as files. Each machine opens a connection
of its own, asks as iPXE does, and reads the whole answer; requests are sent at their time, whether or not earlier ones were
answered. CPU is all that the server process used, its writes to the store included. A machine is late after one second.

Both answers are compared, text by text.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.nginx import cpu, nginx
from benchmarks.options import options
from benchmarks.processes import ROOT, alternate
from benchmarks.result import Result, at_most, limited, told

LIMIT = 3.0
LATE = 1.0  # seconds
AFTER = 1.6  # seconds in which the service writes what it has counted
HEAD = "GET {} HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: iPXE/1.0.0+git-20190125.36a4c85-5.1\r\nHost: 127.0.0.1:{}\r\n\r\n"


def run() -> list[Result]:
    machines = 40 if options().quick else 500
    rounds = options().repeat(7)
    latencies: dict[str, list[float]] = {"ours": [], "nginx": []}
    bad: dict[str, int] = {"ours": 0, "nginx": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.boot_scripts", str(folder), str(machines)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            texts = asyncio.run(_ask([(0.0, _path(i)) for i in range(machines)], port))
            for i, answer in enumerate(texts):
                (folder / "files" / f"{i}.ipxe").write_bytes(answer.text)
            equal = all(f"echo metalimmu: h{i} boots".encode() in a.text for i, a in enumerate(texts))

            def side(who: str, process: int, at: int) -> float:
                order = random.Random(7).sample(range(machines), machines)
                paths = [(k / machines, _path(i) if who == "ours" else f"/{i}.ipxe") for k, i in enumerate(order)]
                before = cpu(process)
                answers = asyncio.run(_ask(paths, at))
                time.sleep(AFTER)
                latencies[who] += [a.seconds for a in answers]
                bad[who] += sum(
                    a.text != texts[i].text or a.seconds > LATE for a, i in zip(answers, order, strict=True)
                )
                return (cpu(process) - before) / machines * 1e6

            with nginx(folder / "nginx", folder / "files") as (process, other):
                ours, theirs = alternate(
                    rounds, lambda: side("ours", server.pid, port), lambda: side("nginx", process, other)
                )
        finally:
            server.stdin.close()
            server.wait(30)
            server.stdout.close()
    name = f"{machines} boot scripts in a second"
    worst = {who: max(times) * 1e3 for who, times in latencies.items()}
    return [
        at_most(f"{name}: CPU of each", ours, theirs, LIMIT, unit="us", rival="nginx, files", equal=equal),
        limited(f"{name}: refused, wrong or late", [float(bad["ours"])], 0, unit="machines", equal=equal),
        told(f"{name}: the slowest", [worst["ours"]], unit="ms", nginx=worst["nginx"], nginx_bad=bad["nginx"]),
    ]


def _path(i: int) -> str:
    uuid = f"4c4c4544-0058-4b10-8032-{i:012x}"
    return (
        f"/boot/ipxe?mac={_mac(i)}&uuid={uuid}&serial=SN{i}&vendor=QEMU&product=Standard%20PC&platform=efi&arch=x86_64"
    )


def _mac(i: int) -> str:
    return f"52:54:00:00:{i >> 8:02x}:{i & 255:02x}"


class _Answer:
    def __init__(self, text: bytes, seconds: float) -> None:
        self.text, self.seconds = text, seconds


async def _ask(paths: list[tuple[float, str]], port: int) -> list[_Answer]:
    """Each at its second from now, on a connection of its own."""
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.05

    async def one(after: float, path: str) -> _Answer:
        await asyncio.sleep(max(0.0, start + after - loop.time()))
        began = loop.time()
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HEAD.format(path, port).encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(x.split(b":")[1]) for x in head.lower().splitlines() if x.startswith(b"content-length")
                )
                text = await reader.readexactly(length)
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as exc:
            return _Answer(repr(exc).encode(), 20.0)
        return _Answer(text, loop.time() - began)

    return list(await asyncio.gather(*(one(*each) for each in paths)))


# --- the server's process


def serve(folder: Path, machines: int) -> None:
    """Until standard input ends."""
    sys.path[:0] = [str(ROOT / "tests" / "boot"), str(ROOT / "emulator")]
    from boot_rig import Rig  # type: ignore[import-not-found]  # of the tests

    from metalimmu.desired.netboot import Netboot

    rig = Rig(folder)
    rig.service = rig.new_service(netboot=Netboot(max_boots=100))
    digest = rig.images.add("web", "1")
    for i in range(machines):
        expected = {"serial": f"SN{i}", "uuid": f"4c4c4544-0058-4b10-8032-{i:012x}", "nics": (_mac(i),)}
        rig.deploy(f"h{i}", digest, expected=expected, offered=time.time(), method="pxe")
    rig.service.start()
    print(rig.bmc_port, flush=True)
    os.read(0, 1)
    rig.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
