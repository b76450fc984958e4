"""Switches without hardware and without virtual machines: a stand-in for `ssh` runs the driver's own commands in a folder
that looks like a switch, and a thread plays ONIE and ZTP against the real boot service.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import yaml
from rack import free_port

from metalimmu.images.catalogue import Catalogue
from metalimmu.images.nos import add_nos

PLATFORM = "x86_64-kvm_x86_64-r0"
LIMITS = {"power": "10s", "media": "10s", "check_in": "10s", "stall": "10s", "phone_home": "10s", "bmc": "6s"}

SSH = r"""#!/bin/sh
# ssh -F none -T -p PORT -o NAME=VALUE ... -- USER@ADDRESS COMMAND
known= port= strict=
while [ $# -gt 0 ]; do
  case "$1" in
    -p) port=$2; shift;;
    -o) case "$2" in UserKnownHostsFile=*) known=${2#*=};; StrictHostKeyChecking=*) strict=${2#*=};; esac; shift;;
    -F|-i) shift;;
    --) shift; break;;
  esac
  shift
done
user=${1%@*} command=$2
SW=@ROOT@/$port; export SW
echo "$user $command" >> $SW/log
[ -e $SW/up ] || { echo "ssh: connect to host 127.0.0.1 port $port: Connection refused" >&2; exit 255; }
key=$(cat $SW/key)
if [ "$strict" = yes ]; then
  grep -qF "$key" "$known" || { echo "Host key verification failed." >&2; exit 255; }
else
  echo "[127.0.0.1]:$port $key" >> "$known"
fi
if [ -e $SW/password ] && [ "$(cat $SW/password)" != "$METALIMMU_SSH_PASSWORD" ]; then
  echo "$user@127.0.0.1: Permission denied (password)." >&2; exit 255
fi
[ -e $SW/hang ] && exec sleep 600
PATH=$SW/bin:/usr/bin:/bin; export PATH
export SSH_CONNECTION="10.0.2.2 5000 10.0.2.15 22"
exec sh -c "$(printf '%s' "$command" | sed -e "s#/host\b#$SW/host#g" -e "s#/mnt/onie-boot#$SW/onie-boot#g" -e "s#/etc/os-release#$SW/etc/os-release#g" -e "s#/etc/sonic#$SW/etc/sonic#g" -e "s#/etc/machine.conf#$SW/etc/machine.conf#g" -e "s#/proc/sys/kernel/random/boot_id#$SW/boot_id#g" -e "s#/proc/meminfo#$SW/meminfo#g" -e "s#/sys/class/net#$SW/net#g" -e "s#/var/log/messages#$SW/messages#g")"
"""

TOOLS = {
    "decode-syseeprom": "cat $SW/eeprom$1",
    "mount": ":",
    "mountpoint": ":",
    "grub-reboot": ":",
    "lldpctl": "cat $SW/lldp",
    "clagctl": "[ -e $SW/clag ] && cat $SW/clag",
    "TSA": "echo maintenance > $SW/traffic",
    "TSB": "echo normal > $SW/traffic",
    "TSC": 'echo "System Mode: $(cat $SW/traffic)"',
    "show": 'echo "ZTP Status : $(cat $SW/ztp)"',
    "reboot": "touch $SW/reboot",
    "ip": 'echo "10.0.2.2 dev $(cat $SW/way) src 10.0.2.15"',
    "df": 'echo "Filesystem 1024-blocks Used Available Capacity Mounted on"; echo "/dev/sda3 1000000 10 $(cat $SW/free) 1% /host"',
    "wget": """for a; do case $a in -O) out=1;; http*) url=$a;; *) [ "$out" = 1 ] && { file=$a; out=; };; esac; done
curl -fsS -o $file $url""",
    "sonic-installer": """case $1 in
list) echo "Current: $(cat $SW/slots/current)"; echo "Next: $(cat $SW/slots/next)"; echo "Available: "; ls $SW/slots/available;;
binary-version) echo LAB-OS-$(head -n 1 $2 | cut -d= -f2);;
install) n=LAB-OS-$(head -n 1 $3 | cut -d= -f2); for s in $(ls $SW/slots/available); do [ $s = $(cat $SW/slots/current) ] || rm $SW/slots/available/$s; done
  touch $SW/slots/available/$n; echo $n > $SW/slots/next; echo $n > $SW/slots/default;;
set-default) [ -e $SW/slots/available/$2 ] || { echo "no image $2" >&2; exit 1; }; echo $2 > $SW/slots/default; echo $2 > $SW/slots/next;;
set-next-boot) [ -e $SW/slots/available/$2 ] || { echo "no image $2" >&2; exit 1; }; echo $2 > $SW/slots/next;;
esac""",
}
ONIE_TOOLS = {
    "onie-boot-mode": """if [ "$1" = -o ]; then [ -e $SW/stuck ] || echo $2 > $SW/onie_mode; [ $2 = none ] && echo unknown > $SW/onie_mode; exit 0; fi
echo "Default boot: ONIE mode: $(cat $SW/onie_mode)\"""",
    "onie-nos-mode": "cat $SW/nos_mode",
}


class SwitchRack:
    """A site with the pair leaf-1, leaf-2, and NOS images lab-nos@1 and lab-nos@2."""

    def __init__(self, folder: Path, *, boot: str = "auto", bmc: bool = False, installs: int = 2) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.ssh = folder / "bin"
        for sub in ("hosts", "roles", "templates"):
            (self.site / sub).mkdir(parents=True)
        self.ssh.mkdir()
        _script(self.ssh / "ssh", SSH.replace("@ROOT@", str(folder / "switch")), whole=True)
        self.port = free_port()
        self.write(
            "site.yaml",
            {
                "name": "fabric",
                "mode": "read-write",
                "urls": {"bmc": f"http://127.0.0.1:{self.port}", "machines": f"https://127.0.0.1:{free_port()}"},
                "limits": LIMITS,
                "credentials": [{"match": {}, "ref": "file:login.yaml"}],
            },
        )
        self.write("login.yaml", {"username": "admin", "password": "secret"})
        (self.site / "login.yaml").chmod(0o600)
        self.write(
            "roles/leaf.yaml",
            {
                "image": "lab-nos@2",
                "boot": boot,
                "soak": "0s",
                "installs": installs,
                "config": {"config_db.json": "config_db.json.j2"},
            },
        )
        (self.site / "templates/config_db.json.j2").write_text(
            '{"DEVICE_METADATA": {"localhost": {"hostname": {{ name | tojson }}, "mac": {{ switch.base_mac | tojson }}}}}\n'
        )
        self.switches = {}
        hosts = []
        for number, (name, peer) in enumerate((("leaf-1", "leaf-2"), ("leaf-2", "leaf-1")), 1):
            switch = SimulatedSwitch(
                folder / "switch" / str(4000 + number), number, f"http://127.0.0.1:{self.port}", name
            )
            self.switches[name] = switch
            hosts.append(
                {
                    "name": name,
                    "kind": "switch",
                    "serial": switch.serial,
                    "bmc": f"ssh://127.0.0.1:{4000 + number}",
                    "role": "leaf",
                    "switch": {
                        "platform": PLATFORM,
                        "base_mac": switch.base_mac,
                        "mgmt_mac": switch.mgmt_mac,
                        "peer": peer,
                    },
                }
            )
        self.write("hosts/leaves.yaml", hosts)
        for a, b in (("leaf-1", "leaf-2"), ("leaf-2", "leaf-1")):
            self.switches[a].peer = self.switches[b]
        for switch in self.switches.values():
            switch.installed("1")
        for switch in self.switches.values():
            switch.refresh()
        for version in ("1", "2", "3"):
            self.image(version)

    def write(self, name: str, document: Any) -> None:
        (self.site / name).write_text(yaml.safe_dump(document, sort_keys=False))

    def image(self, version: str, *, platforms: tuple[str, ...] = ("x86_64-kvm_x86_64-r*",), min_ram: int = 1) -> None:
        file = self.folder / f"nos-{version}.bin"
        file.write_bytes(f"VERSION={version}\n".encode() + random.Random(version).randbytes(300_001))
        catalogue = Catalogue(self.site / ".metalimmu" / "images")
        add_nos(catalogue, file, f"lab-nos@{version}", nos="lab", platforms=platforms, min_ram=min_ram)


class SimulatedSwitch:
    """`failures`: so many runs of the installer end with an error; `rescue`: ONIE starts, and never asks."""

    def __init__(self, root: Path, number: int, url: str, name: str) -> None:
        self.root = root
        self.name = name
        self.serial = f"LAB{number:04d}"
        self.base_mac = f"52:54:00:10:{number:02x}:01"
        self.mgmt_mac = f"52:54:00:10:{number:02x}:02"
        self.url = url
        self.platform = PLATFORM
        self.failures = 0
        self.rescue = False
        self.silent_ztp = False
        self.bad_slots: set[str] = set()
        self.peer: SimulatedSwitch | None = None
        self.requests: list[tuple[str, int]] = []
        self.installs = 0
        for sub in ("bin", "host", "etc/sonic", "onie-boot/onie/tools/bin", "slots/available", "net"):
            (root / sub).mkdir(parents=True)
        for tool, text in TOOLS.items():
            _script(root / "bin" / tool, text)
        for tool, text in ONIE_TOOLS.items():
            _script(root / "onie-boot/onie/tools/bin" / tool, text)
        machine = f"onie_platform={PLATFORM}\nonie_machine=kvm_x86_64\nonie_arch=x86_64\n"
        for file, text in {
            "eeprom-s": self.serial, "eeprom-m": self.base_mac, "meminfo": "MemTotal: 2048000 kB", "way": "eth0",
            "host/machine.conf": machine, "etc/machine.conf": machine, "onie_mode": "unknown", "nos_mode": "yes",
            "traffic": "normal", "ztp": "SUCCESS", "free": "900000", "messages": "all well",
        }.items():  # fmt: skip
            self.put(file, text)
        for port, state in {"eth0": "up", "Ethernet0": "up", "Ethernet1": "up", "Ethernet2": "down"}.items():
            (root / "net" / port).mkdir()
            self.put(f"net/{port}/operstate", state)
        self.put("net/eth0/address", self.mgmt_mac)
        self.neighbours({"Ethernet0": ("spine-1", "Ethernet4"), "Ethernet1": ("spine-2", "Ethernet4")})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def put(self, file: str, text: str) -> None:
        path = self.root / file
        path.write_text(text + "\n")

    def read(self, file: str) -> str:
        return (self.root / file).read_text().strip()

    def neighbours(self, found: dict[str, tuple[str, str]]) -> None:
        ports = [
            {"name": p, "chassis": [{"name": [{"value": s}]}], "port": [{"id": [{"type": "ifname", "value": r}]}]}
            for p, (s, r) in found.items()
        ]
        self.put("lldp", json.dumps({"lldp": [{"interface": ports}]}))

    @property
    def up(self) -> bool:
        return (self.root / "up").exists()

    def refresh(self) -> None:
        """What each of the pair sees of the other; a file `broken` breaks the session with both up."""
        for switch in (self, self.peer):
            if switch is None:
                continue
            other = switch.peer
            alive = (
                other is not None
                and other.up
                and not (other.root / "broken").exists()
                and not (switch.root / "broken").exists()
            )
            bonds = {b: {"operstate": "up", "status": "dual" if alive else "single"} for b in ("bond1", "bond2")}
            if (switch.root / "bond-down").exists():
                bonds["bond2"]["operstate"] = "down"
            said = {"status": {"peerAlive": alive, "backupActive": alive, "ourRole": "primary"}, "clagIntfs": bonds}
            switch.put("clag", json.dumps(said))

    def installed(self, version: str) -> None:
        """A NOS, fresh: new host key, no config."""
        name = f"LAB-OS-{version}"
        for old in (self.root / "slots/available").iterdir():
            old.unlink()
        self.put(f"slots/available/{name}", "")
        for file in ("current", "next", "default"):
            self.put(f"slots/{file}", name)
        (self.root / "etc/sonic/config_db.json").unlink(missing_ok=True)
        if version == "1" and self.installs == 0:
            self.put("etc/sonic/config_db.json", '{"OLD": {"table": "1"}}')
        self.put("key", f"ssh-ed25519 AAAA{uuid.uuid4().hex}{uuid.uuid4().hex}")
        self.put("nos_mode", "yes")
        self.boots(name)

    def boots(self, slot: str) -> None:
        self.put("slots/current", slot)
        self.put("slots/next", self.read("slots/default"))
        self.put("etc/os-release", f"ID=lab-nos\nVERSION_ID={slot.rpartition('-')[2]}")
        self.put("boot_id", str(uuid.uuid4()))
        self.put("traffic", "normal")
        self.put("up", "")
        self.refresh()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _live(self) -> None:
        while not self._stop.wait(0.05):
            if (self.root / "reboot").exists():
                (self.root / "reboot").unlink()
                (self.root / "up").unlink(missing_ok=True)
                self.refresh()
                self._stop.wait(0.3)
                if self.read("onie_mode") == "install" and not self.rescue:
                    self.onie()
                else:
                    slot = self.read("slots/next")
                    self.boots(self.read("slots/default") if slot in self.bad_slots else slot)

    def onie(self) -> None:
        """ONIE's loop: asks, installs, and asks again at once when the installer fails."""
        while not self._stop.wait(0.1):
            image = self.ask("/switch")
            if image is None:
                continue
            self.installs += 1
            if self.failures:
                self.failures -= 1
                continue
            self.installed(image[:20].split(b"\n")[0].split(b"=")[1].decode())
            self.ztp()
            return

    def ask(self, path: str, **changed: str) -> bytes | None:
        arch, _, rest = self.platform.partition("-")
        machine, _, rev = rest.rpartition("-r")
        headers = {
            "User-Agent": "onie/1.0", "ONIE-SERIAL-NUMBER": self.serial, "ONIE-ETH-ADDR": self.base_mac.upper(), "ONIE-MACHINE": machine,
            "ONIE-MACHINE-REV": rev, "ONIE-ARCH": arch, "ONIE-OPERATION": "os-install", "ONIE-VERSION": "2025.02", **changed,
        }  # fmt: skip
        return self._get(path, headers)

    def _get(self, path: str, headers: dict[str, str]) -> bytes | None:
        url = path if path.startswith("http") else self.url + path
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                data: bytes = answer.read()
        except urllib.error.HTTPError as exc:
            exc.close()
            self.requests.append((path, exc.code))
            return None
        except OSError:
            self.requests.append((path, 0))
            return None
        self.requests.append((path, 200))
        return data

    def ztp(self) -> None:
        if self.silent_ztp:
            return
        headers = {
            "User-Agent": "SONiC-ZTP/0.1", "PRODUCT-NAME": self.platform, "SERIAL-NUMBER": self.serial, "BASE-MAC-ADDRESS": self.base_mac,
        }  # fmt: skip
        while not self._stop.wait(0.1):
            found = self._get("/switch", headers)
            if found is not None:
                break
        else:
            return
        for _, section in sorted(json.loads(found)["ztp"].items()):
            if "plugin" in section:
                script = self._get(section["plugin"]["url"], headers) or b""
                text = script.decode().replace("/etc/os-release", f"{self.root}/etc/os-release")
                text = text.replace("/etc/ssh/ssh_host_*_key.pub", f"{self.root}/key").replace("/etc/sonic", "/nowhere")
                subprocess.run(
                    ["sh", "-c", text],
                    env={"PATH": f"{self.root}/bin:{os.environ['PATH']}", "SW": str(self.root)},
                    check=True,
                    timeout=30,
                )
            else:
                config = self._get(section["url"]["source"], headers) or b""
                self.put("etc/sonic/config_db.json", config.decode())


def _script(path: Path, text: str, *, whole: bool = False) -> None:
    path.write_text(text if whole else f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def until(condition: Any, limit: float = 10.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


__all__ = ["PLATFORM", "SimulatedSwitch", "SwitchRack", "suppress", "until"]
