r"""UEFI boot entries through efivarfs (UEFI 2.10: 3.1 boot manager, 3.3 variables, 10.3 device paths).

We remove only entries recorded as ours, put ours first and set BootNext. Broken or full NVRAM is not fatal: firmware
also starts \EFI\BOOT\BOOTX64.EFI, which images bring; the report says what could not be done.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from metalimmu.agent.identify import GLOBAL_VARIABLE

NON_VOLATILE_BOOT_RUNTIME = 7
ACTIVE = 1
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10
_END = b"\x7f\xff\x04\x00"
_ENTRY = re.compile(rf"Boot([0-9A-Fa-f]{{4}})-{GLOBAL_VARIABLE}\Z")


@dataclass(frozen=True)
class Esp:
    """The EFI system partition, as the HD() device path names it."""

    number: int  # from 1
    first: int  # sector
    sectors: int
    guid: uuid.UUID


@dataclass(frozen=True)
class LoadOption:
    attributes: int
    description: str
    path: bytes  # device path
    data: bytes = b""

    def encode(self) -> bytes:
        head = struct.pack("<IH", self.attributes, len(self.path))
        return head + self.description.encode("utf-16-le") + b"\0\0" + self.path + self.data

    @classmethod
    def decode(cls, raw: bytes) -> LoadOption:
        """Raises ValueError: firmware writes odd entries."""
        if len(raw) < 8:
            raise ValueError("load option is too short")
        attributes, length = struct.unpack_from("<IH", raw)
        end = next((i for i in range(6, len(raw) - 1, 2) if raw[i : i + 2] == b"\0\0"), None)
        if end is None or end + 2 + length > len(raw):
            raise ValueError("load option breaks off")
        path = raw[end + 2 : end + 2 + length]
        return cls(attributes, raw[6:end].decode("utf-16-le", "replace"), path, raw[end + 2 + length :])

    def file(self) -> str:
        """The loader's path within its partition; empty when the device path names none."""
        at = 0
        while at + 4 <= len(self.path):
            kind, subtype, length = struct.unpack_from("<BBH", self.path, at)
            if length < 4 or kind == 0x7F:
                break
            if (kind, subtype) == (4, 4):
                return self.path[at + 4 : at + length].decode("utf-16-le", "replace").rstrip("\0")
            at += length
        return ""


def hard_drive_path(esp: Esp, loader: str) -> bytes:
    """HD(number,GPT,guid,first,sectors)/File(loader)."""
    drive = struct.pack(
        "<BBHIQQ16sBB", 4, 1, 42, esp.number, esp.first, esp.sectors, esp.guid.bytes_le, 2, 2
    )  # format 2: GPT; signature 2: GUID
    name = loader.encode("utf-16-le") + b"\0\0"
    return drive + struct.pack("<BBH", 4, 4, 4 + len(name)) + name + _END


class Variables:
    """Global variables in efivarfs: a file is four bytes of attributes and the value, written in one call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}-{GLOBAL_VARIABLE}"

    def read(self, name: str) -> bytes | None:
        try:
            return self._path(name).read_bytes()[4:]
        except FileNotFoundError:
            return None

    def write(self, name: str, value: bytes) -> None:
        path = self._path(name)
        _mutable(path)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, struct.pack("<I", NON_VOLATILE_BOOT_RUNTIME) + value)
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        _mutable(self._path(name))
        self._path(name).unlink()

    def entries(self) -> dict[int, LoadOption]:
        """Boot#### that can be read."""
        found = {}
        for path in self.folder.iterdir():
            match = _ENTRY.match(path.name)
            with contextlib.suppress(OSError, ValueError):
                if match:
                    found[int(match[1], 16)] = LoadOption.decode(path.read_bytes()[4:])
        return found

    def order(self) -> list[int]:
        raw = self.read("BootOrder") or b""
        return list(struct.unpack(f"<{len(raw) // 2}H", raw[: len(raw) // 2 * 2]))


def _mutable(path: Path) -> None:
    """Linux protects variables it does not know from `rm -rf` by the immutable flag."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    with contextlib.suppress(OSError):
        flags = int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)), "little")
        if flags & FS_IMMUTABLE_FL:
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, (flags & ~FS_IMMUTABLE_FL).to_bytes(8, "little"))
    os.close(fd)


def put_first(variables: Variables, label: str, path: bytes, own: Collection[str]) -> tuple[list[str], list[str]]:
    """Make ours the first entry and the next one. Returns BootOrder as read back, one line each, and what went wrong."""
    problems: list[str] = []
    try:
        _put_first(variables, LoadOption(ACTIVE, label, path), {*own, label}, problems)
        return shown(variables), problems
    except OSError as exc:
        problems.append(
            f"UEFI variables: {exc.strerror or exc}; the machine must start the loader by its fallback path"
        )
    with contextlib.suppress(OSError):
        return shown(variables), problems
    return [], problems


def _put_first(variables: Variables, option: LoadOption, own: set[str], problems: list[str]) -> None:
    entries = variables.entries()
    mine = [n for n, e in entries.items() if e.description in own]
    keep = next((n for n in mine if entries[n] == option), None)
    for number in mine:
        if number != keep:
            try:
                variables.remove(f"Boot{number:04X}")
            except OSError as exc:
                problems.append(f"boot entry {number:04X} {entries[number].description!r}: {exc.strerror}")
    if keep is None:
        # Not one of the removed numbers only: BootOrder may name entries that no longer exist.
        taken = (entries.keys() - set(mine)) | (set(variables.order()) - set(mine))
        keep = next(n for n in range(0x10000) if n not in taken)
        variables.write(f"Boot{keep:04X}", option.encode())
    wanted = [keep, *(n for n in variables.order() if n != keep and n not in mine)]
    if wanted != variables.order():
        variables.write("BootOrder", struct.pack(f"<{len(wanted)}H", *wanted))
    variables.write("BootNext", struct.pack("<H", keep))
    if variables.order() != wanted or variables.entries().get(keep) != option:
        problems.append("UEFI variables read back differ from what was written")
    if variables.read("BootNext") != struct.pack("<H", keep):
        problems.append("BootNext was not kept by the firmware")


def shown(variables: Variables) -> list[str]:
    entries = variables.entries()
    return [
        f"{n:04X} {entries[n].description} {entries[n].file()}".rstrip() if n in entries else f"{n:04X} (missing)"
        for n in variables.order()
    ]
