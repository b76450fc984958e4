"""A boot service on real sockets with a store, an image and a ramdisk of a few kilobytes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import zstandard

from metalimmu.bmc import fake_machines
from metalimmu.boot.http import BootService
from metalimmu.boot.media import SplicedIso, slot
from metalimmu.boot.netboot_files import Pieces
from metalimmu.boot.ports import Deployment, Netboot, Receiver
from metalimmu.boot.tls import ensure
from metalimmu.boot.tokens import SiteKey
from metalimmu.desired.types import Listen, Urls
from metalimmu.errors import ImageError, NotFound
from metalimmu.observed.machine import Machine
from metalimmu.observed.types import BootEnabled, BootMode, BootTarget, PowerAction
from metalimmu.store.records import DeploymentRecord
from metalimmu.store.sqlite import SqliteStore
from metalimmu.wire.manifest import CHUNK, Manifest
from metalimmu.wire.messages import Assignment, Boot, ConfigFile, ConfigPackage, RootDisk, RunTimeConfig
from metalimmu_emulator.simulated import SimulatedMachine, system_header

SLOT_OFFSET = 6144
SLOT_SIZE = 64 * 1024


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(condition, seconds: float = 20.0, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)


@dataclass(frozen=True)
class FakeImage:
    manifest: Manifest


class FakeImages:
    """An image store in a folder, by the layout of metalimmu.images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[str, FakeImage] = {}

    def add(self, name: str, version: str, *, chunks: int = 6, seed: int = 1) -> str:
        """An image that simulated machines boot; every third chunk is zeros. Returns its digest."""
        build = f"build-{version}-{seed}"
        shas: list[str | None] = []
        for i in range(chunks):
            if i % 3 == 2:
                shas.append(None)
                continue
            head = system_header(name, version, build) if i == 0 else f"{seed} {i}".encode()
            noise = hashlib.shake_128(f"{seed}/{i}".encode()).digest(20_000)
            data = (head + noise).ljust(CHUNK, b"\0")
            sha = hashlib.sha256(data).hexdigest()
            path = self.chunk_path(sha)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(zstandard.ZstdCompressor().compress(data))
            shas.append(sha)
        manifest = Manifest("disk", "x86_64", chunks * CHUNK, tuple(shas), build_id=build)
        self.images[manifest.digest] = FakeImage(manifest)
        return manifest.digest

    def by_digest(self, digest: str) -> FakeImage | None:
        return self.images.get(digest)

    def chunk_path(self, sha: str) -> Path:
        return self.root / "chunks" / sha[:2] / f"{sha}.zst"


class Rig:
    def __init__(self, root: Path, *, chunks_in_clear: bool = True) -> None:
        self.root = root
        bmc, machines = free_port(), free_port()
        self.urls = Urls(
            bmc=f"http://127.0.0.1:{bmc}",
            machines=f"https://127.0.0.1:{machines}",
            chunks=f"http://127.0.0.1:{bmc}" if chunks_in_clear else None,
        )
        self.bmc_port, self.machines_port = bmc, machines
        self.store = SqliteStore(root / "store.sqlite")
        self.images = FakeImages(root / "images")
        self.key = SiteKey.at(root / "tls" / "site.key")
        self.tls = ensure(root / "tls", self.urls.machines)
        self.iso = root / "boot.iso"
        before, after = os.urandom(SLOT_OFFSET), os.urandom(100_000)
        self.iso.write_bytes(before + bytes(SLOT_SIZE) + after)
        self.service = self.new_service()
        self.simulated: list[SimulatedMachine] = []
        self.unknowns: list[tuple[str, object]] = []
        self.held_back: dict[str, str] = {}
        self.ended: list[tuple[str, str]] = []
        self.boots: list[str] = []
        self.racks: dict[str, str] = {}
        self.no_netboot: dict[str, str] = {}

    def new_service(self, **limits: float) -> BootService:
        return BootService(
            self.urls,
            Listen(bmc=f"127.0.0.1:{self.bmc_port}", machines=f"127.0.0.1:{self.machines_port}"),
            tls=self.tls,
            key=self.key,
            deployments=self.store,
            images=self.images,
            content=self,
            **limits,
        )

    def close(self) -> None:
        for each in self.simulated:
            each.stop()
        self.service.stop()
        self.store.close()

    # Content

    def media(self, deployment: Deployment) -> SplicedIso:
        boot = Boot(self.urls.machines, self.key.secret("agent", deployment.id), self.tls.pin, deployment.id)
        return SplicedIso(self.iso, SLOT_OFFSET, slot(boot, SLOT_SIZE))

    def netboot(self, deployment: Deployment) -> Netboot:
        if deployment.id in self.no_netboot:
            raise ImageError(self.no_netboot[deployment.id], hint="another image")
        return Netboot("vmlinuz", ("initrd", "slot.cpio"), "metalimmu.media=network quiet")

    def netboot_file(self, deployment: Deployment, name: str) -> Pieces:
        if name not in ("vmlinuz", "initrd", "slot.cpio"):
            raise NotFound(f"no {name}")
        return Pieces([f"{deployment.id} {name} ".encode() * 100_000])

    def config(self, deployment: Deployment) -> RunTimeConfig:
        return self.run_time_config(deployment.id)

    def package(self, deployment: Deployment) -> ConfigPackage:
        push = deployment.push
        assert push is not None
        return ConfigPackage(push.serial, push.digest, push.config.files, (), 60)

    def withheld(self, deployment: Deployment) -> str:
        return self.held_back.get(deployment.id, "")

    def booted(self, deployment: Deployment) -> None:
        self.boots.append(deployment.id)

    def settled(self, deployment: Deployment) -> None:
        self.ended.append((deployment.id, deployment.push.state))

    def rack(self, deployment: Receiver) -> str:
        return self.racks.get(deployment.id, "")

    def controller(self) -> dict:
        return {"floor": 7}

    def unknown(self, deployment: str, said) -> str:
        self.unknowns.append((deployment, said))
        return f"not known: {deployment}"

    def run_time_config(self, deployment: str) -> RunTimeConfig:
        proof = {
            "url": self.urls.machines,
            "token": self.key.secret("proof", deployment),
            "pin": self.tls.pin,
            "certificate": self.tls.pem,
            "config_digest": "c" * 64,
        }
        files = (ConfigFile("metalimmu.json", json.dumps(proof)), ConfigFile("meta-data", "instance-id: x\n"))
        return RunTimeConfig(files, "c" * 64)

    # deployments

    def deploy(self, name: str, digest: str, image: str = "web@1", **fields) -> DeploymentRecord:
        expected = {"serial": f"SN-{name}", "uuid": "", "nics": ()} | fields.pop("expected", {})
        assignment = Assignment(
            deployment=name,
            fence=1,
            stage="write",
            image=image,
            digest=digest,
            chunk_base="",
            root_disk=RootDisk(),
            host=name,
            **expected,
        )
        return self.store.add_deployment(
            DeploymentRecord(
                id=name,
                run=name,
                host=name,
                assignment=assignment,
                fence=1,
                config_digest="c" * 64,
                created=time.time(),
                **self.key.hashes(name),
                **fields,
            )
        )

    def machine(
        self, name: str, *, pace: float = 0.05, serial: str | None = None, start: bool = True, media: bool = True
    ):
        """A fake BMC with a simulated machine behind it, powered on with the deployment's media in its drive."""
        state = fake_machines.create(
            f"fake://{self.root}/{name}.json" if name.startswith("file") else f"fake://{self.root.name}-{name}",
            Machine(
                serial=serial or f"SN-{name}", uuid="00112233-4455-6677-8899-aabbccddeeff", nics=("52:54:00:00:00:01",)
            ),
        )
        if media:
            state.update(lambda m: m.with_media("Cd", self.service.media_url(name)))
            state.update(lambda m: m.overridden(BootTarget.cd, BootEnabled.once, BootMode.uefi))
        simulated = SimulatedMachine(state, pace=pace)
        self.simulated.append(simulated)
        if start:
            simulated.start()
            state.update(lambda m: m.powered(PowerAction.on))
        return state, simulated

    # requests

    def plain(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.bmc_port, timeout=10)

    def secure(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cadata=self.tls.pem)
        return http.client.HTTPSConnection("127.0.0.1", self.machines_port, timeout=10, context=context)

    def ask(self, method: str, path: str, *, token: str | None = None, body: bytes | None = None, headers=None):
        """To the machines' listener: (status, headers, body)."""
        connection = self.secure()
        try:
            given = dict(headers or {})
            if token is not None:
                given["Authorization"] = f"Bearer {token}"
            connection.request(method, path, body=body, headers=given)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def get(self, path: str, *, method: str = "GET", headers=None):
        """To the BMCs' listener."""
        connection = self.plain()
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()
