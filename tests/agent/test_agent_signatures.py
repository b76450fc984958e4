"""Signatures: what we see and what libblkid sees on the same bytes."""

from __future__ import annotations

import struct
import subprocess
import uuid

import pytest
from agent_rig import MIB, partitioned
from hypothesis import given, settings
from hypothesis import strategies as st

from metalimmu.agent import seed
from metalimmu.agent.disks import reader
from metalimmu.agent.signatures import probe, scan

UUID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff"


def tool(*args) -> None:
    subprocess.run([str(a) for a in args], check=True, capture_output=True, timeout=60)


def blkid(file) -> dict[str, str]:
    done = subprocess.run(
        ["blkid", "-p", "-o", "export", file], capture_output=True, text=True, timeout=60, check=False
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def seen(file, size: int = 0):
    return list(probe(reader(str(file)), 0, size or file.stat().st_size, 512))


MAKERS = {
    "ext2": lambda f: tool("mke2fs", "-q", "-t", "ext2", "-L", "here", "-U", UUID, f),
    "ext3": lambda f: tool("mke2fs", "-q", "-t", "ext3", "-L", "here", "-U", UUID, f),
    "ext4": lambda f: tool("mke2fs", "-q", "-t", "ext4", "-L", "here", "-U", UUID, f),
    "fat16": lambda f: tool("mkfs.vfat", "-F", "16", "-n", "HERE", "-i", "1234abcd", f),
    "fat32": lambda f: tool("mkfs.vfat", "-F", "32", "-n", "HERE", "-i", "1234abcd", f),
    "swap": lambda f: tool("mkswap", "-q", "-L", "here", "-U", UUID, f),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_file_systems_as_libblkid_sees_them(tmp_path, kind):
    file = tmp_path / "fs.img"
    with file.open("wb") as f:
        f.truncate(64 * MIB)
    MAKERS[kind](file)
    (found,) = seen(file)
    theirs = blkid(file)
    assert (found.type, found.label, found.uuid) == (theirs["TYPE"], theirs["LABEL"], theirs["UUID"])


def superblocks(size: int) -> dict[str, tuple[int, bytes]]:
    """RAID and other metadata by their specifications: offset and bytes."""
    array = uuid.UUID(UUID).bytes

    def v1(at: int) -> bytes:
        """mdp_superblock_1, linux/raid/md_p.h."""
        block = bytearray(256)
        struct.pack_into("<II8s16s32s", block, 0, 0xA92B4EFC, 1, b"", array, b"db1:data")
        struct.pack_into("<Q", block, 144, at // 512)  # super_offset
        return bytes(block)

    old = struct.pack("<IIII", 0xA92B4EFC, 0, 90, 0).ljust(4096, b"\0")
    lvm = b"LABELONE" + struct.pack("<QII", 1, 0, 32) + b"LVM2 001" + b"abcdefghijklmnopqrstuvwxyz012345"
    return {
        "md 1.0": (((size // 512 - 16) & ~7) * 512, v1(((size // 512 - 16) & ~7) * 512)),
        "md 1.1": (0, v1(0)),
        "md 1.2": (4096, v1(4096)),
        "md 0.90": ((size & ~0xFFFF) - 65536, old),
        "imsm": (size - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00"),
        "ddf": (size - 512, b"\xde\x11\xde\x11"),
        "lsi": (size - 512, b"$XIDE$"),
        "lvm": (512, lvm),
        "luks": (0, b"LUKS\xba\xbe\0\1"),
    }


EXPECTED = {
    "md 1.0": "linux_raid_member",
    "md 1.1": "linux_raid_member",
    "md 1.2": "linux_raid_member",
    "md 0.90": "linux_raid_member",
    "imsm": "isw_raid_member",
    "ddf": "ddf_raid_member",
    "lsi": "lsi_mega_raid_member",
    "lvm": "LVM2_member",
    "luks": "crypto_LUKS",
}


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("size", [64 * MIB, 64 * MIB + 37 * 512])
def test_raid_and_volume_metadata(tmp_path, kind, size):
    file = tmp_path / "raid.img"
    at, block = superblocks(size)[kind]
    with file.open("wb") as f:
        f.truncate(size)
        f.seek(at)
        f.write(block)
    (found,) = seen(file)
    assert found.type == EXPECTED[kind]
    if kind.startswith("md 1"):
        assert (found.uuid, found.label) == (UUID, "db1:data")
        assert blkid(file).get("UUID") == UUID
    ((place, length),) = found.spots
    assert block[place - at : place - at + 4] == block[:4] or kind == "lvm"
    with file.open("r+b") as f:
        f.seek(place)
        f.write(bytes(length))
    assert seen(file) == []


@pytest.mark.parametrize("kind", ["md 1.0", "md 1.2", "md 0.90"])
def test_libblkid_agrees_on_raid(tmp_path, kind):
    file = tmp_path / "raid.img"
    at, block = superblocks(64 * MIB)[kind]
    with file.open("wb") as f:
        f.truncate(64 * MIB)
        f.seek(at)
        f.write(block)
    assert blkid(file)["TYPE"] == "linux_raid_member"


def test_a_whole_disk_with_its_partitions(tmp_path):
    data = partitioned(tmp_path, 24 * MIB)
    esp = seed.fat({}, 4 * MIB, label="EFISYS")
    data[2 * MIB : 2 * MIB + len(esp)] = esp
    root = tmp_path / "root.img"
    with root.open("wb") as f:
        f.truncate(12 * MIB)
    MAKERS["ext4"](root)
    data[6 * MIB : 18 * MIB] = root.read_bytes()
    file = tmp_path / "disk.img"
    file.write_bytes(data)
    found = scan(reader(str(file)), len(data), 512)
    lines = [str(s) for s in found]
    assert lines[0] == "gpt UUID=11111111-2222-3333-4444-555555555555"
    assert any(s.type == "vfat" and s.esp and s.partition == 1 and s.label == "EFISYS" for s in found)
    assert f"ext4 LABEL=here UUID={UUID} partition 2" in lines


def test_a_bare_file_system_is_not_taken_for_a_table(tmp_path):
    file = tmp_path / "fs.img"
    file.write_bytes(seed.fat({"a": b"1"}, 16 * MIB).ljust(16 * MIB, b"\0"))
    assert [s.type for s in scan(reader(str(file)), 16 * MIB, 512)] == ["vfat"]


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=70_000),
    st.sampled_from([b"", b"EFI PART", b"XFSB", b"LUKS\xba\xbe", b"FAT32   "]),
    st.integers(0, 4096),
)
def test_any_bytes_are_read_without_a_fault(noise, magic, at):
    data = (noise[:at] + magic + noise[at:]).ljust(200_000, b"\xff")
    data = data[:510] + b"\x55\xaa" + data[512:]

    def read(offset, length):
        return data[offset : offset + length] if offset >= 0 else b""

    for signature in scan(read, len(data), 512):
        assert str(signature)
