"""How a lab comes into being: its servers' identities, its folder, its supervisor's process, its ports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from metalimmu.errors import LabError, UsageError
from metalimmu_emulator import certificate, layout
from metalimmu_emulator.files import write_message, write_text
from metalimmu_emulator.layout import LabSpec
from metalimmu_emulator.machine import CD_BUSES, DISK_BUSES, FIRMWARES, NICS, PERSONAS, DiskSpec, ServerSpec
from metalimmu_emulator.network import Segment
from metalimmu_emulator.switch import machine as switching

PORTS = range(20000, 32000)  # below Linux's range for outgoing connections (32768), so that none takes one meanwhile
MOST_DISKS = 5  # q35's AHCI has six ports, one is the CD drive's


def servers(count: int, model: ServerSpec) -> tuple[ServerSpec, ...]:
    """`count` servers like `model`, node-1 and so on, each with identities of its own. Raises UsageError."""
    for what, value, allowed in (
        ("firmware", model.firmware, FIRMWARES),
        ("NIC", model.nic, NICS),
        ("CD drive", model.cd, CD_BUSES),
        ("persona", model.persona, PERSONAS),
        *(("disk", disk.bus, DISK_BUSES) for disk in model.disks),
    ):
        if value not in allowed:
            raise UsageError(f"{what} {value!r} is none of {', '.join(allowed)}")
    if not 0 <= count <= 64 or not 1 <= len(model.disks) <= MOST_DISKS or model.memory < 128:
        raise UsageError(
            f"a lab has up to 64 servers, each with 1 to {MOST_DISKS} disks and at least 128 MiB of memory"
        )
    return tuple(_identified(replace(model, name=f"node-{number}")) for number in range(1, count + 1))


def switches(count: int, password: str, public: str, bootfile: str, *, kvm: bool) -> tuple[ServerSpec, ...]:
    """`count` switches, sw-1 and so on, in pairs. `public` is the key that may log in. Raises UsageError, LabError."""
    if not 0 <= count <= 16:
        raise UsageError(f"a lab has up to 16 switches, not {count}")
    found = []
    for number, port in enumerate(free_ports(count), start=1):
        peer, place = switching.pair(number, count)
        server = ServerSpec(
            name=f"sw-{number}",
            uuid="",
            serial="",
            mac="",
            disks=(DiskSpec(switching.DISK_SIZE, ""),),
            firmware="bios",
            memory=switching.MEMORY,
            kvm=kvm,
            product="lab-switch",
        )
        switch = switching.SwitchSpec(
            base_mac=_mac(),
            ssh_port=port,
            bootfile=bootfile,
            key=public,
            password=password,
            peer=peer,
            place=place,
            cables=switching.cables(number),
        )
        found.append(replace(_identified(server), switch=switch))
    return tuple(found)


def plugged(racked: tuple[ServerSpec, ...], segment: Segment | None, media_port: int) -> tuple[ServerSpec, ...]:
    """The servers with a cable into the segment, or with QEMU's own network, whose DHCP names our boot service."""
    start = f"http://10.0.2.2:{media_port}/boot/start.ipxe"
    if segment is None:
        return tuple(s if s.switch else replace(s, bootfile=start) for s in racked)
    found = []
    for number, (server, tap) in enumerate(zip(racked, segment.taps, strict=True)):
        switch = server.switch and replace(server.switch, address=segment.fixed(number), ssh_port=22, bootfile="")
        found.append(replace(server, tap=tap, switch=switch))
    return tuple(found)


def _mac() -> str:
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def _identified(server: ServerSpec) -> ServerSpec:
    """With identities that no other machine has."""
    own = secrets.token_hex(4).upper()
    return replace(
        server,
        uuid=str(uuid.uuid4()),
        serial=f"LAB{own}",
        mac=_mac(),
        disks=tuple(replace(disk, serial=f"DISK{own}{i}") for i, disk in enumerate(server.disks)),
    )


def alike(one: tuple[ServerSpec, ...], other: tuple[ServerSpec, ...]) -> bool:
    """The same servers but for their identities."""
    return [_anonymous(s) for s in one] == [_anonymous(s) for s in other]


def _anonymous(server: ServerSpec) -> ServerSpec:
    disks = tuple(replace(disk, serial="") for disk in server.disks)
    switch = server.switch and switching.anonymous(server.switch)
    return replace(server, uuid="", serial="", mac="", disks=disks, switch=switch, tap="", bootfile="")


def create(folder: Path, spec: LabSpec, *, private: str = "", factory: Path | None = None) -> None:
    """The lab's folder, whole or not at all. Raises LabError when there is something else in its place.

    `private` is the key to its switches; `factory` the disk with which they are delivered.
    """
    if folder.exists() and any(folder.iterdir()):
        raise LabError(f"{folder} is not empty and is no lab", hint="choose another folder or name")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lab-") as work:
        new = Path(work) / "new"
        new.mkdir(mode=0o700)
        certificate.create(new)
        for server in spec.servers:
            home = layout.server_folder(new, server.name)
            home.mkdir(parents=True)
            if server.switch and factory:
                _copy_sparse(factory, home / server.disks[0].file)
        if private:
            write_text(new / layout.SWITCH_KEY, private, mode=0o600)
        write_message(new / layout.LAB, spec, mode=0o600)
        new.rename(folder)


def _copy_sparse(source: Path, target: Path) -> None:
    done = subprocess.run(
        ["cp", "--sparse=always", source, target], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise LabError(f"the disk of a switch cannot be copied: {done.stderr.strip()}", hint="is there room?")


def launch(folder: Path) -> int:
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


def free_ports(count: int) -> list[int]:
    """Different ones. Nothing holds them until the controller listens there. Raises LabError."""
    found: list[int] = []
    if not count:
        return found
    with contextlib.ExitStack() as held:
        for port in random.sample(PORTS, 100):
            sock = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) >= count:
                return found[:count]
    raise LabError(f"no free TCP ports between {PORTS.start} and {PORTS.stop}")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One `up` or `down` at a time among the labs of one folder; a lock on the folder itself leaves no file."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
