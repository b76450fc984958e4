"""A virtual machine that boots a ramdisk's ISO: firmware, console to a file, QMP; TCG only."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

OVMF = Path("/usr/share/OVMF")
FIRMWARE = {
    "bios": ["-machine", "pc"],
    "bios-q35": ["-machine", "q35"],
    "uefi": ["-machine", "q35"],
    "secure": ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"],
}
FLASH = {"uefi": ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), "secure": ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd")}


class Vm:
    def __init__(self, folder: Path, firmware: str, devices: Sequence[str], *, memory: int) -> None:
        self.folder = folder
        self._console = folder / "console"
        self._qmp = folder / "qmp"
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-m", str(memory)]
        command += ["-display", "none", "-monitor", "none", "-no-reboot"]
        command += [*FIRMWARE[firmware], *self._flash(firmware), *devices]
        command += ["-serial", f"file:{self._console}", "-serial", f"file:{folder / 'second'}"]
        command += ["-qmp", f"unix:{self._qmp},server=on,wait=off"]
        with (folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _flash(self, firmware: str) -> list[str]:
        if firmware not in FLASH:
            return []
        code, variables = FLASH[firmware]
        own = self.folder / "vars.fd"
        shutil.copy(OVMF / variables, own)
        return [
            *("-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / code}"),
            *("-drive", f"if=pflash,format=raw,file={own}"),
        ]

    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def second_console(self) -> str:
        return (self.folder / "second").read_text(errors="replace")

    def wait(self, text: str, seconds: float = 240) -> str:
        """The console once it has `text`."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            said = self.console()
            if text in said:
                return said
            assert self._process.poll() is None, f"QEMU ended: {(self.folder / 'qemu.log').read_text()}\n{said}"
            time.sleep(0.1)
        raise AssertionError(f"no {text!r} within {seconds} s on the console:\n{self.console()}")

    def qmp(self, command: str, **arguments: object) -> dict[str, object]:
        """The answer to one command; {"return": ...} or {"error": ...}."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self._qmp))
            stream = sock.makefile("rw")
            answer: dict[str, object] = json.loads(stream.readline())
            for name, given in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": given}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while "event" in answer:
                    answer = json.loads(stream.readline())
            return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """A TCP port that takes connections and closes them: enough for the ramdisk to see that the controller is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
