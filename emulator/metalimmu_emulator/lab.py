"""A lab: N virtual servers, each behind its own BMC that speaks Redfish and IPMI, in one folder that is all there is of it.

::

    lab = Lab.up(Path("/somewhere/lab"), servers=2, images=..., ramdisks=...)
    lab.site                                  # metalimmu --site THIS reimage node-1
    lab.fault("node-1", "error", status=503, times=3)
    lab.down()                                # no process and no file left
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError, NotFound, UsageError
from metalimmu_emulator import bmc, certificate, faults, layout, making, requirements, site
from metalimmu_emulator import network as segments
from metalimmu_emulator.files import read_message, write_message
from metalimmu_emulator.layout import LabSpec, Supervisor
from metalimmu_emulator.machine import DiskSpec, ServerSpec
from metalimmu_emulator.processes import ProcessId, alive, end, identify
from metalimmu_emulator.qemu import State
from metalimmu_emulator.qmp import QmpClient
from metalimmu_emulator.switch import key

UP_SECONDS = 60.0
DOWN_SECONDS = 20.0
REMOVE_SECONDS = 5.0
GIB = 1 << 30


@dataclass(frozen=True)
class ServerStatus:
    name: str
    bmc: str  # redfish+https://127.0.0.1:PORT
    ipmi: str  # ipmi://127.0.0.1:PORT; the same machine, the same login
    power: str
    boot: str  # "Once Cd", or ""
    media: str
    serial: str
    firmware: str
    console: str
    pid: int | None
    kind: str = "server"
    ssh: str = ""  # of a switch: ssh://127.0.0.1:PORT


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
        switches: int = 0,
        switch_disk: Path | None = None,
        switch_image: str = "lab-nos@1",
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
        protocol: str = "redfish",
        network: bool = False,
        timeout: float = UP_SECONDS,
    ) -> Lab:
        """Start a lab and wait until its BMCs answer; the machines are off. Memory in MiB, sizes in bytes.

        A lab that is there already is started again with its disks if its supervisor has died, and left alone if
        it runs; `images`, `image` and the like are then those of the first time. Raises LabError when it was made
        with other servers, UsageError, ToolError. `switch_disk` is the disk with ONIE that each switch gets a copy of.
        `network`: the machines hang on a bridge of this host, which needs root.
        """
        model = ServerSpec(
            name="",
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
        if switches and switch_disk is None:
            raise LabError("switches need a disk with ONIE on it", hint="`metalimmu lab up --switches N` makes one")
        if not servers and not switches:
            raise UsageError("a lab has at least one server or switch")
        media_port, machines_port = making.free_ports(2)
        password = secrets.token_urlsafe(12)
        private, public = key.create() if switches else ("", "")
        bootfile = f"http://10.0.2.2:{media_port}/switch"
        if network:
            segments.check()
        racked = making.servers(servers, model) + making.switches(switches, password, public, bootfile, kvm=kvm)
        segment = segments.choose(len(racked)) if network else None
        spec = LabSpec(
            name=folder.name,
            user="admin",
            password=password,
            servers=making.plugged(racked, segment, media_port),
            bmc_ports=(0,) * len(racked),
            ipmi_ports=(0,) * len(racked),
            media_port=media_port,
            machines_port=machines_port,
            image=image,
            ramdisk=ramdisk,
            images=str(images.absolute()),
            ramdisks=str(ramdisks.absolute()),
            mirror=mirror,
            protocol=protocol,
            switch_image=switch_image,
            segment=segment,
        )
        requirements.check(firmware if servers else "bios")
        folder = folder.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with making.exclusive(folder.parent):
            if not (folder / layout.LAB).exists():
                making.create(folder, spec, private=private, factory=switch_disk)
            lab = Lab(folder)
            same = making.alike(lab.spec.servers, spec.servers)
            if not same or bool(lab.spec.segment) is not network:
                raise LabError(
                    f"the lab in {folder} is there already, with other servers",
                    hint="`metalimmu lab down` removes it; or give the new one another --name",
                )
            if not lab.running():
                lab.start(timeout)
            return lab

    def start(self, timeout: float = UP_SECONDS) -> None:
        """The supervisor of a lab whose own has died. Raises LabError."""
        self._end_processes()
        (self.folder / layout.SUPERVISOR).unlink(missing_ok=True)
        if self.spec.segment:
            segments.create(self.spec.segment)
        try:
            told = self._wait_ready(making.launch(self.folder), time.monotonic() + timeout)
        except LabError:
            self._end_processes()
            self._unplug()
            raise
        self.spec = replace(self.spec, bmc_ports=told.ports, ipmi_ports=told.ipmi_ports)
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
        with making.exclusive(self.folder.parent):
            self._end_processes()
            self._unplug()
            self._remove()

    def _unplug(self) -> None:
        if self.spec.segment:
            segments.remove(self.spec.segment)

    def _remove(self) -> None:
        """A controller that still runs may write into the site meanwhile: again, until nothing is left."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while self.folder.exists():
            try:
                shutil.rmtree(self.folder)
            except OSError as exc:
                if time.monotonic() > deadline:
                    raise LabError(f"{self.folder} cannot be removed: {exc}", hint="end the runs of its site") from exc
                time.sleep(0.1)

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
        servers = self.spec.servers
        ports = zip(servers, self.spec.bmc_ports, self.spec.ipmi_ports or (0,) * len(servers), strict=True)
        return [self._status(*each) for each in ports]

    def _status(self, server: ServerSpec, port: int, ipmi_port: int) -> ServerStatus:
        state = self._state(server.name)
        on = alive(state.process)
        override = state.override
        return ServerStatus(
            name=server.name,
            bmc=f"redfish+https://127.0.0.1:{port}",
            ipmi=f"ipmi://127.0.0.1:{ipmi_port}",
            power="On" if on else "Off",
            boot="" if override.enabled == "Disabled" else f"{override.enabled} {override.target}",
            media=state.media.url if state.media else "",
            serial=server.serial,
            firmware=server.firmware,
            console=str(self.console(server.name)),
            pid=state.process.pid if on and state.process else None,
            kind="switch" if server.switch else "server",
            ssh=f"ssh://{server.switch.ssh}" if server.switch else "",
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

    def commands(self, server: str) -> list[dict[str, Any]]:
        """What the BMC was told over IPMI: at, netfn, command, data (hex), code (completion), rights (2 User, 3 Operator, 4)."""
        from metalimmu_emulator.ipmi import commands  # imports pyghmi

        return commands(self.server_folder(server))

    def qmp(self, server: str) -> QmpClient:
        """A second QMP connection to a running server, for what no BMC can do. Close it. Raises QmpError when it is off."""
        return QmpClient.connect(self.server_folder(server) / "qmp.sock")

    def link(self, server: str, *, up: bool) -> None:
        """Plug or pull the network cable of a running server."""
        with contextlib.closing(self.qmp(server)) as client:
            client.execute("set_link", name="nic0", up=up)
