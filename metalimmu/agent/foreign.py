"""What must not be on other disks: things that would make the new system start wrong, or be somebody's data.

RAID metadata on any disk (the chosen one too: at the disk's end it would outlive the image), and on a second disk an
old system's ESP, a `cidata` label, and the image's own identifiers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from metalimmu.agent.block import Device
from metalimmu.agent.disks import reader, signatures
from metalimmu.agent.signatures import RAID_TYPES, Signature
from metalimmu.errors import ForeignSignature
from metalimmu.wire.messages import Disk


@dataclass(frozen=True)
class Finding:
    disk: Disk
    signature: Signature
    why: str

    def __str__(self) -> str:
        return f"{self.disk.path}: {self.signature} ({self.why})"


def find(disks: Sequence[Disk], chosen: Disk, own: Collection[str]) -> list[Finding]:
    """`own`: UUIDs that the image brings. USB, CD and BMC-virtual disks are not looked at: our own media is one."""
    found = []
    for disk in disks:
        if disk.unusable:
            continue
        for signature in signatures(disk, reader(disk.path)):
            why = _why(signature, second=disk.path != chosen.path, own=own)
            if why:
                found.append(Finding(disk, signature, why))
    return found


def _why(s: Signature, *, second: bool, own: Collection[str]) -> str:
    if s.type in RAID_TYPES:
        return "RAID metadata"
    if not second:
        return ""
    if s.uuid and s.uuid in own:
        return "the image's own identifier"
    if s.label.lower() == "cidata" and s.type in ("vfat", "iso9660"):
        return "cloud-init would take it for the seed"
    if s.esp and s.type == "vfat":
        return "the EFI system partition of another system"
    return ""


def refuse(found: Sequence[Finding]) -> None:
    """Raises ForeignSignature naming all of them."""
    if found:
        raise ForeignSignature(f"foreign signatures: {'; '.join(map(str, found))}")


def wipe(found: Sequence[Finding], chosen: Device) -> list[str]:
    """Make each unrecognisable: its magic bytes become zero, nothing else. Returns what was done.

    `chosen` is open already, and for us alone.
    """
    done = []
    for finding in found:
        if finding.disk.path == chosen.path:
            _wipe(chosen, finding.signature)
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
