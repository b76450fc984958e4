"""The commands of the lab's NOS, answered in this process from the folder of a simulated switch: nothing is forked."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metalimmu.errors import BmcUnreachable, HostKeyChanged
from metalimmu.nos.adapter import DETECT
from metalimmu.nos.ports import Said

_ASKED = re.compile(r'echo "(=== \w+) (\w+)"; \( (.*?) \) 2>\$E </dev/null')


class LocalShell:
    """In the place of `Ssh`; `folder` has one folder for each port."""

    folder: Path

    def __init__(self, address: str, *, port: int, keys: Any = (), learn: Any = None, name: str = "", **_: Any) -> None:
        self.root = self.folder / str(port)
        self._keys = tuple(keys)
        self._learn = learn
        self._name = name or address

    def confirm(self) -> None:
        if not self._keys:
            self._keys = (self._read("key"),)
            if self._learn is not None:
                self._learn(self._keys)

    def run(self, command: str, *, limit: float = 60.0) -> Said:
        with (self.root / "log").open("a") as log:
            log.write(f"{command}\n")
        if not (self.root / "up").exists():
            raise BmcUnreachable(f"{self._name}: connection refused")
        if self._keys and self._read("key") not in self._keys:
            raise HostKeyChanged(f"{self._name} shows another SSH host key than the one that is known")
        if command == DETECT:
            return Said(0, f"{self._read('etc/os-release')}\n\n---\n\n---\n{self._read('etc/machine.conf')}\n", "")
        asked = _ASKED.findall(command)
        if not asked:
            return self._act(command)
        out = ""
        for mark, name, each in asked:
            said = self._act(each)
            out += f"{mark} {name}\n{said.out}\n{mark} {said.status}\n{said.err}"
        return Said(0, out + "\n", "")

    def _read(self, file: str) -> str:
        return (self.root / file).read_text().strip()

    def _put(self, file: str, text: str) -> None:
        (self.root / file).write_text(f"{text}\n")

    def _act(self, command: str) -> Said:
        for pattern, method in _COMMANDS:
            if found := re.search(pattern, command):
                try:
                    return Said(0, method(self, *found.groups()), "")
                except OSError as exc:
                    return Said(1, "", str(exc))
        return Said(127, "", f"sh: {command}: not found")

    def _mode(self, mode: str) -> str:
        if not (self.root / "stuck").exists():
            self._put("onie_mode", "unknown" if mode == "none" else mode)
        return self._onie()

    def _onie(self) -> str:
        return f"Default boot: ONIE mode: {self._read('onie_mode')}"

    def _config(self) -> str:
        """A file `sealed` stands for a login without the right to read it."""
        if (self.root / "sealed").exists():
            raise PermissionError("sudo: a password is required")
        file = self.root / "etc/sonic/config_db.json"
        return file.read_text() if file.exists() else ""

    def _links(self) -> str:
        return "\n".join(f"{p.name} {(p / 'operstate').read_text().strip()}" for p in (self.root / "net").iterdir())

    def _list(self) -> str:
        names = "\n".join(p.name for p in (self.root / "slots/available").iterdir())
        return f"Current: {self._read('slots/current')}\nNext: {self._read('slots/next')}\nAvailable: \n{names}\n"

    def _fetch(self, url: str) -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            (self.root / "host/metalimmu.bin").write_bytes(answer.read())
        return ""

    def _hash(self) -> str:
        return hashlib.sha256((self.root / "host/metalimmu.bin").read_bytes()).hexdigest() + "  file"

    def _version(self) -> str:
        head = (self.root / "host/metalimmu.bin").read_bytes()[:20].split(b"\n")[0]
        return "LAB-OS-" + head.split(b"=")[1].decode()

    def _install(self) -> str:
        for old in (self.root / "slots/available").iterdir():
            if old.name != self._read("slots/current"):
                old.unlink()
        name = self._version()
        (self.root / "slots/available" / name).touch()
        return self._default(name)

    def _default(self, name: str) -> str:
        (self.root / "slots/available" / name).stat()
        self._put("slots/default", name)
        self._put("slots/next", name)
        return ""


def _file(name: str) -> Callable[[LocalShell], str]:
    return lambda s: s._read(name)


def _puts(name: str, text: str) -> Callable[[LocalShell], str]:
    return lambda s: s._put(name, text) or ""  # type: ignore[func-returns-value]


_COMMANDS: list[tuple[str, Callable[..., str]]] = [
    (r"onie-boot-mode -o (\w+) &&", LocalShell._mode),
    (r"onie-boot-mode -l", LocalShell._onie),
    (r"onie-nos-mode -g", _file("nos_mode")),
    (r"machine\.conf", _file("host/machine.conf")),
    (r"decode-syseeprom -s", _file("eeprom-s")),
    (r"decode-syseeprom -m", _file("eeprom-m")),
    (r"meminfo", _file("meminfo")),
    (
        r"^df ",
        lambda s: (
            f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda3 9 9 {s._read('free')} 1% /host"
        ),
    ),
    (r"eth0/address", _file("net/eth0/address")),
    (r"class/net/\*", LocalShell._links),
    (r"boot_id", _file("boot_id")),
    (r"ip route get", lambda s: f"10.0.2.2 dev {s._read('way')} src 10.0.2.15"),
    (r"lldpctl", _file("lldp")),
    (r"clagctl", _file("clag")),
    (r"config_db", LocalShell._config),
    (r"^show ztp", lambda s: f"ZTP Status : {s._read('ztp')}"),
    (r"^TSC$", lambda s: f"System Mode: {s._read('traffic')}"),
    (r"^TSA$", _puts("traffic", "maintenance")),
    (r"^TSB$", _puts("traffic", "normal")),
    (r"^reboot$", _puts("reboot", "")),
    (r"^wget -q -O \S+ (\S+)$", LocalShell._fetch),
    (r"^sha256sum ", LocalShell._hash),
    (r"^sonic-installer list", LocalShell._list),
    (r"^sonic-installer binary-version", LocalShell._version),
    (r"^sonic-installer install -y", lambda s: s._install()),
    (r"^sonic-installer set-default (\S+)$", LocalShell._default),
    (r"^sonic-installer set-next-boot (\S+)$", lambda s, name: s._put("slots/next", name) or ""),
    (r"^rm -f ", lambda s: (s.root / "host/metalimmu.bin").unlink(missing_ok=True) or ""),
    (r"^tail ", _file("messages")),
]
