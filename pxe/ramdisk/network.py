"""Brings the ramdisk's network up, then ends: on the first interface through which the controller answers.

Run by the ramdisk's init as `network.py BOOT_JSON`. With an address in the boot data nothing asks for DHCP; without one,
DHCP is asked on every interface that has a link. Everything it does is printed, for whoever reads the serial console.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from metalimmu.wire import codec
from metalimmu.wire.messages import Boot

SYS = Path("/sys/class/net")
RUN = Path("/run/metalimmu")
RESOLV_CONF = Path("/etc/resolv.conf")
LEASE_SCRIPT = "/usr/lib/metalimmu/lease"
PROBE_SECONDS = 5.0
PAUSE_SECONDS = 0.3
ETHERNET = "1"  # ARPHRD_ETHER

Command = list[str]
Run = Callable[[Command], None]


@dataclass(frozen=True)
class Nic:
    name: str
    mac: str
    driver: str
    link: bool


@dataclass(frozen=True)
class Address:
    """What an interface gets, from the boot data or from DHCP. `address` with its prefix length."""

    address: str
    gateway: str = ""
    dns: tuple[str, ...] = ()
    domain: str = ""
    mtu: str = ""


def say(text: str) -> None:
    print(f"metalimmu: {text}", flush=True)


def run(command: Command) -> None:
    """Raises CalledProcessError, with what the program said."""
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def nics(sys_class_net: Path = SYS) -> list[Nic]:
    """Ethernet interfaces with a device behind them, in the order of their index."""
    found = []
    for path in sys_class_net.iterdir():
        if not (path / "device").exists() or _text(path / "type") != ETHERNET:
            continue
        driver = (path / "device" / "driver").resolve().name
        nic = Nic(path.name, _text(path / "address").lower(), driver, _text(path / "carrier") == "1")
        found.append((int(_text(path / "ifindex") or 0), nic))
    return [nic for _, nic in sorted(found, key=lambda pair: pair[0])]


def static(network: dict[str, str]) -> Address | None:
    """The address that the boot data bring; None means DHCP. Raises ValueError when one is not an address."""
    if not network.get("address"):
        return None
    address = str(ipaddress.ip_interface(network["address"]))
    gateway = str(ipaddress.ip_address(network["gateway"])) if network.get("gateway") else ""
    dns = tuple(network.get("dns", "").replace(",", " ").split())
    return Address(address, gateway, dns, network.get("domain", ""), network.get("mtu", ""))


def parse_lease(text: str) -> Address:
    """What the `lease` script wrote."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    address = str(ipaddress.ip_interface(values["address"]))
    return Address(
        address,
        values.get("gateway", ""),
        tuple(values.get("dns", "").split()),
        values.get("domain", ""),
        values.get("mtu", ""),
    )


def up_commands(name: str, address: Address) -> list[Command]:
    """The commands that give `name` its address. A gateway outside of the subnet gets a route of its own first."""
    interface = ipaddress.ip_interface(address.address)
    ip = ["ip", "-6"] if interface.version == 6 else ["ip"]
    commands = [["ip", "link", "set", name, "mtu", address.mtu]] if address.mtu else []
    commands.append([*ip, "addr", "add", address.address, "dev", name])
    if address.gateway:
        if ipaddress.ip_address(address.gateway) not in interface.network:
            commands.append([*ip, "route", "add", address.gateway, "dev", name])
        commands.append([*ip, "route", "add", "default", "via", address.gateway, "dev", name])
    return commands


def down_commands(name: str) -> list[Command]:
    return [["ip", "addr", "flush", "dev", name], ["ip", "route", "flush", "dev", name]]


def vlan_commands(name: str, vlan: str) -> list[Command]:
    return [
        ["ip", "link", "add", "link", name, "name", f"{name}.{vlan}", "type", "vlan", "id", vlan],
        ["ip", "link", "set", f"{name}.{vlan}", "up"],
    ]


def resolv_conf(address: Address) -> str:
    lines = [f"search {address.domain}"] if address.domain else []
    return "".join(f"{line}\n" for line in [*lines, *(f"nameserver {server}" for server in address.dns)])


def controller(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError(f"no host in the controller's URL {url!r}")
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def probe(name: str, host: str, port: int, seconds: float = PROBE_SECONDS) -> str:
    """Empty when the controller takes a connection that goes out through `name`; else why not."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(seconds)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            sock.connect(target)
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


class Interfaces:
    """The interfaces that may lead to the controller, and what is known of each."""

    def __init__(self, network: dict[str, str]) -> None:
        self._mac = network.get("mac", "").lower()
        self._vlan = network.get("vlan", "")
        self._static = static(network)
        self._mtu = network.get("mtu", "")
        self._seen: dict[str, Nic] = {}
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self._vlans: set[str] = set()

    def look(self) -> list[str]:
        """Switches new interfaces on, says what changed, and gives those with a link."""
        for nic in nics():
            before = self._seen.get(nic.name)
            if before is None:
                run(["ip", "link", "set", nic.name, "up"])
            if before is None or before.link != nic.link:
                say(f"NIC {nic.name} {nic.mac} {nic.driver} link {'up' if nic.link else 'down'}")
            self._seen[nic.name] = nic
        usable = [n.name for n in self._seen.values() if n.link and self._mac in ("", n.mac)]
        return [self._with_vlan(name) for name in usable]

    def missing(self) -> str:
        """Why there is nothing to try."""
        if not self._seen:
            return "no network interface: is the driver for it missing?"
        if self._mac and self._mac not in {n.mac for n in self._seen.values()}:
            return f"no interface has the MAC {self._mac} that the boot data name"
        return "no interface has a link" if not self._mac else f"the interface with MAC {self._mac} has no link"

    def address(self, name: str) -> Address | None:
        """The address for `name`; None while DHCP has not answered."""
        if self._static:
            return self._static
        if name not in self._clients:
            say(f"asking for DHCP on {name}")
            command = ["busybox", "udhcpc", "-f", "-i", name, "-s", LEASE_SCRIPT, "-t", "4", "-T", "2", "-A", "3"]
            self._clients[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lease = RUN / f"lease.{name}"
        if not lease.exists():
            return None
        offered = parse_lease(lease.read_text())
        return replace(offered, mtu=self._mtu or offered.mtu)

    def keep_only(self, chosen: str) -> None:
        for name, client in self._clients.items():
            if name != chosen:
                client.terminate()
                client.wait(10)

    def _with_vlan(self, name: str) -> str:
        if not self._vlan:
            return name
        if name not in self._vlans:
            if self._mtu:
                run(["ip", "link", "set", name, "mtu", self._mtu])
            for command in vlan_commands(name, self._vlan):
                run(command)
            self._vlans.add(name)
        return f"{name}.{self._vlan}"


def try_interface(name: str, address: Address, host: str, port: int) -> str:
    """Configures `name` and asks for the controller; undone and with the reason when that does not answer."""
    try:
        for command in up_commands(name, address):
            run(command)
        RESOLV_CONF.write_text(resolv_conf(address))
        trouble = probe(name, host, port)
    except subprocess.CalledProcessError as exc:
        trouble = f"{' '.join(exc.cmd)}: {exc.stderr.strip()}"
    if trouble:
        for command in down_commands(name):
            with contextlib.suppress(subprocess.CalledProcessError):
                run(command)
    return trouble


def connect(boot: Boot) -> None:
    """Returns when the controller answers. Without a limit: a controller that is down comes back, a cable is plugged in."""
    host, port = controller(boot.url)
    interfaces = Interfaces(boot.network)
    said: set[str] = set()

    def say_once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    started = time.monotonic()
    while True:
        names = interfaces.look()
        if not names and time.monotonic() - started > 10:  # a link takes seconds to come up
            say_once(interfaces.missing())
        for name in names:
            address = interfaces.address(name)
            if address is None:
                continue
            say_once(f"{name}: address {address.address} gateway {address.gateway or 'none'}")
            trouble = try_interface(name, address, host, port)
            if not trouble:
                interfaces.keep_only(name)
                say(f"the controller {host}:{port} answers through {name}")
                return
            say_once(f"the controller {host}:{port} does not answer through {name}: {trouble}; trying again")
        time.sleep(PAUSE_SECONDS)


def main(arguments: Sequence[str]) -> int:
    try:
        boot = codec.decode(Boot, Path(arguments[0]).read_bytes())
        connect(boot)
    except (codec.WireError, ValueError) as exc:
        say(f"the boot data are wrong: {exc}")
        return 1
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # carrier of an interface that is down cannot be read
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
