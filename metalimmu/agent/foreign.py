"""What must not be on other disks: things that would make the new system start wrong, or be somebody's data.

RAID metadata on any disk (the chosen one too: at the disk's end it would outlive the image), and on a second disk an
old system's ESP, a `cidata` label, and the image's own identifiers. A disk that is to be kept may have RAID metadata and
an ESP, but not what would be taken for a part of the new system.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from metalimmu.agent.block import Device
from metalimmu.agent.disks import reader, signatures
from metalimmu.agent.select import KEPT, Roles
from metalimmu.agent.signatures import RAID_TYPES, Signature
from metalimmu.errors import DiskKept, ForeignSignature
from metalimmu.wire.messages import Disk


@dataclass(frozen=True)
class Finding:
    disk: Disk
    signature: Signature
    why: str
    kept: bool = False  # the disk is to be kept: it cannot be wiped

    def __str__(self) -> str:
        return f"{self.disk.path}: {self.signature} ({self.why})"


def find(roles: Roles, own: Collection[str], array: str) -> list[Finding]:
    """`own`: UUIDs that the image brings; `array`: the name that our own RAID 1 has on this host.

    USB, CD and BMC-virtual disks are not looked at: our own media is one. Nor are disks that are erased anyway.
    """
    written = {d.path for d in roles.written}
    gone = {d.path for _, disks in roles.erase for d in disks}
    found = []
    for disk in roles.all:
        kept = disk in roles.kept or disk.unusable == KEPT
        if disk.path in gone or (disk.unusable and not kept):
            continue
        for signature in signatures(disk, reader(disk.path)):
            if signature.label == array and disk.path in written and signature.type == "linux_raid_member":
                continue  # a half of ours, to be written anew
            why = _why(signature, second=disk.path not in written, kept=kept, own=own)
            if why:
                found.append(Finding(disk, signature, why, kept=kept))
    return found


def _why(s: Signature, *, second: bool, kept: bool, own: Collection[str]) -> str:
    if s.type in RAID_TYPES and not kept:  # data that is to be kept may well be an array
        return "RAID metadata"
    if not second:
        return ""
    if s.uuid and s.uuid in own:
        return "the image's own identifier"
    if s.label.lower() == "cidata" and s.type in ("vfat", "iso9660"):
        return "cloud-init would take it for the seed"
    if s.esp and s.type == "vfat" and not kept:
        return "the EFI system partition of another system"
    return ""


def refuse(found: Sequence[Finding], *, wipe: bool) -> None:
    """Raises ForeignSignature naming all of them, unless they may be wiped; DiskKept where they never may."""
    kept = [f for f in found if f.kept]
    if kept:
        raise DiskKept(
            f"disks to be kept would make the new system start wrong: {'; '.join(map(str, kept))}",
            hint="change the label or identifier on that disk by hand; nothing here writes to it",
        )
    if found and not wipe:
        raise ForeignSignature(f"foreign signatures: {'; '.join(map(str, found))}")


def wipe(found: Sequence[Finding], opened: Mapping[str, Device]) -> list[str]:
    """Make each unrecognisable: its magic bytes become zero, nothing else. Returns what was done.

    `opened`: disks that are open already, and for us alone, by path.
    """
    done = []
    for finding in found:
        if finding.disk.path in opened:
            _wipe(opened[finding.disk.path], finding.signature)
        else:
            with Device(finding.disk.path, finding.disk.logical_sector) as device:
                _wipe(device, finding.signature)
        done.append(f"wiped {finding}")
    return done


def _wipe(device: Device, signature: Signature) -> None:
    for offset, length in signature.spots:
        if offset >= 0 and offset + length <= device.size:
            _blank(device, offset, length)
    device.flush()


def _blank(device: Device, offset: int, length: int) -> None:
    start = offset - offset % device.sector
    end = -(-(offset + length) // device.sector) * device.sector
    data = bytearray(device.read(start, end - start))
    data[offset - start : offset - start + length] = bytes(length)
    device.write(start, bytes(data))
