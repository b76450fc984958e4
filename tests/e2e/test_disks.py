"""Four NVMe disks in one machine: burn-in, the old system's files saved, the root erased and mirrored, a data disk that
nothing touches, another one formatted by the drive itself. All in one reimage.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import image_builds
import pytest
import yaml
from e2e_rig import Rig, declared, fingerprint

from metalimmu.agent.mirror import array_size, superblock_at

pytestmark = pytest.mark.e2e

NODE = "node-1"
MIB = 1 << 20
SIZE = 384 * MIB
ROOT, MIRROR, KEPT, SPARE = range(4)


def old_system(disk: Path, work: Path) -> None:
    """An ext4 root with logs, and an XFS with a crash dump: made without mounting anything."""
    root = work / "root"
    (root / "var/log/app").mkdir(parents=True)
    (root / "var/log/app/last.log").write_text("the last words of the old system\n" * 100)
    (root / "var/log/link").symlink_to("/etc/shadow")
    ext4, xfs, dump, proto = (work / name for name in ("ext4", "xfs", "dump", "proto"))
    run("mke2fs", "-q", "-t", "ext4", "-d", root, ext4, "64M")
    dump.write_bytes(os.urandom(100_000))
    proto.write_text(f"/dev/null\n0 0\nd--755 0 0\ncrash d--755 0 0\nvmcore ---600 0 0 {dump}\n$\n$\n")
    with xfs.open("wb") as file:
        file.truncate(32 * MIB)
    run("mkfs.xfs", "-q", "--unsupported", "-p", proto, xfs)
    with disk.open("wb") as file:
        file.truncate(SIZE)
    script = "label: gpt\nstart=2048, size=131072, type=L\nstart=133120, size=65536, type=L\n"
    run("sfdisk", "-q", disk, input=script.encode())
    with disk.open("r+b") as file:
        for at, part in ((MIB, ext4), (65 * MIB, xfs)):
            file.seek(at)
            file.write(part.read_bytes())
        file.seek(300 * MIB)  # beyond what the image covers
        file.write(b"a secret that nobody wrote over" * 1000)


def run(*argv: str | Path, **more) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=120, **more)


def data(disk: Path) -> None:
    """Random bytes, and a superblock of somebody's array at the end."""
    content = bytearray(os.urandom(4 * MIB))
    with disk.open("wb") as file:
        file.write(content)
        file.truncate(SIZE)
        file.seek(superblock_at(SIZE))
        file.write(b"\xfc\x4e\x2b\xa9\1\0\0\0" + bytes(60))


def reimaged(rig: Rig) -> None:
    serials = [d.serial for d in rig.lab.server(NODE).disks]
    rig.host_document(
        mirror={"serial": serials[MIRROR]},
        keep=[{"serial": serials[KEPT]}],
        erase=[{"disk": "root", "how": "zero"}, {"disk": {"serial": serials[SPARE]}, "when": "after"}],
    )
    # tiny runs from memory and has no mdadm: what it says cannot prove a mirror. The disks are read here instead.
    rig.role(
        mirror=True,
        salvage={"paths": ["/var/log", "/crash/*"], "limit": "10MB", "required": True},
        proof={"by": "none"},
    )
    pool = {"cpu": "1s", "memory": "1s", "disk": "1s", "network": "1s", "min_size": "256MiB", "min_cpu": "1MB/s"}
    path = rig.lab.site / "pools/lab.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "burn_in": pool}))
    said = rig("plan", NODE)
    for text in (
        "test the machine",
        "save files of the old system",
        "erase disks",
        "erase other disks",
        "root disk: zero",
    ):
        assert text in said, said
    rig("reimage", NODE, "--yes")


def test_all_of_it_in_one_reimage(up, tmp_path: Path) -> None:
    rig: Rig = up(disks=4, disk="nvme", disk_size=SIZE, firmware="uefi")
    disks = [rig.lab.disk(NODE, i) for i in range(4)]
    old_system(disks[ROOT], tmp_path)
    data(disks[KEPT])
    data(disks[SPARE])
    before = fingerprint(disks[KEPT])
    reimaged(rig)
    assert fingerprint(disks[KEPT]) == before, "not one byte"
    report = rig.deployed().report
    assert report is not None

    # the mirror: both halves are the image, and an array to mdadm
    assert report.mirror is not None
    for disk in disks[: MIRROR + 1]:
        assert rig.differing_chunks("tiny@1", disk, declared(report.changed)) == []
        told = subprocess.run(
            ["mdadm", "--examine", disk], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        assert "raid1" in told
        assert "correct" in told
        assert f"{array_size(SIZE) >> 10} KiB" in told
        with disk.open("rb") as file:
            file.seek(300 * MIB)
            assert file.read(31) == bytes(31), "erased beyond the image"

    # the data disk, byte for byte; the spare one
    assert report.kept == ("/dev/nvme2n1",)
    assert "kept, not to be written" in rig.console()
    with disks[SPARE].open("rb") as file:
        assert not file.read().strip(b"\0")
    assert "NVMe format" in report.erased[-1]

    # burn-in and salvage
    assert report.burn_in["cpu"] > 1e6
    assert report.burn_in["memory_tested"] >= 16 * MIB
    files = {(f["volume"], f["file"]) for f in rig.json("salvage", "show", NODE)}
    assert files == {("nvme0n1p1", "/var/log/app/last.log"), ("nvme0n1p2", "/crash/vmcore")}
    out = tmp_path / "out"
    rig("salvage", "get", NODE, "--extract", "--out", str(out))
    assert (out / NODE / "nvme0n1p1/var/log/app/last.log").read_text().startswith("the last words")
    assert (out / NODE / "nvme0n1p2/crash/vmcore").read_bytes() == (tmp_path / "dump").read_bytes()
    rig.until(lambda: rig.boots() == (1, 1), "the new system")

    # the second half alone boots as well
    rig("power", "off", NODE, "--yes")
    shutil.copyfile(disks[MIRROR], disks[ROOT])
    rig("power", "on", NODE, "--yes")
    rig.until(lambda: rig.boots() == (1, 2), "the second half's start")


@pytest.mark.long
def test_debian_assembles_its_mirror_and_proves_itself_on_it(up) -> None:
    """Debian's own mdadm, from its own initramfs, on the metadata that the agent wrote."""
    image_builds.image("mirrored@1", "debian", packages=("mdadm",))
    rig: Rig = up(disks=2, disk_size=4096 * MIB, firmware="uefi", memory=1024)
    rig.limits(check_in="15m", phone_home="30m", stall="15m")
    rig.role(image="mirrored@1", mirror=True)
    rig.host_document(root_disk={"min_size": "1GB"})  # fits both
    said = rig("reimage", NODE, "--yes", seconds=1500)
    assert "mirrored@1: proven" in said
    system = rig.deployed().system
    assert system is not None
    assert "raid1 2/2" in system.arrays
    array = array_size(4096 * MIB)
    for number in range(2):
        told = subprocess.run(
            ["mdadm", "--examine", rig.lab.disk(NODE, number)], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        assert f"{array >> 10} KiB" in told
        assert "node-1:root" in told
