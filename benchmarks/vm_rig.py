"""One lab server that is reimaged by turns: by metalimmu, and by the bare script through the very same BMC.

Same machine, not just alike: one QEMU command line, one firmware, one disk file, one NIC. Before each run the machine
is off, its firmware variables are new, its disk is full of something else, and metalimmu has no memory of the host.
The clock is the same for both: from the BMC's answer to the power-on request to the console line with which the new
system's report was acknowledged, found by looking at the console file every 20 ms.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import vm_bare, vm_images
from benchmarks.processes import ROOT, metalimmu
from benchmarks.vm_clock import REPORTED, Clock, strange
from metalimmu import paths
from metalimmu.wire.manifest import CHUNK
from metalimmu_emulator.lab import Lab

HOST = "node-1"
BARE_SAID = re.compile(rb"bare: begun ([\d.]+) written ([\d.]+) read ([\d.]+) digest ([0-9a-f]{64})")
LIMIT = 1800.0  # seconds for one reimage: this may be a busy machine
FLAVOUR = "lab"
DISK = 2 << 30
MEMORY = 1024


@dataclass(frozen=True)
class Run:
    """One reimage. Seconds; `write` and `read_back` as measured inside of the machine."""

    whole: float
    write: float
    read_back: float
    equal: bool  # every byte of the disk that is not said to differ is the image's, and the system named itself
    to_write: float = 0.0  # from power-on until the write began
    fetched: int = 0  # bytes over the network, compressed
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def phases(self) -> float:
        return self.write + self.read_back


@dataclass
class Rig:
    lab: Lab
    folder: Path
    files: str  # URL as the guest sees it
    media: str  # URL as the BMC sees it
    reports: str
    pem: str

    # --- both sides

    @contextlib.contextmanager
    def clock(self) -> Iterator[Clock]:
        made = Clock(self.lab.console(HOST))
        try:
            yield made
        finally:
            made.stop()

    def fresh(self, ref: str) -> None:
        """Off, with other content on its disk, and unknown to both sides."""
        self.redfish("POST", "/Actions/ComputerSystem.Reset", {"ResetType": "ForceOff"})
        self.redfish("POST", "/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia", {})
        home = self.lab.server_folder(HOST)
        for store in home.glob("vars-*.fd"):
            store.unlink()
        for memory in (self.lab.site / ".metalimmu").glob("*.sqlite*"):
            memory.unlink()
        (self.folder / "reports.jsonl").unlink(missing_ok=True)
        self.fill(vm_images.image(ref).manifest.size)

    def fill(self, size: int) -> None:
        with self.lab.disk(HOST).open("wb") as file:
            for _ in range(size // CHUNK):
                file.write(b"\xa5" * CHUNK)
            file.truncate(DISK)

    def redfish(self, method: str, path: str, body: dict[str, Any]) -> None:
        import requests

        base = self.lab.status()[0].bmc.removeprefix("redfish+")
        url = f"{base}/redfish/v1/Systems/{self.lab.spec.servers[0].uuid}{path}"
        with requests.Session() as http:
            http.trust_env = False
            http.verify = str(self.lab.folder / "bmc.pem")
            answer = http.request(method, url, json=body, auth=(self.lab.spec.user, self.lab.spec.password), timeout=60)
            answer.raise_for_status()

    def powered(self) -> float:
        """When the BMC answered the last request that started the machine (seconds since 1970)."""
        asked = [
            r for r in self.lab.requests(HOST)
            if r["path"].endswith("ComputerSystem.Reset") and r["status"] < 300 and r["body"]["ResetType"] != "ForceOff"
        ]  # fmt: skip
        return float(asked[-1]["at"])

    def same(self, ref: str, changed: list[tuple[int, int]]) -> bool:
        """Power off, then every sector of the image against the disk's; only `changed` (offset, length) may differ."""
        self.redfish("POST", "/Actions/ComputerSystem.Reset", {"ResetType": "ForceOff"})
        with vm_images.raw(ref).open("rb") as image, self.lab.disk(HOST).open("rb") as disk:
            return not strange(image, disk, changed)

    # --- metalimmu

    def ours(self, ref: str, *words: str, fresh: bool = True) -> Run:
        """`words`: more of the command."""
        vm_images.image(ref)
        if fresh:
            self.fresh(ref)
        command = [metalimmu(), "--site", str(self.lab.site), "reimage", HOST, "--image", ref, "--yes", *words]
        with self.clock() as clock:
            began = time.time()
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
            ended = time.time()
            if done.returncode:
                raise RuntimeError(
                    f"metalimmu reimage ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
                )
            reported = clock.saw(REPORTED, 5)
        d = self._deployment()
        report = d.report
        changed = [(int(m[1]), int(m[2])) for m in (re.match(r"(\d+)\+(\d+) ", c) for c in report.changed) if m]
        seconds = report.seconds
        powered = self.powered()
        return Run(
            whole=reported - powered,
            write=seconds.get("zero", 0.0) + seconds["write"],
            read_back=seconds["read-back"],
            equal=d.system_ok and self.same(ref, changed),
            to_write=(d.checked_in or powered) - powered,
            fetched=report.fetched_bytes,
            details={
                "command": round(ended - began, 2), "config": seconds.get("config"), "seconds": dict(seconds),
                "media_bytes": d.media_bytes, "chunk_bytes": d.chunk_bytes, "kept_chunks": report.kept_chunks,
                "fetched_chunks": report.fetched_chunks, "zero_bytes": report.zero_bytes, "steps": self._steps(d.run),
                "console": clock.timeline(powered),
            },
        )  # fmt: skip

    def _deployment(self) -> Any:
        from metalimmu.store.sqlite import SqliteStore

        store = SqliteStore(self.lab.site / ".metalimmu" / "store.sqlite")
        try:
            return store.deployments(host=HOST, limit=1)[0]
        finally:
            store.close()

    def _steps(self, run: str) -> dict[str, float]:
        from metalimmu.store.sqlite import SqliteStore

        store = SqliteStore(self.lab.site / ".metalimmu" / "store.sqlite")
        try:
            return {s.name: round(s.seconds or 0.0, 2) for s in store.steps(run)}
        finally:
            store.close()

    # --- the bare script

    def bare(self, ref: str) -> Run:
        iso = self.prepare(ref)
        self.fresh(ref)
        with self.clock() as clock:
            self.redfish("POST", "/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", {"Image": f"{self.media}/{iso}"})
            boot = {
                "BootSourceOverrideEnabled": "Once",
                "BootSourceOverrideTarget": "Cd",
                "BootSourceOverrideMode": "UEFI",
            }
            self.redfish("PATCH", "", {"Boot": boot})
            self.redfish("POST", "/Actions/ComputerSystem.Reset", {"ResetType": "On"})
            reported = clock.saw(REPORTED, LIMIT)
            said = BARE_SAID.search(clock.text())
        if said is None:
            raise RuntimeError("the bare script did not say its times")
        begun, written, read = (float(said[i]) for i in (1, 2, 3))
        powered = self.powered()
        seed = vm_images.image(ref).manifest.seed
        told = json.loads((self.folder / "reports.jsonl").read_text().splitlines()[-1])
        named = f"{told['image_id']}@{told['image_version']}" == ref
        return Run(
            whole=reported - powered,
            write=written - begun,
            read_back=read - written,
            equal=named and self.same(ref, [(seed.offset, seed.length)] if seed else []),
            to_write=begun,  # since the kernel started: without firmware and boot loader
            fetched=(self.folder / "files" / ref / "image.zst").stat().st_size,
            details={"console": clock.timeline(powered)},
        )

    def prepare(self, ref: str) -> str:
        """Media and files of one image, made once; gives the media's file name."""
        iso = f"{ref}.iso"
        made = vm_images.image(ref)
        seed = made.manifest.seed
        if seed is None:
            raise RuntimeError(f"{ref} has no seed partition")
        home = self.folder / "files" / ref
        if not (self.folder / "files" / iso).exists():
            from metalimmu.agent import seed as fat

            home.mkdir(parents=True)
            bare = vm_images.raw(ref)
            # One frame, level 3 and a checksum: what our chunks are made with.
            subprocess.run(["zstd", "-q", "-3", "--check", "-o", home / "image.zst", bare], check=True, timeout=600)
            proof = {"url": self.reports, "token": "t", "certificate": self.pem, "config_digest": ""}
            content = fat.fat({"metalimmu.json": json.dumps(proof, indent=1).encode()}, seed.length)
            (home / "seed.img").write_bytes(content.ljust(-(-len(content) // CHUNK) * CHUNK, b"\0"))
            job = {
                "url": f"{self.files}/{ref}",
                "sha": vm_images.digest(bare),
                "mib": str(made.manifest.size // CHUNK),
                "seed": str(seed.offset // CHUNK),
            }
            vm_bare.make(self.folder / "files" / iso, ramdisk=FLAVOUR, job=job)
        return iso


@contextlib.contextmanager
def up_on_a_segment() -> Iterator[Rig]:
    """A lab on a bridge of this host, without a bare script. Needs root."""
    from metalimmu.images import ramdisk

    home = paths.cache() / "bench"
    home.mkdir(parents=True, exist_ok=True)
    ramdisks = home / "ramdisk"
    ramdisk.build(FLAVOUR, ramdisks / FLAVOUR)
    vm_images.image("tiny@1")
    with TemporaryDirectory(prefix="vm-", dir=home) as work:
        lab = Lab.up(
            Path(work) / "lab", images=vm_images.catalogue().root, ramdisks=ramdisks, ramdisk=FLAVOUR, memory=MEMORY,
            disk_size=DISK, network=True,
        )  # fmt: skip
        try:
            yield Rig(lab, Path(work), "", "", "", "")
        finally:
            lab.down()


@contextlib.contextmanager
def up() -> Iterator[Rig]:
    """A lab of our own and the bare script's server, for as long as the block lasts."""
    from metalimmu.boot import tls
    from metalimmu.images import ramdisk

    home = paths.cache() / "bench"
    home.mkdir(parents=True, exist_ok=True)
    ramdisks = home / "ramdisk"
    ramdisk.build(FLAVOUR, ramdisks / FLAVOUR)
    vm_images.image("tiny@1")
    with TemporaryDirectory(prefix="vm-", dir=home) as work, contextlib.ExitStack() as stack:
        folder = Path(work)
        (folder / "files").mkdir()
        lab = Lab.up(
            folder / "lab", images=vm_images.catalogue().root, ramdisks=ramdisks, ramdisk=FLAVOUR, memory=MEMORY,
            disk_size=DISK,
        )  # fmt: skip
        stack.callback(lab.down)
        files, reports = _free_port(), _free_port()
        keys = tls.ensure(folder / "tls", "https://10.0.2.2")
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.vm_server", str(folder), str(files), str(reports), str(keys.certificate), str(keys.key)],
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        stack.callback(_end, server)
        assert server.stdout is not None
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError("the server of the bare script did not start")
        yield Rig(
            lab,
            folder,
            f"http://10.0.2.2:{files}",
            f"http://127.0.0.1:{files}",
            f"https://10.0.2.2:{reports}",
            keys.pem,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)
    if process.stdout:
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


_PAIRS: dict[str, list[tuple[Run, Run]]] = {}


def pairs(rig: Rig, ref: str, rounds: int) -> list[tuple[Run, Run]]:
    """Ours and bare by turns; what was measured in this process already is not measured again."""
    known = _PAIRS.setdefault(ref, [])
    while len(known) < rounds:
        ours = rig.ours(ref)
        bare = rig.bare(ref)
        known.append((ours, bare))
        print(
            f"  {ref} round {len(known)}: whole {ours.whole:.1f} / {bare.whole:.1f} s, write {ours.write:.1f} / {bare.write:.1f}, "
            f"read-back {ours.read_back:.1f} / {bare.read_back:.1f}, equal {ours.equal} {bare.equal}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return known[:rounds]
