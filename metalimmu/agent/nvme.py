"""Erasing by an NVMe drive itself: Format NVM and Sanitize (NVM Express Base 2.0, 5.14 and 5.24), by the kernel's
pass-through (linux/nvme_ioctl.h).
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from metalimmu.agent.block import Buffer, Device
from metalimmu.errors import EraseFailed

IOCTL_ID = 0x4E40
IOCTL_ADMIN = 0xC0484E41
_COMMAND = struct.Struct("<BBHIIIQQIIIIIIIIII")  # nvme_passthru_cmd, 72 bytes

GET_LOG, IDENTIFY, FORMAT, SANITIZE = 0x02, 0x06, 0x80, 0x84
_ALL = 0xFFFFFFFF
_SANITIZE_LOG = 0x81
USER_DATA, CRYPTOGRAPHIC = 1, 2  # secure erase settings of Format NVM
BLOCK_ERASE, OVERWRITE, CRYPTO_ERASE = 2, 3, 4  # actions of Sanitize
SECOND = 1000
QUICK = 60 * SECOND
LONG = 12 * 3600 * SECOND  # a format that overwrites a large drive


@dataclass(frozen=True)
class Able:
    """What one namespace's drive can do. `alone`: it is the drive's only namespace."""

    namespace: int
    format: bool
    cryptographic: bool  # the format can
    whole: bool  # a format takes all namespaces
    sanitize: int  # the best action; 0: none
    alone: bool
    settings: int  # of a format that changes nothing but the data


def able(device: Device) -> Able:
    """Raises OSError for what is no NVMe drive."""
    namespace = fcntl.ioctl(device.fd, IOCTL_ID)
    drive, space = _identify(device, 0, 1), _identify(device, namespace, 0)
    others = {n for n in struct.unpack("<1024I", _identify(device, 0, 2)) if n} - {namespace}
    fna, sanicap = drive[524], int.from_bytes(drive[328:332], "little")
    best = next((a for bit, a in ((0, CRYPTO_ERASE), (1, BLOCK_ERASE), (2, OVERWRITE)) if sanicap & 1 << bit), 0)
    flbas, protection = space[26], space[29]
    return Able(
        namespace=namespace,
        format=bool(drive[256] & 2),
        cryptographic=bool(fna & 4),
        whole=bool(fna & 3),
        sanitize=best,
        alone=not others,
        settings=flbas & 0xF | (flbas >> 4 & 1) << 4 | (protection & 7) << 5 | (protection >> 3 & 1) << 8,
    )


def why_not(drive: Able, how: str) -> str:
    """Why this drive cannot be erased so; empty: it can."""
    if how == "nvme-format":
        if not drive.format:
            return "the drive has no Format NVM command"
        if drive.whole and not drive.alone:
            return "a format takes all namespaces of this drive, and it has others"
        return ""
    if not drive.sanitize:
        return "the drive cannot sanitize"
    return "" if drive.alone else "sanitizing takes all namespaces of this drive, and it has others"


def format_(device: Device, drive: Able) -> str:
    """Returns in words what was done. Raises OSError, EraseFailed."""
    kind = CRYPTOGRAPHIC if drive.cryptographic else USER_DATA
    _admin(device, FORMAT, drive.namespace, cdw10=drive.settings | kind << 9, timeout=LONG)
    return "NVMe format, " + ("cryptographic erase" if drive.cryptographic else "user data erase")


def sanitize(device: Device, drive: Able, check: Callable[[], None], every: float = 1.0) -> str:
    """`check` is called while it goes on. One that goes on already is waited for: it survives a loss of power."""
    if _sanitize_state(device)[0] != 2:
        _admin(device, SANITIZE, 0, cdw10=drive.sanitize | 1 << 3, timeout=QUICK)
    while True:
        state, _ = _sanitize_state(device)
        if state in (1, 4):
            word = {CRYPTO_ERASE: "cryptographic erase", BLOCK_ERASE: "block erase", OVERWRITE: "overwrite"}
            return f"NVMe sanitize, {word[drive.sanitize]}"
        if state != 2:
            raise EraseFailed(f"{device.path}: the drive says that its sanitize operation failed (status {state})")
        check()
        time.sleep(every)


def _sanitize_state(device: Device) -> tuple[int, int]:
    """Status (1 done, 2 in progress, 3 failed, 4 done and deallocated), progress of 65536."""
    log = _admin(device, GET_LOG, _ALL, cdw10=_SANITIZE_LOG | 127 << 16, length=512)
    progress, status = struct.unpack_from("<HH", log)
    return status & 7, progress


def _identify(device: Device, namespace: int, structure: int) -> bytes:
    return _admin(device, IDENTIFY, namespace, cdw10=structure, length=4096)


def _admin(device: Device, opcode: int, namespace: int, *, cdw10: int, length: int = 0, timeout: int = QUICK) -> bytes:
    """The data that came back. Raises OSError, EraseFailed for a status that the drive gave."""
    buffer = Buffer(max(length, 4096))
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer.view)) if length else 0
    fields = (opcode, 0, 0, namespace, 0, 0, 0, address, 0, length, cdw10, 0, 0, 0, 0, 0, timeout, 0)
    command = bytearray(_COMMAND.pack(*fields))
    if opcode in (FORMAT, SANITIZE):
        status = device.command(IOCTL_ADMIN, command)
    else:
        status = fcntl.ioctl(device.fd, IOCTL_ADMIN, command)
    if status:
        raise EraseFailed(f"{device.path}: the drive answers command {opcode:#x} with status {status:#x}")
    return bytes(buffer.view[:length])
