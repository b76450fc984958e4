"""The root disk as RAID 1: two disks written as one, each of which boots alone.

The array spans whole disks and its metadata, version 1.0, stands at their ends (linux/raid/md_p.h, mdp_superblock_1): to
firmware and boot loaders each half is a plain disk with the image on it. The kernel's md has no part in it here: both
halves are written and read back directly, so what is proven of one is proven of both.

What the image does not cover is not equal on both, so the array is marked for a first synchronisation, which the new
system does in the background, as after `mdadm --create`.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence

from metalimmu.agent.block import MIB, Buffer, Device
from metalimmu.errors import DiskUnsuitable, ReadBackDiffers

MAGIC = 0xA92B4EFC
_HEAD = struct.Struct("<IIII16s32sQIIQIIiIQiIIIQQQQII16sBBHIQQQII32x")
_DEVICES = 384  # entries of the table of roles, as mdadm makes it
_SPARE = 0xFFFF
_BLOCK = 4096
_ROOM = MIB  # before the metadata: for a bitmap, should the system want one


class HalvesDiffer(ReadBackDiffers):
    """The two disks of a mirror do not hold the same."""


class Mirror(Device):
    """Both halves as one disk, as large as the array that they make. Reads compare the halves."""

    def __init__(self, members: Sequence[Device]) -> None:
        self.members = tuple(members)
        first = self.members[0]
        self.path = " and ".join(m.path for m in self.members)
        self.sector = first.sector
        self.is_block = first.is_block
        self.direct = all(m.direct for m in self.members)
        self.size = min(array_size(m.size) for m in self.members)
        if self.size <= 2 * MIB:
            raise DiskUnsuitable(f"{self.path}: too small to be a mirror")

    def read_into(self, view: memoryview, offset: int) -> None:
        self.members[0].read_into(view, offset)
        other = Buffer(len(view))
        for member in self.members[1:]:
            member.read_into(other.view, offset)
            if other.view != view:
                raise HalvesDiffer(f"{self.path}: {len(view)} bytes at {offset} are not the same on both")

    def write_from(self, view: memoryview, offset: int) -> None:
        for member in self.members:
            member.write_from(view, offset)

    def zero(self, offset: int, length: int) -> None:
        for member in self.members:
            member.zero(offset, length)

    def command(self, request: int, argument: bytearray) -> int:
        raise NotImplementedError("a command is for one disk")

    def flush(self) -> None:
        for member in self.members:
            member.flush()

    def close(self) -> None:
        for member in self.members:
            member.close()

    def forget(self) -> None:
        """Take away what stands behind the array: metadata and tables of before."""
        for member in self.members:
            member.zero(member.size - MIB, MIB)
            member.flush()

    def bind(self, deployment: str, name: str, now: float) -> None:
        """Make the two an array. Raises ReadBackDiffers."""
        for number, member in enumerate(self.members):
            block = superblock(deployment, name, now, number=number, disk=member.size, size=self.size)
            member.write(superblock_at(member.size), block)
            member.flush()
            if member.read(superblock_at(member.size), len(block)) != block:
                raise ReadBackDiffers(f"{member.path}: the RAID metadata reads back different")


def array_name(host: str) -> str:
    """As mdadm names arrays: whose it is, then which. At most 32 bytes."""
    return f"{host.encode()[:26].decode('utf-8', 'ignore')}:root"


def superblock_at(disk: int) -> int:
    """Bytes from the disk's beginning: at least 8 KiB before its end, on a multiple of 4 KiB."""
    return ((disk // 512 - 16) & ~7) * 512


def array_size(disk: int) -> int:
    """Bytes of a disk that an array may use; whole MiB."""
    return max(0, superblock_at(disk) - _ROOM) // MIB * MIB


def superblock(deployment: str, name: str, now: float, *, number: int, disk: int, size: int) -> bytes:
    """One block of 4 KiB. `disk` and `size` of the array in bytes."""
    array = uuid.uuid5(uuid.NAMESPACE_URL, f"metalimmu:{deployment}")
    sectors = size // 512
    head = bytearray(
        _HEAD.pack(
            *(MAGIC, 1, 0, 0, array.bytes, name.encode(), int(now) & ((1 << 40) - 1)),
            *(1, 0, sectors, 0, 2),  # level, layout, sectors of a member, chunk, members
            *(0, 0, 0, 0, 0, 0, 0),  # bitmap, new level, reshape position, delta, layout, chunk, offset
            *(0, sectors, superblock_at(disk) // 512, 0),  # data: from the first sector on; metadata; recovery
            *(number, 0, uuid.uuid5(array, str(number)).bytes, 0, 0, 0, 0),
            *(int(now) & ((1 << 40) - 1), 1, 0),  # changed, events, synchronised up to here
            *(0, _DEVICES),  # checksum
        )
    )
    roles = struct.pack(f"<{_DEVICES}H", 0, 1, *[_SPARE] * (_DEVICES - 2))
    struct.pack_into("<I", head, 216, checksum(bytes(head) + roles))
    return (bytes(head) + roles).ljust(_BLOCK, b"\0")


def checksum(raw: bytes) -> int:
    """Sum of its words with carry, its own word being zero (md.c: calc_sb_1_csum)."""
    total: int = sum(struct.unpack(f"<{len(raw) // 4}I", raw))
    return (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF
