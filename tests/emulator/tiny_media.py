"""Bootable disks and CDs of a few bytes, so that a test sees in a second what a machine booted from.

Each says a word on the serial port and then stops, or resets the machine. BIOS: a boot sector. UEFI: a PE32+
application of one section. ACPI power-off is not needed: QEMU is told to end.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

COM1, RESET_CONTROL = 0x3F8, 0xCF9


def bios_code(word: str, *, reset: bool) -> bytes:
    """16 bit code: `mov dx, port`, `mov al, char`, `out dx, al`."""
    code = b"\xba" + struct.pack("<H", COM1)
    code += b"".join(b"\xb0" + bytes([c]) + b"\xee" for c in f"{word}\r\n".encode())
    if reset:
        code += b"\xba" + struct.pack("<H", RESET_CONTROL) + b"\xb0\x06\xee"
    return code + b"\xf4\xeb\xfd"  # hlt; jmp back


def uefi_application(word: str, *, reset: bool) -> bytes:
    """64 bit code in the smallest PE that OVMF loads (PE format specification; UEFI 2.10, 2.1.1)."""
    code = b"\xba" + struct.pack("<I", COM1)
    code += b"".join(b"\xb0" + bytes([c]) + b"\xee" for c in f"{word}\r\n".encode())
    if reset:
        code += b"\xba" + struct.pack("<I", RESET_CONTROL) + b"\xb0\x06\xee"
    code = (code + b"\xf4\xeb\xfd").ljust(0x200, b"\0")
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 112 + 16 * 8, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, 0x200, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHIIIIHH", 0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, 0x2000, 0x200, 0, 10, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    section = b".text\0\0\0" + struct.pack("<IIIIIIHHI", 0x200, 0x1000, 0x200, 0x200, 0, 0, 0, 0, 0x60000020)
    return (dos + coff + optional + section).ljust(0x200, b"\0") + code


def bios_disk(path: Path, word: str) -> None:
    sector = bios_code(word, reset=False).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(1 << 20, b"\0"))


def bios_cd(path: Path, work: Path, word: str) -> None:
    (work / "boot.bin").write_bytes(bios_code(word, reset=True).ljust(2048, b"\0"))
    _iso(path, work, ["-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"])


def uefi_disk(path: Path, word: str) -> None:
    _esp(path, uefi_application(word, reset=False))


def uefi_cd(path: Path, work: Path, word: str) -> None:
    _esp(work / "efi.img", uefi_application(word, reset=True))
    _iso(path, work, ["-e", "efi.img", "-no-emul-boot"])


def _esp(path: Path, application: bytes) -> None:
    path.write_bytes(bytes(2 << 20))
    app = path.with_suffix(".efi")
    app.write_bytes(application)
    for tool in (
        ["mformat", "-i", path, "-T", "4096", "-h", "16", "-s", "32", "::"],
        ["mmd", "-i", path, "::/EFI", "::/EFI/BOOT"],
        ["mcopy", "-i", path, app, "::/EFI/BOOT/BOOTX64.EFI"],
    ):
        subprocess.run(tool, check=True, capture_output=True, timeout=30)
    app.unlink()


def _iso(path: Path, work: Path, boot: list[str]) -> None:
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(path), *boot, str(work)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
