"""Erasing by an ATA drive itself: the security feature set (ACS-4, 4.18 and 7.40 on), through SCSI's ATA PASS-THROUGH (16)
(SAT-4, 12.2.2.3) and Linux's SG_IO.

A drive whose erase was cut off by a loss of power stays locked, with the password below: then it is unlocked with the
same, and erased again.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
from dataclasses import dataclass

from metalimmu.agent.block import Device
from metalimmu.errors import EraseFailed

SG_IO = 0x2285
PASSWORD = b"metalimmu"
IDENTIFY, SET_PASSWORD, UNLOCK, PREPARE, ERASE, DISABLE = 0xEC, 0xF1, 0xF2, 0xF3, 0xF4, 0xF6
_NO_DATA, _IN, _OUT = 3, 4, 5  # protocols
_NONE, _TO, _FROM = -1, -2, -3  # linux/scsi/sg.h: direction
QUICK = 30.0
SPARE = 2.0  # times what the drive says that it needs, and an hour


class _Header(ctypes.Structure):
    """sg_io_hdr_t"""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


@dataclass(frozen=True)
class Security:
    """Word 128 of IDENTIFY DEVICE, and how long an erase takes (seconds; 0: the drive does not say)."""

    supported: bool
    enabled: bool = False
    locked: bool = False
    frozen: bool = False
    enhanced: bool = False
    seconds: float = 0.0


def security(device: Device) -> Security:
    """Raises OSError, EraseFailed for what is no ATA drive."""
    data = _command(device, IDENTIFY, protocol=_IN, data=bytes(512))
    words = struct.unpack("<256H", data)
    state = words[128]
    enhanced = bool(state & 0x20)
    time = words[90] if enhanced else words[89]
    minutes = (time & 0x7FFF) * 2 if time & 0x8000 else (time & 0xFF) * 2
    return Security(
        supported=bool(words[82] & 2 and state & 1),
        enabled=bool(state & 2),
        locked=bool(state & 4),
        frozen=bool(state & 8),
        enhanced=enhanced,
        seconds=minutes * 60.0,
    )


def why_not(state: Security) -> str:
    """Why the drive cannot erase itself; empty: it can."""
    if not state.supported:
        return "the drive has no security feature set"
    if state.frozen:
        return "the firmware has frozen the drive's security settings: a power cycle or a BIOS setting thaws them"
    return ""


def erase(device: Device, state: Security) -> str:
    """Returns in words what was done. Raises OSError, EraseFailed."""
    if state.locked:
        _command(device, UNLOCK, protocol=_OUT, data=_password())
    if not state.enabled:
        _command(device, SET_PASSWORD, protocol=_OUT, data=_password())
    try:
        _command(device, PREPARE, protocol=_NO_DATA)
        limit = state.seconds * SPARE + 3600.0
        _command(device, ERASE, protocol=_OUT, data=_password(enhanced=state.enhanced), limit=limit)
    except (OSError, EraseFailed):
        _command(device, DISABLE, protocol=_OUT, data=_password())  # else it is locked after its next loss of power
        raise
    if security(device).enabled:
        raise EraseFailed(f"{device.path}: the drive still has its password after the erase")
    return "ATA secure erase" + (", enhanced" if state.enhanced else "")


def _password(*, enhanced: bool = False) -> bytes:
    """Word 0: bit 0 the user's password (0), bit 1 enhanced erase, bit 8 security high (0); words 1 to 16 the password."""
    return struct.pack("<H32s", 2 if enhanced else 0, PASSWORD).ljust(512, b"\0")


def _command(device: Device, command: int, *, protocol: int, data: bytes = b"", limit: float = QUICK) -> bytes:
    """T_LENGTH 2 and BYT_BLOK: the sector count says how many blocks of 512 bytes travel; T_DIR: to us."""
    flags = 0 if protocol == _NO_DATA else 0x0E if protocol == _IN else 0x06
    cdb = bytearray(16)
    cdb[0], cdb[1], cdb[2], cdb[6], cdb[14] = 0x85, protocol << 1, flags, len(data) // 512, command
    buffer = ctypes.create_string_buffer(data, max(len(data), 1))
    sense = ctypes.create_string_buffer(64)
    block = (ctypes.c_ubyte * 16).from_buffer(cdb)
    header = _Header(
        interface_id=ord("S"),
        dxfer_direction={_NO_DATA: _NONE, _IN: _FROM, _OUT: _TO}[protocol],
        cmd_len=16,
        mx_sb_len=len(sense),
        dxfer_len=len(data),
        dxferp=ctypes.addressof(buffer) if data else None,
        cmdp=ctypes.addressof(block),
        sbp=ctypes.addressof(sense),
        timeout=int(limit * 1000),
    )
    raw = bytearray(bytes(header))
    if command == IDENTIFY:
        fcntl.ioctl(device.fd, SG_IO, raw)
    else:
        device.command(SG_IO, raw)
    done = _Header.from_buffer(raw)
    if done.status or done.host_status or done.driver_status & 0x7:
        raise EraseFailed(
            f"{device.path}: the drive refuses ATA command {command:#x} (status {done.status:#x}, host "
            f"{done.host_status:#x}, sense {sense.raw[: done.sb_len_wr].hex()})"
        )
    return buffer.raw[: len(data)]
