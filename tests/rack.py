"""A site on fake BMCs, with simulated machines behind them: everything of a reimage but QEMU, in one process or several."""

from __future__ import annotations

import io
import json
import random
import socket
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from metalimmu.bmc.fake_machines import FileMachine
from metalimmu.images.add import store
from metalimmu.images.catalogue import Catalogue
from metalimmu.images.ramdisk import Ramdisk
from metalimmu.observed.machine import Fault, Machine
from metalimmu.wire.manifest import CHUNK, Manifest
from metalimmu_emulator.simulated import SimulatedMachine

SLOT = 64 * 1024
LIMITS = {"power": "10s", "media": "10s", "check_in": "20s", "stall": "10s", "phone_home": "20s", "bmc": "15s"}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Rack:
    """`hosts` fake hosts named node-1, node-2, … in `folder`/site."""

    def __init__(
        self,
        folder: Path,
        hosts: int = 1,
        *,
        mib: int = 6,
        images: tuple[str, ...] = ("web@1", "web@2"),
        limits: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.names = [f"node-{i}" for i in range(1, hosts + 1)]
        self._images: dict[str, tuple[str, str, str]] = {}
        self._machines: dict[str, SimulatedMachine] = {}
        for sub in ("hosts", "roles", "pools"):
            (self.site / sub).mkdir(parents=True, exist_ok=True)
        bmc, machines = free_port(), free_port()
        self.boot_url = f"http://127.0.0.1:{bmc}"
        self.write(
            "site.yaml",
            {
                "name": "rack",
                "mode": "read-write",
                "urls": {
                    "bmc": f"http://127.0.0.1:{bmc}",
                    "machines": f"https://127.0.0.1:{machines}",
                    "chunks": f"http://127.0.0.1:{bmc}",
                },
                "limits": limits or LIMITS,
                "guards": {"max_hosts": 1000},
            },
        )
        self.write("roles/web.yaml", {"image": images[0], "ramdisk": "fake"})
        self.write("hosts/rack.yaml", [self._host(i, name) for i, name in enumerate(self.names, 1)])
        self._ramdisk()
        base: bytes | None = None
        for ref in images:
            base = self.image(ref, mib, base)

    def write(self, name: str, document: Any) -> None:
        (self.site / name).write_text(yaml.safe_dump(document, sort_keys=False))

    def _host(self, number: int, name: str) -> dict[str, Any]:
        mac = f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"
        serial = f"S{number:04d}"
        FileMachine(self.state(name)).create(
            Machine(
                power="On",
                generation=1,
                booted_from="disk",
                serial=serial,
                uuid=f"00000000-0000-4000-8000-{number:012d}",
                nics=(mac,),
                netboot=self.boot_url,
            )
        )
        return {"name": name, "bmc": f"fake://{self.state(name)}", "serial": serial, "nics": [mac], "role": "web"}

    def state(self, name: str) -> Path:
        return self.folder / "machines" / f"{name}.json"

    def machine(self, name: str) -> Machine:
        return FileMachine(self.state(name)).read()

    def fault(self, name: str, on: str, effect: str, times: int | None = 1) -> None:
        FileMachine(self.state(name)).update(lambda m: _with(m, Fault(on, effect, times)))

    def _ramdisk(self) -> None:
        folder = self.site / ".metalimmu" / "ramdisk" / "fake"
        folder.mkdir(parents=True, exist_ok=True)
        iso = random.Random(1).randbytes(100_000) + bytes(SLOT) + random.Random(2).randbytes(50_000)
        (folder / "boot.iso").write_bytes(iso)
        record = asdict(
            Ramdisk(
                flavour="fake", label="MI-FAKE", architecture="x86_64", kernel="6.1", backports=False, agent_version="0", agent_digest="",
                slot_offset=100_000, slot_size=SLOT, sha256="", sizes={"iso": len(iso)}, mirror="", modules=0, builtin=(), missing_modules=(),
                missing_firmware=(), packages=(),
                parts={"vmlinuz": [0, 1000], "initrd": [1000, 500], "root": [2000, 50_001]},
            )
        )  # fmt: skip
        record.pop("folder")
        (folder / "ramdisk.json").write_text(json.dumps(record))

    def image(self, ref: str, mib: int, base: bytes | None = None, **manifest: Any) -> bytes:
        """An image of random bytes with a hole; built on `base`, one chunk differs."""
        seed = random.Random(ref)
        if base is None:
            content = seed.randbytes((mib - 2) * CHUNK) + bytes(2 * CHUNK)
        else:
            content = base[:CHUNK] + seed.randbytes(CHUNK) + base[2 * CHUNK :]
        catalogue = Catalogue(self.site / ".metalimmu" / "images")
        chunks, size = store(io.BytesIO(content), catalogue.chunks)
        wanted: dict[str, Any] = {
            "kind": "disk",
            "architecture": "x86_64",
            "size": size,
            "chunks": chunks,
            "build_id": f"b-{ref}",
            **manifest,
        }
        made = catalogue.publish(ref, Manifest(**wanted), {}, {})
        name, version = ref.split("@")
        self._images[made.digest] = (name, version, str(wanted["build_id"]))
        return content

    def power_up(
        self, stack: ExitStack, *, pace: float = 0.2, faults: dict[str, dict[str, str]] | None = None
    ) -> dict[str, SimulatedMachine]:
        """Start the simulated machines; they end with `stack`. `faults`: by host, words of the simulated machine."""
        for name in self.names:
            made = SimulatedMachine(self.state(name), pace=pace, images=self._images, **(faults or {}).get(name, {}))
            self._machines[name] = stack.enter_context(made)
        return self._machines


def _with(machine: Machine, fault: Fault) -> Machine:
    import msgspec

    return msgspec.structs.replace(machine, faults=(*machine.faults, fault))
