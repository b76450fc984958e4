"""What an agent does, on a disk in memory: the real protocol over pinned TLS, real chunks, real digests."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import zstandard

from metalimmu.observed.machine import Machine
from metalimmu.wire import codec
from metalimmu.wire.manifest import CHUNK, Manifest, read_back_digest
from metalimmu.wire.messages import (
    Assignment,
    Boot,
    CheckIn,
    Disk,
    Failure,
    Identity,
    Nic,
    Orders,
    Progress,
    Report,
    RunTimeConfig,
)
from metalimmu_emulator import simulated_disks
from metalimmu_emulator.simulated_http import BROKEN, Answer, Connection

T = TypeVar("T")

_LARGEST_SLOT = 1 << 17
_REFUSALS = 3  # in a row, as the real one

_CONTENT: dict[str, bytes] = {}  # by SHA-256: a hundred machines with one image hold its bytes once
_CONTENT_LOCK = threading.Lock()


@dataclass
class Platter:
    """The disk of a simulated machine; it keeps its content when the machine restarts."""

    size: int = 1 << 40
    chunks: dict[int, str] = field(default_factory=dict)  # index -> SHA-256 of what is there
    complete: str = ""  # digest of the image, once all of it is written and configured
    seed: dict[str, str] = field(default_factory=dict)
    host_keys: dict[str, Any] = field(default_factory=dict)  # of the system that runs, by its deployment's token
    applied: int = 0  # serial of the newest run-time config that was fetched

    def write(self, index: int, sha: str, data: bytes) -> None:
        with _CONTENT_LOCK:
            _CONTENT.setdefault(sha, data)
        self.chunks[index] = sha

    def read(self, index: int) -> bytes:
        return _CONTENT[self.chunks[index]]


class Machinery(Protocol):
    """The machine around the agent."""

    disk: Platter
    boot_id: str
    pace: float
    context: ssl.SSLContext

    def machine(self) -> Machine: ...

    def pause(self, seconds: float) -> None:
        """Sleep (scaled by `pace`). Raises when the machine lost its power or was restarted in the meantime."""
        ...

    def fault(self, word: str) -> str | None:
        """The detail of an injected fault that is due now, used up by one; None: no such fault."""
        ...


class Failed(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Lost(Exception):
    """The controller no longer knows what this agent does: check in again."""


class SimulatedAgent:
    """`run` returns when the controller says go."""

    def __init__(self, around: Machinery, boot: Boot) -> None:
        self._around = around
        self._boot = boot
        self._api = Connection(boot.url, boot.pin, around.context)
        self._chunks: Connection | None = None
        self._fence = 0
        self._fetched = 0
        self._fetched_bytes = 0
        self._kept = 0

    def run(self) -> None:
        failed_at = -1
        try:
            while True:
                task = self._check_in()
                if task.fence <= failed_at:
                    self._around.pause(10)  # only another worker's decision makes a failed agent try again
                    continue
                try:
                    if task.stage == "write":
                        self._write_all(task)
                    self._wait_for_go()
                except _Lost:
                    self._around.pause(2)
                except Failed as exc:
                    failed_at = self._fence
                    told = Failure(exc.code, str(exc), boot_id=self._around.boot_id)
                    self._ask("POST", "/v1/failure", told, Orders)
                else:
                    return
        finally:
            self._api.close()
            if self._chunks is not None:
                self._chunks.close()

    def _check_in(self) -> Assignment:
        while True:
            machine = self._around.machine()
            clock = time.time() + float(self._around.fault("clock") or 0)
            said = CheckIn(
                identity=Identity(
                    serial=self._around.fault("wrong-serial") or machine.serial,
                    uuid=machine.uuid,
                    vendor=machine.manufacturer,
                    product=machine.model,
                    nics=tuple(Nic(f"eth{i}", mac.lower(), link=True) for i, mac in enumerate(machine.nics)),
                ),
                architecture="x86_64",
                firmware="bios" if machine.boot.mode == "Legacy" else "uefi",
                boot_id=self._around.boot_id,
                agent_version="simulated",
                memory=1 << 30,
                clock=clock,
                disks=(self._disk(),),
                fence=self._fence,
                can=simulated_disks.CAN,
            )
            answer = self._send("POST", "/v1/check-in", codec.encode(said))
            if answer.status == 200:
                task = codec.decode(Assignment, answer.data)
                if task.fence >= self._fence:
                    self._fence = task.fence
                    return task
            self._around.pause(10)  # a refused agent asks again and never writes

    def _write_all(self, task: Assignment) -> None:
        disk = self._around.disk
        raw = self._get(f"/v1/manifest/{task.digest.removeprefix('sha256:')}")
        manifest = Manifest.decode(raw)
        if manifest.digest != task.digest:
            raise Failed("ChunkCorrupt", f"the manifest is {manifest.digest}, expected {task.digest}")
        config = codec.decode(RunTimeConfig, self._get("/v1/config"))
        self._progress("identify", 0, 0)
        work = {} if task.begun == "write" else simulated_disks.prepare(task, disk, self._phase, self._put)
        disk.complete = ""
        self._write(manifest, task)
        read_back = self._read_back(manifest)
        self._progress("config", 0, 0)
        disk.seed = {file.path: file.content for file in config.files}
        disk.complete = manifest.digest
        self._ask(
            "POST",
            "/v1/report",
            Report(
                disk=self._disk(),
                digest=manifest.digest,
                read_back=read_back,
                boot_id=self._around.boot_id,
                chunks=len(manifest.chunks),
                fetched_chunks=self._fetched,
                fetched_bytes=self._fetched_bytes,
                kept_chunks=self._kept,
                config_digest=config.digest,
                fence=self._fence,
                **work,
            ),
            Orders,
        )

    def _write(self, manifest: Manifest, task: Assignment) -> None:
        disk = self._around.disk
        for index, sha in enumerate(manifest.chunks):
            self._trouble(index)
            if sha is None:
                disk.chunks.pop(index, None)
            elif disk.chunks.get(index) == sha:
                self._kept += 1
            else:
                disk.write(index, sha, self._fetch(task.chunk_base, sha, manifest.chunk_extent(index).length))
            if index % 8 == 0 and self._progress("write", index * CHUNK, manifest.size).stop:
                raise Failed("AgentRefused", "the controller said stop")

    def _trouble(self, index: int) -> None:
        """Faults that hit in the middle of a write."""
        if index == 0:
            return
        code = self._around.fault("write-fails")
        if code is not None:
            raise Failed(code or "MetalimmuError", f"injected at chunk {index}")
        cut = self._around.fault("network-cut")
        if cut is not None:
            self._api.close()
            self._around.pause(float(cut or 2))
        if self._around.fault("crash") is not None:
            self._around.pause(0)
            raise Crashed

    def _fetch(self, base: str, sha: str, length: int) -> bytes:
        if self._chunks is None:
            self._chunks = Connection(base, self._boot.pin, self._around.context)
        path = f"{urlsplit(base).path}/{sha}"
        for attempt in range(50):
            try:
                answer = self._chunks.request("GET", path)
            except BROKEN:
                self._around.pause(min(0.2 * 2**attempt, 5))
                continue
            if answer.status == 200:
                data = zstandard.ZstdDecompressor().decompress(answer.data, max_output_size=length)
                if hashlib.sha256(data).hexdigest() != sha:
                    raise Failed("ChunkCorrupt", f"chunk {sha} has another SHA-256")
                self._fetched += 1
                self._fetched_bytes += len(answer.data)
                return data
            self._around.pause(1)
        raise Failed("FetchFailed", f"chunk {sha} cannot be fetched")

    def _read_back(self, manifest: Manifest) -> str:
        disk = self._around.disk
        self._progress("read-back", 0, manifest.size)
        found: list[str | None] = [
            hashlib.sha256(disk.read(i)).hexdigest() if i in disk.chunks else None for i in range(len(manifest.chunks))
        ]
        if self._around.fault("read-back-differs") is not None:
            found[0] = "0" * 64
        return read_back_digest(found)

    def _wait_for_go(self) -> None:
        while True:
            if self._progress("wait", 0, 0).go:
                return
            self._around.pause(1)

    def _progress(self, phase: str, done: int, total: int) -> Orders:
        self._around.pause(0)
        said = Progress(
            phase, done, total, self._fetched_bytes, (f"{phase} {done}/{total}",), self._fence, self._around.boot_id
        )
        return self._ask("POST", "/v1/progress", said, Orders)

    def _disk(self) -> Disk:
        return Disk("/dev/vda", self._around.disk.size, model="simulated", serial="SIM-DISK-1", transport="virtio")

    def _phase(self, name: str) -> None:
        self._progress(name, 0, 0)
        code = self._around.fault(f"{name}-fails")
        if code is not None:
            raise Failed(code or "MetalimmuError", f"injected in {name}")

    def _put(self, path: str, content: bytes) -> None:
        while self._send("PUT", path, content).status != 200:
            self._around.pause(2)

    def _get(self, path: str) -> bytes:
        while True:
            answer = self._send("GET", path)
            if answer.status == 200:
                return answer.data
            self._around.pause(2)

    def _ask(self, method: str, path: str, said: Any, kind: type[T]) -> T:
        """Until it is answered with 200. Orders with an older fence come from a controller that was replaced."""
        refused = 0
        while True:
            answer = self._send(method, path, codec.encode(said))
            refused = refused + 1 if answer.status // 100 == 4 else 0
            if refused == _REFUSALS and not isinstance(said, Failure):
                raise _Lost
            if answer.status == 200:
                given = codec.decode(kind, answer.data)
                if not isinstance(given, Orders) or given.fence >= self._fence:
                    self._fence = max(self._fence, getattr(given, "fence", 0))
                    return given
            self._around.pause(2)

    def _send(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Once; a broken connection is tried again for ever, since the controller may be down."""
        headers = {"Authorization": f"Bearer {self._boot.token}"}
        wait = 0.2
        while True:
            try:
                return self._api.request(method, path, body=body, headers=headers)
            except BROKEN:
                self._around.pause(wait)
                wait = min(wait * 2, 5)


class Crashed(Exception):
    """The machine restarts by itself."""


def find_boot(blocks: Iterable[bytes]) -> Boot | None:
    """metalimmu/boot.json out of the media: a file of a newc archive, whose header is 110 bytes of hex fields (kernel
    documentation, `initramfs-buffer-format`). Reads no further than it must.
    """
    name = b"metalimmu/boot.json\0"
    data = b""
    for block in blocks:
        data = data[-_LARGEST_SLOT:] + block
        at = data.find(name)
        while at >= 0:
            header = data[at - 110 : at] if at >= 110 else b""
            if header.startswith(b"070701"):
                start, size = at - 110 + (110 + len(name) + 3) // 4 * 4, int(header[54:62], 16)
                if start + size <= len(data):
                    return codec.decode(Boot, data[start : start + size])
                break  # the rest comes with the next block
            at = data.find(name, at + 1)
    return None
