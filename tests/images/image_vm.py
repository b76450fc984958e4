"""One QEMU machine that boots a disk image, its serial port in a file."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

OVMF = Path("/usr/share/OVMF")


class Machine:
    def __init__(self, process: subprocess.Popen[bytes], serial: Path) -> None:
        self.process, self.serial = process, serial

    def text(self) -> str:
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def wait_for(self, line: str, *, seconds: float) -> str:
        """What the serial port said until `line` stood there; fails with its end otherwise."""
        deadline = time.monotonic() + seconds
        while line not in (text := self.text()):
            assert self.process.poll() is None, f"QEMU ended with {self.process.returncode}"
            assert time.monotonic() < deadline, f"no {line!r} within {seconds:.0f} s; the end of it:\n{text[-3000:]}"
            time.sleep(0.2)
        return text


def firmware_options(firmware: str, folder: Path) -> list[str]:
    if firmware == "bios":
        return ["-machine", "q35,graphics=off"]
    code, variables = {
        "uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        "secure": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
    }[firmware]
    shutil.copyfile(OVMF / variables, folder / "vars.fd")
    return [
        *("-machine", "q35,smm=on" if firmware == "secure" else "q35"),
        *(("-global", "driver=cfi.pflash01,property=secure,value=on") if firmware == "secure" else ()),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={folder / 'vars.fd'}"),
    ]


@contextlib.contextmanager
def booted(
    disk: Path, folder: Path, *, firmware: str = "uefi", extra: tuple[str, ...] = (), memory: int = 512
) -> Iterator[Machine]:
    """Emulated (TCG), because hardware virtualisation is not everywhere. The disk is not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    serial = folder / "serial.log"
    command = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-cpu",
        "qemu64",
        "-m",
        str(memory),
        "-nodefaults",
        "-display",
        "none",
    ]
    command += [*firmware_options(firmware, folder), "-serial", f"file:{serial}", "-snapshot"]
    command += ["-drive", f"if=none,id=disk,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=disk,bootindex=0"]
    command += [
        "-netdev",
        "user,id=net",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
        "-device",
        "virtio-rng-pci",
        *extra,
    ]
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Machine(process, serial)
    finally:
        process.kill()
        process.wait(30)


HOW_IT_IS = """\
  - [sh, -c, 'echo "PROOF host=$(hostname) root=$(df --output=size -m / | tail -1 | tr -d " ") failed=$(systemctl --failed --plain --no-legend | tr "\\n" ";") addresses=$(ip -4 -br addr | tr -s " " | tr "\\n" ";") efi=$(findmnt -n -o SOURCE /boot/efi) END" > /dev/ttyS0']
"""


def all_is_well(text: str, hostname: str) -> str:
    """The line that the first boot's HOW_IT_IS wrote, on a disk of 3 GiB."""
    said = next(line for line in text.splitlines() if "PROOF" in line)
    assert f"host={hostname}" in said
    assert "failed= " in said, text[-6000:]
    assert "efi=/dev/vda2" in said, said
    assert 2500 < int(said.split("root=")[1].split()[0]) < 3100, "the root file system grew with the disk"
    return said
