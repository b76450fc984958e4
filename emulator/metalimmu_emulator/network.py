"""A real network segment for a lab: a bridge of this host with a tap per machine, so that DHCP, TFTP and HTTP are what they are
on a rack. It needs root; without it machines have QEMU's own network, in which QEMU answers DHCP.

The host has the segment's first address, and nothing is routed or translated: machines reach the host and each other.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalimmu.errors import LabError, ToolError

TUN = Path("/dev/net/tun")
_SECONDS = 20.0
_PREFIX = 24


@dataclass(frozen=True)
class Segment:
    bridge: str  # name of the interface; at most 15 characters, as the taps' (IFNAMSIZ)
    network: str  # 10.77.3.0/24
    taps: tuple[str, ...]

    @property
    def _net(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.network)

    @property
    def address(self) -> str:
        """The host's."""
        return str(self._net[1])

    @property
    def range(self) -> str:
        """Addresses for DHCP: FIRST-LAST."""
        return f"{self._net[20]}-{self._net[250]}"

    def fixed(self, number: int) -> str:
        """ADDRESS/PREFIX that DHCP does not give out: a switch's, once it is configured."""
        return f"{self._net[2 + number]}/{_PREFIX}"

    @property
    def prefix6(self) -> str:
        """A unique local network of its own (RFC 4193): iPXE waits for a router that advertises one."""
        return f"fd{self._net.network_address.packed[1]:02x}:{self._net.network_address.packed[2]:02x}::"


def check() -> None:
    """Raises ToolError, in one line, when no segment can be made here."""
    hint = "without --network the machines boot the network through QEMU's own iPXE"
    if os.geteuid() != 0:
        raise ToolError("--network makes a bridge on this host, and that needs root", hint=hint)
    if shutil.which("ip") is None:
        raise ToolError("--network needs `ip`, which is not installed", hint="apt-get install iproute2")
    if not TUN.exists():
        raise ToolError(f"--network needs {TUN}, and this machine (a container without it?) has none", hint=hint)


def choose(machines: int) -> Segment:
    """One that nothing on this host uses. Raises LabError."""
    used = [ipaddress.IPv4Network(route) for route in _routes()]
    for third in random.sample(range(256), 256):
        net = ipaddress.IPv4Network(f"10.{64 + secrets.randbelow(64)}.{third}.0/{_PREFIX}")
        if not any(net.overlaps(other) for other in used):
            bridge = f"mi{secrets.token_hex(4)}"
            return Segment(bridge, str(net), tuple(f"{bridge}n{i}" for i in range(1, machines + 1)))
    raise LabError("this host has routes to all of 10.64.0.0/10", hint="a lab without --network needs no addresses")


def _routes() -> list[str]:
    found: list[dict[str, Any]] = json.loads(_ip("-j", "-4", "route") or "[]")
    return [r["dst"] for r in found if r.get("dst", "default") != "default"]


def create(segment: Segment) -> None:
    """Make what is not there yet; a reboot of the host takes it away. Raises LabError."""
    name = segment.bridge
    if not _exists(name):
        _ip("link", "add", name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
        _ip("addr", "add", f"{segment.address}/{_PREFIX}", "dev", name)
        if Path("/proc/sys/net/ipv6").is_dir() and not _disabled6(name):
            _ip("-6", "addr", "add", f"{segment.prefix6}1/64", "dev", name, "nodad")
        _ip("link", "set", name, "up")
    for tap in segment.taps:
        if not _exists(tap):
            _ip("tuntap", "add", tap, "mode", "tap")
            _ip("link", "set", tap, "master", name)
            _ip("link", "set", tap, "up")


def remove(segment: Segment) -> None:
    """What is gone already is no error. Raises LabError."""
    for name in (*segment.taps, segment.bridge):
        if _exists(name):
            _ip("link", "del", name)


def _exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _disabled6(name: str) -> bool:
    setting = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
    return not setting.exists() or setting.read_text().strip() != "0"


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise LabError(f"`ip {' '.join(words)}`: {exc}") from exc
    if done.returncode:
        raise LabError(
            f"`ip {' '.join(words)}`: {done.stderr.strip()}",
            hint="a bridge and taps need root and the capability NET_ADMIN (a container may lack it)",
        )
    return done.stdout
