"""Three machines that must not be written, reimaged at once: each is refused for its reason, and not one byte of a disk changes."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from e2e_rig import Rig, failed, fingerprint

pytestmark = pytest.mark.e2e

SIZE = 128 << 20
STRANGER, HINTLESS, FOREIGN = "node-1", "node-2", "node-3"
ARRAY = "6c1d3a52-5d0e-4f35-9a77-2f0c9d0b7e11"


@pytest.fixture
def rig(up) -> Rig:
    made = up(servers=3, disks=3, disk_size=SIZE)
    for name in (STRANGER, HINTLESS, FOREIGN):
        disk = made.lab.disk(name)
        disk.write_bytes(random.Random(name).randbytes(4 << 20))  # somebody's data
        with disk.open("r+b") as file:
            file.truncate(SIZE)
    made.lab.fault(STRANGER, "other-machine", serial="STRANGER1")
    made.host_document(HINTLESS, root_disk={"serial": "NOSUCHDISK"})
    md_raid(made.lab.disk(FOREIGN, 1))
    seed(made.lab.disk(FOREIGN, 2))
    return made


def md_raid(disk: Path) -> None:
    """A version 1.2 superblock, 4 KiB after the disk's beginning (Linux md_p.h: struct mdp_superblock_1)."""
    block = bytearray(256)
    block[0:4] = (0xA92B4EFC).to_bytes(4, "little")
    block[4:8] = (1).to_bytes(4, "little")
    block[16:32] = bytes.fromhex(ARRAY.replace("-", ""))
    block[32:64] = b"old:data".ljust(32, b"\0")
    block[128:136] = (2048).to_bytes(8, "little")  # data_offset, sectors
    block[144:152] = (8).to_bytes(8, "little")  # super_offset, sectors
    with disk.open("wb") as file:
        file.truncate(SIZE)
        file.seek(4096)
        file.write(block)


def seed(disk: Path) -> None:
    with disk.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.vfat", "-n", "cidata", str(disk)], check=True, capture_output=True, timeout=60)


def test_a_stranger_a_hint_that_fits_nothing_and_foreign_disks(rig: Rig) -> None:
    disks = {
        name: [fingerprint(rig.lab.disk(name, i)) for i in range(3) if rig.lab.disk(name, i).exists()]
        for name in (STRANGER, HINTLESS, FOREIGN)
    }
    commands = {name: rig.start("reimage", name, "--yes") for name in disks}
    said = {name: failed(command.end(1)) for name, command in commands.items()}

    assert "another machine checked in for node-1: its serial is STRANGER1" in said[STRANGER]
    assert "no disk of" in said[HINTLESS]
    assert "serial=NOSUCHDISK" in said[HINTLESS]
    for disk in rig.lab.server(HINTLESS).disks:
        assert disk.serial in said[HINTLESS], "it lists what it saw"
    assert "/dev/vdb: " in said[FOREIGN]
    assert "RAID metadata" in said[FOREIGN]
    assert "/dev/vdc: " in said[FOREIGN]
    assert "cloud-init would take it for the seed" in said[FOREIGN]

    codes = {STRANGER: "IdentityMismatch", HINTLESS: "DiskSelectionError", FOREIGN: "ForeignSignature"}
    for name, before in disks.items():
        host = rig.host(name)
        assert host.error is not None
        assert host.error.code == codes[name]
        assert host.quarantine is not None
        assert (host.state, host.proof, host.image) == ("enrolled", "unproven", None)
        assert rig.bmc(name)[1:] == ("", ""), "media ejected, override cleared"
        assert [fingerprint(rig.lab.disk(name, i)) for i in range(len(before))] == before, "not one byte"
    evidence = rig.host(STRANGER).quarantine
    assert evidence is not None
    assert "STRANGER1" in str(evidence.evidence)
    assert rig.lab.server(STRANGER).serial in str(evidence.evidence)
