"""A lab: N virtual servers, each behind its own Redfish BMC, in one folder that is all there is of it.

::

    lab = Lab.up(Path("/somewhere/lab"), servers=2, images=..., ramdisks=...)
    lab.site                                  # metalimmu --site THIS reimage node-1
    lab.fault("node-1", "error", status=503, times=3)
    lab.down()                                # no process and no file left
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError, NotFound, UsageError
from metalimmu_emulator import bmc, certificate, faults, layout, requirements, site
from metalimmu_emulator.files import read_message, write_message
from metalimmu_emulator.layout import LabSpec, Supervisor
from metalimmu_emulator.machine import CD_BUSES, DISK_BUSES, FIRMWARES, NICS, PERSONAS, DiskSpec, ServerSpec
from metalimmu_emulator.processes import ProcessId, alive, end, identify
from metalimmu_emulator.qemu import State
from metalimmu_emulator.qmp import QmpClient

UP_SECONDS = 60.0
DOWN_SECONDS = 20.0
PORTS = range(20000, 32000)  # below Linux's range for outgoing connections (32768), so that none takes one meanwhile
GIB = 1 << 30


@dataclass(frozen=True)
class ServerStatus:
    name: str
    bmc: str  # redfish+https://127.0.0.1:PORT
    power: str
    boot: str  # "Once Cd", or ""
    media: str
    serial: str
    firmware: str
    console: str
    pid: int | None


class Lab:
    """An existing lab. Raises NotFound when there is none in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        spec = read_message(LabSpec, self.folder / layout.LAB)
        if spec is None:
            raise NotFound(f"there is no lab in {folder}", hint="`metalimmu lab up` makes one")
        self.spec = spec

    @property
    def site(self) -> Path:
        return self.folder / layout.SITE

    # up and down ---------------------------------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        folder: Path,
        *,
        images: Path,
        ramdisks: Path,
        servers: int = 1,
        firmware: str = "uefi",
        memory: int = 1024,
        kvm: bool = False,
        disk: str = "virtio",
        disk_size: int = 8 * GIB,
        disks: int = 1,
        nic: str = "virtio",
        cd: str = "virtio",
        persona: str = "default",
        image: str = "tiny@1",
        ramdisk: str = "lab",
        mirror: str = "",
        timeout: float = UP_SECONDS,
    ) -> Lab:
        """Start a lab and wait until its BMCs answer; the machines are off. Memory in MiB, sizes in bytes.

        A lab that is there already is started again with its disks if its supervisor has died, and left alone if
        it runs; `images`, `image` and the like are then those of the first time. Raises LabError when it was made
        with other servers, UsageError, ToolError.
        """
        _check(firmware=(firmware, FIRMWARES), disk=(disk, DISK_BUSES), nic=(nic, NICS), cd=(cd, CD_BUSES))
        _check(persona=(persona, PERSONAS))
        if not 1 <= servers <= 64 or not 1 <= disks <= 8 or memory < 128:
            raise UsageError("a lab has 1 to 64 servers, each with 1 to 8 disks and at least 128 MiB of memory")
        requirements.check(firmware)
        folder = folder.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder.parent):
            made = [
                _identified(
                    ServerSpec(
                        name=f"node-{number}",
                        uuid="",
                        serial="",
                        mac="",
                        disks=tuple(DiskSpec(disk_size, "", disk, f"disk{i}.raw") for i in range(disks)),
                        firmware=firmware,
                        memory=memory,
                        kvm=kvm,
                        nic=nic,
                        cd=cd,
                        persona=persona,
                    )
                )
                for number in range(1, servers + 1)
            ]
            spec = LabSpec(
                name=folder.name,
                user="admin",
                password=secrets.token_urlsafe(12),
                servers=tuple(made),
                bmc_ports=(0,) * servers,
                media_port=0,
                machines_port=0,
                image=image,
                ramdisk=ramdisk,
                images=str(images.absolute()),
                ramdisks=str(ramdisks.absolute()),
                mirror=mirror,
            )
            lab = _there(folder, spec) or _create(folder, spec)
            if not alive(lab.supervisor()):
                lab.start(timeout)
            return lab

    def start(self, timeout: float = UP_SECONDS) -> None:
        """The supervisor of a lab whose own has died. Raises LabError."""
        self._end_processes()
        (self.folder / layout.SUPERVISOR).unlink(missing_ok=True)
        try:
            told = self._wait_ready(_launch(self.folder), time.monotonic() + timeout)
        except LabError:
            self._end_processes()
            raise
        self.spec = replace(
            self.spec,
            bmc_ports=told.ports,
            media_port=_port(self.spec.media_port),
            machines_port=_port(self.spec.machines_port),
        )
        write_message(self.folder / layout.LAB, self.spec, mode=0o600)
        site.write(self.folder, self.spec, told.ports)

    def _wait_ready(self, pid: int, deadline: float) -> Supervisor:
        while (told := read_message(Supervisor, self.folder / layout.SUPERVISOR)) is None:
            if identify(pid) is None:
                raise LabError(f"the lab's supervisor ended at once: {self._last_words()}")
            if time.monotonic() > deadline:
                raise LabError(f"the lab's BMCs do not answer in time: {self._last_words()}")
            time.sleep(0.05)
        return told  # written when all of them listen

    def down(self) -> None:
        """End every process of the lab and remove its folder. Works also when its supervisor was killed."""
        with _exclusive(self.folder.parent):
            self._end_processes()
            shutil.rmtree(self.folder)

    def _end_processes(self) -> None:
        """The supervisor takes its QEMUs along; what it left behind (a crash) is ended by number and start time."""
        if supervisor := self.supervisor():
            end(supervisor, grace=DOWN_SECONDS)
        for server in self.spec.servers:
            state = self._state(server.name)
            if state.process:
                end(state.process, grace=2.0)

    # looking -------------------------------------------------------------------------------------------------

    def supervisor(self) -> ProcessId | None:
        told = read_message(Supervisor, self.folder / layout.SUPERVISOR)
        return told.process if told else None

    def running(self) -> bool:
        return alive(self.supervisor())

    def status(self) -> list[ServerStatus]:
        return [self._status(server, port) for server, port in zip(self.spec.servers, self.spec.bmc_ports, strict=True)]

    def _status(self, server: ServerSpec, port: int) -> ServerStatus:
        state = self._state(server.name)
        on = alive(state.process)
        override = state.override
        return ServerStatus(
            name=server.name,
            bmc=f"redfish+https://127.0.0.1:{port}",
            power="On" if on else "Off",
            boot="" if override.enabled == "Disabled" else f"{override.enabled} {override.target}",
            media=state.media.url if state.media else "",
            serial=server.serial,
            firmware=server.firmware,
            console=str(self.console(server.name)),
            pid=state.process.pid if on and state.process else None,
        )

    def _state(self, server: str) -> State:
        return read_message(State, self.server_folder(server) / "state.json") or State()

    def server(self, name: str) -> ServerSpec:
        """Raises NotFound."""
        for server in self.spec.servers:
            if server.name == name:
                return server
        known = ", ".join(s.name for s in self.spec.servers)
        raise NotFound(f"the lab has no server {name}", hint=f"it has {known}")

    def server_folder(self, name: str) -> Path:
        return layout.server_folder(self.folder, self.server(name).name)

    def console(self, name: str) -> Path:
        """The file with all that the server's serial port ever said."""
        return self.server_folder(name) / "console.log"

    def disk(self, name: str, number: int = 0) -> Path:
        """The raw file of a disk, sparse; made at the first power-on, unless it is there by then."""
        return self.server_folder(name) / self.server(name).disks[number].file

    def fingerprint(self) -> str:
        return certificate.fingerprint(self.folder)

    def _last_words(self) -> str:
        """The supervisor's: the last line of a traceback is the error."""
        log = self.folder / layout.LOG
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return lines[-1] if lines else "it said nothing"

    # for tests -----------------------------------------------------------------------------------------------

    def fault(self, server: str, name: str, **parameters: Any) -> None:
        """Switch a fault of the server's BMC on; the table is in `faults`. It holds from the next request."""
        faults.set_fault(self.server_folder(server), name, **parameters)

    def clear_fault(self, server: str, name: str | None = None) -> None:
        """One, or all."""
        faults.clear_fault(self.server_folder(server), name)

    def requests(self, server: str) -> list[dict[str, Any]]:
        """What the BMC was asked: at, method, path, status, login (none, basic, session, refused), body."""
        return bmc.requests(self.server_folder(server))

    def qmp(self, server: str) -> QmpClient:
        """A second QMP connection to a running server, for what no BMC can do. Close it. Raises QmpError when it is off."""
        return QmpClient.connect(self.server_folder(server) / "qmp.sock")

    def link(self, server: str, *, up: bool) -> None:
        """Plug or pull the network cable of a running server."""
        with contextlib.closing(self.qmp(server)) as client:
            client.execute("set_link", name="nic0", up=up)


def _there(folder: Path, wanted: LabSpec) -> Lab | None:
    try:
        lab = Lab(folder)
    except NotFound:
        return None
    if [_anonymous(s) for s in lab.spec.servers] != [_anonymous(s) for s in wanted.servers]:
        raise LabError(
            f"the lab in {folder} is there already, with other servers",
            hint="`metalimmu lab down` removes it; or give the new one another --name",
        )
    return lab


def _anonymous(server: ServerSpec) -> ServerSpec:
    disks = tuple(replace(disk, serial="") for disk in server.disks)
    return replace(server, uuid="", serial="", mac="", disks=disks)


def _create(folder: Path, spec: LabSpec) -> Lab:
    if folder.exists() and any(folder.iterdir()):
        raise LabError(f"{folder} is not empty and is no lab", hint="choose another folder or name")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lab-") as work:
        new = Path(work) / "new"
        new.mkdir(mode=0o700)
        certificate.create(new)
        for server in spec.servers:
            layout.server_folder(new, server.name).mkdir(parents=True)
        write_message(new / layout.LAB, spec, mode=0o600)
        new.rename(folder)  # whole or not at all
    return Lab(folder)


def _identified(server: ServerSpec) -> ServerSpec:
    """With identities that no other machine has."""
    own = secrets.token_hex(4).upper()
    return replace(
        server,
        uuid=str(uuid.uuid4()),
        serial=f"LAB{own}",
        mac="52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
        disks=tuple(replace(disk, serial=f"DISK{own}{i}") for i, disk in enumerate(server.disks)),
    )


def _launch(folder: Path) -> int:
    """The supervisor's process number; it is nobody's child by then."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SUSHY_")}
    done = subprocess.run(
        [sys.executable, "-m", "metalimmu_emulator.supervisor", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise LabError(f"the lab's supervisor does not start: {done.stderr.strip()[-500:]}")
    return int(done.stdout)


def _port(wanted: int) -> int:
    """`wanted` if it is free, else another. Nothing holds it until the controller listens there."""
    for port in [wanted, *random.sample(PORTS, 100)]:
        if port:
            with contextlib.suppress(OSError), socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
                return port
    raise LabError(f"no free TCP port between {PORTS.start} and {PORTS.stop}")


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """One `up` or `down` at a time among the labs of one folder; a lock on the folder itself leaves no file."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _check(**choices: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise UsageError(f"{name} {value!r} is none of {', '.join(allowed)}")
