"""Where things lie in a lab's folder, and the two messages that describe a lab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metalimmu_emulator.machine import ServerSpec
from metalimmu_emulator.network import Segment
from metalimmu_emulator.processes import ProcessId

LAB = "lab.json"  # LabSpec
SUPERVISOR = "supervisor.json"  # Supervisor, written when all BMCs listen
LOG = "supervisor.log"
SITE = "site"
SERVERS = "servers"
SWITCH_KEY = "switch_key"  # a private key; its public half may log in on all switches


@dataclass(frozen=True)
class LabSpec:
    """Made by the first `up`, kept by later ones."""

    name: str
    user: str
    password: str
    servers: tuple[ServerSpec, ...]
    bmc_ports: tuple[int, ...]  # 0: any free one
    media_port: int  # the controller's plain listener: media and chunks
    machines_port: int  # the controller's TLS listener
    image: str
    ramdisk: str
    images: str  # folder of the image store
    ramdisks: str
    mirror: str = ""
    ipmi_ports: tuple[int, ...] = ()  # UDP; 0 or none: any free one
    protocol: str = "redfish"  # how the lab's site reaches its BMCs: redfish | ipmi
    switch_image: str = ""  # of the role that the switches have
    segment: Segment | None = None  # a real network; None: each machine has QEMU's own


@dataclass(frozen=True)
class Supervisor:
    process: ProcessId
    ports: tuple[int, ...]  # of the BMCs, in the order of LabSpec.servers
    ipmi_ports: tuple[int, ...] = ()  # UDP


def server_folder(lab: Path, name: str) -> Path:
    return lab / SERVERS / name
