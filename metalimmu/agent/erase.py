"""Making all of a disk unreadable, by what the disk can do best or by what was asked, and looking whether it did.

A drive may say `done` and have done nothing, so samples of what was there before must be gone afterwards.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from metalimmu.agent import ata, nvme
from metalimmu.agent.block import MIB, ZERO_STEP, Buffer, Device
from metalimmu.agent.link import Link
from metalimmu.errors import DiskUnsuitable, EraseFailed
from metalimmu.wire.messages import Disk

BY_FIRMWARE = ("nvme-format", "nvme-sanitize", "ata")
SAMPLES = 64
_SAMPLE = 4096
_MARK = struct.Struct("<QQ")  # at each 4 KiB of an overwritten disk: magic, offset


@dataclass(frozen=True)
class Way:
    """How one disk will be erased. `act` gives in words what it did."""

    how: str
    act: Callable[[Device, Link], str]
    why: str = ""  # why not by something better


def ways(device: Device, disk: Disk, how: str) -> list[Way]:
    """What to do, best first: for `auto` all that this disk can, else the one that was asked. Writes nothing.

    Raises EraseFailed when the disk cannot be erased as asked.
    """
    able, reasons = _by_firmware(device, disk)
    if how == "auto":
        return [*able.values(), Way("zero", _zero, "; ".join(reasons.values()))]
    if how in BY_FIRMWARE:
        if how not in able:
            why = reasons.get(
                how, f"it is no {'ATA' if how == 'ata' else 'NVMe'} drive ({disk.transport or 'unknown'})"
            )
            raise EraseFailed(f"{disk.path} cannot be erased by {how}: {why}")
        return [able[how]]
    if how not in ("zero", "overwrite"):
        raise EraseFailed(
            f"{disk.path}: this agent does not know how to erase by {how!r}", hint="build the ramdisk again"
        )
    return [Way("zero", _zero) if how == "zero" else Way("overwrite", _overwrite)]


def erase(device: Device, disk: Disk, how: str, link: Link) -> str:
    """A line for the report. Raises EraseFailed, DiskKept, DiskUnsuitable, Stopped, Lost."""
    plan = ways(device, disk, how)
    before = _samples(device)
    for way in plan:
        link.check()
        link.log(f"erasing {disk.path} by {way.how}" + (f" ({way.why})" if way.why else ""))
        try:
            done = way.act(device, link)
            device.flush()
            return f"{disk.path}: {done}; {_checked(device, way.how, before)}"
        except (OSError, EraseFailed) as exc:
            # With `auto` a drive that cannot do what it says is no reason to keep its content.
            if way is plan[-1]:
                raise _failed(disk, exc) from exc
            link.log(f"{disk.path}: {way.how} did not work, doing it another way: {exc}")
    raise AssertionError(plan)


def _failed(disk: Disk, exc: OSError | EraseFailed) -> EraseFailed:
    return exc if isinstance(exc, EraseFailed) else EraseFailed(f"{disk.path}: erasing failed: {exc.strerror or exc}")


def _by_firmware(device: Device, disk: Disk) -> tuple[dict[str, Way], dict[str, str]]:
    """What the drive can do by itself, and why it cannot do the rest."""
    try:
        if disk.transport == "nvme":
            drive = nvme.able(device)
            reasons = {h: why for h in BY_FIRMWARE[:2] if (why := nvme.why_not(drive, h))}
            acts = {
                "nvme-format": lambda d, link: _waited(link, lambda: nvme.format_(d, drive)),
                "nvme-sanitize": lambda d, link: _waited(link, lambda: nvme.sanitize(d, drive, link.check)),
            }
            return {h: Way(h, act) for h, act in acts.items() if h not in reasons}, reasons
        if disk.transport in ("sata", "sas", "scsi"):
            state = ata.security(device)
            why = ata.why_not(state)
            return ({} if why else {"ata": Way("ata", lambda d, link: _waited(link, lambda: ata.erase(d, state)))}), (
                {"ata": why} if why else {}
            )
    except (OSError, EraseFailed) as exc:
        reason = exc.message if isinstance(exc, EraseFailed) else exc.strerror or str(exc)
        return {}, dict.fromkeys(BY_FIRMWARE, f"the drive does not answer what it can do: {reason}")
    return {}, {}


@contextmanager
def _ticking(link: Link) -> Iterator[None]:
    """A drive that erases itself says nothing of its progress: seconds are counted, so that it does not look dead."""
    link.phase("erase")
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1.0):
            link.advance(1)

    thread = threading.Thread(target=tick, name="erase", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _waited(link: Link, act: Callable[[], str]) -> str:
    with _ticking(link):
        return act()


def _zero(device: Device, link: Link) -> str:
    link.phase("erase", device.size)
    for at in range(0, device.size, ZERO_STEP):
        link.check()
        length = min(ZERO_STEP, device.size - at)
        device.zero(at, length)
        link.advance(length)
    return "zeros"


def _overwrite(device: Device, link: Link) -> str:
    """Random bytes once, each 4 KiB with its own place: no drive can make them into one or leave them out."""
    link.phase("erase", device.size)
    buffer = Buffer()
    buffer.view[:] = os.urandom(MIB)
    for at in range(0, device.size, MIB):
        link.check()
        length = min(MIB, device.size - at)
        for place in range(0, length, _SAMPLE):
            _MARK.pack_into(buffer.view, place, _magic(), at + place)
        device.write_from(buffer.view[:length], at)
        link.advance(length)
    return "overwritten with random bytes"


def _magic() -> int:
    return int.from_bytes(b"metalimm", "little")


def _places(size: int) -> list[int]:
    """Evenly over the disk, its beginning and end among them."""
    last = (size - _SAMPLE) // _SAMPLE
    return sorted({last * i // (SAMPLES - 1) * _SAMPLE for i in range(SAMPLES)})


def _samples(device: Device) -> dict[int, bytes]:
    """Blocks with something in them. A block that cannot be read now is none."""
    found = {}
    for at in _places(device.size):
        try:
            block = device.read(at, _SAMPLE)
        except DiskUnsuitable:
            continue
        if block.count(block[0]) != len(block):
            found[at] = block
    return found


def _checked(device: Device, how: str, before: dict[int, bytes]) -> str:
    """Raises EraseFailed."""
    for at in _places(device.size):
        try:
            block = device.read(at, _SAMPLE)
        except DiskUnsuitable:
            if how not in BY_FIRMWARE:  # a sanitized drive may refuse to read what was not written since
                raise
            continue
        wrong = block == before.get(at)
        wrong |= how == "zero" and any(block)
        wrong |= how == "overwrite" and _MARK.unpack_from(block) != (_magic(), at)
        if wrong:
            raise EraseFailed(f"{device.path}: after the erase by {how} the bytes at {at} are not gone")
    return f"{len(before)} of {SAMPLES} samples held something before, none does now"
