"""UEFI boot entries: bytes as firmware writes them, and only ours are touched."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalimmu.agent import efi
from metalimmu.agent.identify import GLOBAL_VARIABLE

ESP = efi.Esp(1, 2048, 1048576, uuid.UUID("8a1b2c3d-1122-3344-5566-77889900aabb"))
LOADER = "\\EFI\\BOOT\\BOOTX64.EFI"

# UEFI 2.10: 3.1.3 EFI_LOAD_OPTION, 10.3.5.1 hard drive, 10.3.5.4 file path, 10.3.1 end.
GOLDEN = bytes.fromhex(
    "01000000" "5e00"  # active; length of the device path
    "7700" "6500" "6200" "4000" "3100" "0000"  # web@1
    "0401" "2a00" "01000000" "0008000000000000" "0000100000000000"  # HD, 42 bytes, partition 1, start, size
    "3d2c1b8a" "2211" "4433" "5566" "77889900aabb" "02" "02"  # GUID, mixed endian; GPT; GUID
    "0404" "3000"  # file path, 48 bytes
    "5c00" "4500" "4600" "4900" "5c00" "4200" "4f00" "4f00" "5400" "5c00"  # \EFI\BOOT\
    "4200" "4f00" "4f00" "5400" "5800" "3600" "3400" "2e00" "4500" "4600" "4900" "0000"  # BOOTX64.EFI
    "7fff" "0400"
)  # fmt: skip


def test_golden_bytes():
    option = efi.LoadOption(efi.ACTIVE, "web@1", efi.hard_drive_path(ESP, LOADER))
    assert option.encode() == GOLDEN
    assert efi.LoadOption.decode(GOLDEN) == option
    assert option.file() == LOADER


@given(
    st.integers(0, 2**32 - 1),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.binary(max_size=200),
    st.binary(max_size=40),
)
def test_what_is_written_is_what_is_read(attributes, description, path, data):
    option = efi.LoadOption(attributes, description, path, data)
    assert efi.LoadOption.decode(option.encode()) == option


@given(st.binary(max_size=120))
def test_odd_entries_are_an_error_and_nothing_else(raw):
    try:
        option = efi.LoadOption.decode(raw)
    except ValueError:
        return
    assert isinstance(option.file(), str)


class Nvram:
    """efivarfs as a folder."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.variables = efi.Variables(folder)

    def raw(self, name: str, value: bytes) -> None:
        (self.folder / f"{name}-{GLOBAL_VARIABLE}").write_bytes(b"\7\0\0\0" + value)

    def entry(self, number: int, description: str, path: bytes = b"\x7f\xff\4\0") -> None:
        self.raw(f"Boot{number:04X}", efi.LoadOption(1, description, path).encode())

    def order(self, *numbers: int) -> None:
        self.raw("BootOrder", struct.pack(f"<{len(numbers)}H", *numbers))


@pytest.fixture
def nvram(tmp_path) -> Nvram:
    made = Nvram(tmp_path)
    made.entry(0, "PXE IPv4 eth0")
    made.entry(1, "debian")
    made.entry(0xA, "metalimmu web@1", efi.hard_drive_path(ESP, "\\old.efi"))
    made.raw("Boot0007", b"junk")
    made.raw("Setup", b"whatever")
    made.order(1, 0xA, 0, 0x42)
    return made


def ours(nvram: Nvram, label="metalimmu web@2", own=("metalimmu web@1",)):
    return efi.put_first(nvram.variables, label, efi.hard_drive_path(ESP, LOADER), own)


def test_ours_is_first_and_next_and_only_ours_is_replaced(nvram):
    shown, problems = ours(nvram)
    assert problems == []
    assert shown == ["0002 metalimmu web@2 " + LOADER, "0001 debian", "0000 PXE IPv4 eth0", "0042 (missing)"]
    assert nvram.variables.read("BootNext") == b"\2\0"
    assert set(nvram.variables.entries()) == {0, 1, 2}
    assert nvram.variables.read("Boot0007") == b"junk"
    raw = (nvram.folder / f"Boot0002-{GLOBAL_VARIABLE}").read_bytes()
    assert raw[:4] == b"\7\0\0\0", "non-volatile, boot and runtime access"


def test_a_second_time_changes_nothing(nvram):
    first = ours(nvram)
    state = {p.name: p.read_bytes() for p in nvram.folder.iterdir()}
    assert ours(nvram, own=("metalimmu web@2",)) == first
    assert {p.name: p.read_bytes() for p in nvram.folder.iterdir()} == state


def test_an_entry_of_another_system_with_a_similar_name_stays(nvram):
    nvram.entry(0x20, "metalimmu web@1 (copy)")
    ours(nvram)
    assert nvram.variables.entries()[0x20].description == "metalimmu web@1 (copy)"


def test_empty_nvram(tmp_path):
    shown, problems = ours(Nvram(tmp_path), own=())
    assert shown == ["0000 metalimmu web@2 " + LOADER]
    assert problems == []


def test_full_nvram_is_told_and_not_fatal(nvram, monkeypatch):
    real = os.write

    def full(fd, data):
        if len(data) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(efi.os, "write", full)
    shown, problems = ours(nvram)
    assert "No space left on device" in problems[0]
    assert "0001 debian" in shown


def test_firmware_that_does_not_keep_what_is_written(nvram, monkeypatch):
    real = efi.Variables.write

    def forgets(self, name, value):
        if name != "BootNext":
            real(self, name, value)

    monkeypatch.setattr(efi.Variables, "write", forgets)
    assert ours(nvram)[1] == ["BootNext was not kept by the firmware"]


def test_no_efivarfs_at_all(tmp_path):
    shown, problems = ours(Nvram(tmp_path / "absent"))
    assert shown == []
    assert "fallback path" in problems[0]


def test_the_immutable_flag_is_taken_off(nvram):
    file = nvram.folder / f"Boot000A-{GLOBAL_VARIABLE}"
    done = subprocess.run(["chattr", "+i", file], capture_output=True, check=False, timeout=20)
    if done.returncode:  # not root, or a file system without attributes: the ioctl itself is then not reachable
        assert os.geteuid() != 0 or b"not supported" in done.stderr or b"Inappropriate" in done.stderr
        return
    try:
        assert ours(nvram)[1] == []
        assert 0xA not in nvram.variables.entries()
    finally:
        if file.exists():
            subprocess.run(["chattr", "-i", file], check=False, timeout=20)
