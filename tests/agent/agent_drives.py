"""Drives behind ioctl(2), by the structures of the kernel's and the standards' documents. Erasing makes their file zeros."""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass, field
from pathlib import Path

from agent_rig import MIB

from metalimmu.agent import ata, nvme

SIZE = 8 * MIB


@dataclass
class Nvme:
    """A drive with one namespace, by NVM Express Base 2.0. Erasing makes its file zeros."""

    file: Path
    format: bool = True
    crypto: bool = False
    whole: int = 0
    sanicap: int = 0
    namespaces: tuple[int, ...] = (1,)
    status: int = 0  # answer to format and sanitize
    lies: bool = False
    polls: int = 2  # of a sanitize operation
    ends: int = 1  # its status
    asked: list[tuple[int, int]] = field(default_factory=list)  # opcode, cdw10

    def ioctl(self, _fd, request, argument=0, *_):
        if request == nvme.IOCTL_ID:
            return 1
        if request == 0x1260 + 8:
            return 0
        assert request == 0xC0484E41
        c = struct.unpack("<BBHIIIQQIIIIIIIIII", argument)
        opcode, namespace, address, length, cdw10 = c[0], c[3], c[7], c[9], c[10]
        if opcode == 0x06:
            self._put(address, length, self._identify(cdw10, namespace))
            return 0
        if opcode == 0x02:
            assert cdw10 == 0x81 | 127 << 16
            state = 0 if not any(o == 0x84 for o, _ in self.asked) else 2 if self.polls else self.ends
            self.polls -= state == 2
            if state == self.ends:
                self._gone()
            self._put(address, length, struct.pack("<HH", 0xFFFF, state))
            return 0
        self.asked.append((opcode, cdw10))
        if not self.status and opcode == 0x80:
            assert namespace == 1
            self._gone()
        return self.status

    def _gone(self):
        if not self.lies:
            self.file.write_bytes(bytes(SIZE))

    def _identify(self, structure, _namespace):
        data = bytearray(4096)
        if structure == 1:
            data[256] = 2 if self.format else 0
            data[524] = (4 if self.crypto else 0) | self.whole
            data[328:332] = self.sanicap.to_bytes(4, "little")
        elif structure == 0:
            data[26], data[29] = 0x01, 0x00  # the second LBA format
        else:
            struct.pack_into(f"<{len(self.namespaces)}I", data, 0, *self.namespaces)
        return bytes(data)

    @staticmethod
    def _put(address, length, data):
        ctypes.memmove(address, data.ljust(length, b"\0")[:length], length)


@dataclass
class Ata:
    """A drive with the security feature set, by ACS-4; what travels comes in sg_io_hdr_t."""

    file: Path
    supported: bool = True
    frozen: bool = False
    enhanced: bool = True
    password: bytes = b""
    locked: bool = False
    fails: int = 0  # command that is refused
    asked: list[int] = field(default_factory=list)
    prepared: bool = False

    def ioctl(self, _fd, request, raw=0, *_):
        if request != 0x2285:
            raise OSError(errno.ENOTTY, "no such ioctl")
        h = ata._Header.from_buffer(raw)
        assert (h.interface_id, h.cmd_len, ctypes.string_at(h.cmdp, 1)) == (ord("S"), 16, b"\x85")
        cdb = ctypes.string_at(h.cmdp, 16)
        command = cdb[14]
        self.asked.append(command)
        data = ctypes.string_at(h.dxferp, h.dxfer_len) if h.dxfer_len else b""
        if command == self.fails:
            h.status = 2
        elif command == 0xEC:
            assert (cdb[1], cdb[2], cdb[6], h.dxfer_direction) == (8, 0x0E, 1, -3)
            ctypes.memmove(h.dxferp, self._identify(), 512)
        else:
            assert not self.frozen
            h.status = self._obey(command, data)
        return 0

    def _obey(self, command, data):
        right = data[2:34].rstrip(b"\0") == self.password
        if command == 0xF1:
            self.password = data[2:34].rstrip(b"\0")
        elif command == 0xF2:
            self.locked = not right
        elif command == 0xF3:
            self.prepared = True
        elif command == 0xF4:
            if not (right and self.prepared) or self.locked or bool(data[0] & 2) != self.enhanced:
                return 2
            self.password = b""
            self.file.write_bytes(bytes(SIZE))
        elif command == 0xF6:
            if not right:
                return 2
            self.password = b""
        return 0

    def _identify(self):
        words = [0] * 256
        words[82] = 2 if self.supported else 0
        state = (bool(self.password) << 1) | (self.locked << 2) | (self.frozen << 3) | (self.enhanced << 5)
        words[128] = int(self.supported) | state
        words[89], words[90] = 60, 1
        return struct.pack("<256H", *words)
